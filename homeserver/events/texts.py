"""Many events as the bytes in which they travel, read in parts: no events are made of them on the way.

The state of a large room is given to other servers like this: in memory is one part at a time.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from attrs import frozen

from homeserver.events.nids import Nids, Room
from protocol.events import load_event
from protocol.identifiers import EventID
from protocol.redaction import redact_event
from storage import events
from storage.database import Database

EVENTS_A_PART = 500


@frozen(eq=False)
class EventTexts:
    """Reads events as bytes."""

    database: Database
    nids: Nids

    async def listed(self, room_nid: int, event_nids: Sequence[int]) -> AsyncIterator[bytes]:
        """Give the JSON list of events, in parts; those that are redacted are given so."""
        room = await self.nids.room_of(room_nid)
        before = b"["
        for start in range(0, len(event_nids), EVENTS_A_PART):
            part = event_nids[start : start + EVENTS_A_PART]
            rows = await self.database.read(events.texts, room_nid, part)
            texts = [
                pdu if redacted is None else _redacted(event_id, pdu, room)
                for event_id, pdu, redacted in rows
            ]
            if texts:
                yield before + b",".join(texts)
                before = b","
        yield b"]" if before == b"," else b"[]"

    async def ids(self, room_nid: int, event_nids: Sequence[int]) -> list[str]:
        """Give the event IDs."""
        found: list[str] = []
        for start in range(0, len(event_nids), EVENTS_A_PART):
            part = event_nids[start : start + EVENTS_A_PART]
            found += (await self.database.read(events.ids, room_nid, part)).values()
        return found


def _redacted(event_id: str, pdu: bytes, room: Room) -> bytes:
    event = load_event(pdu, room.version, event_id=EventID(event_id), room_id=room.room_id)
    return redact_event(event).raw
