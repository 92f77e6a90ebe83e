"""Whole auth chains of events, read by their clocks: a few queries, no walk.

From room version 12 on events do not name the create event, which their room ID implies; it is in their
auth chains all the same, and other servers refuse a room without it there.

Source: server-server-api.md, "Definitions" (auth chain).
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from homeserver.events.clocks import extend, unpack_reach
from homeserver.events.event_store import Events
from homeserver.events.nids import Nids
from protocol.hashes import event_id_of_room_id
from protocol.identifiers import EventID
from protocol.state_resolution.known import authorities_of
from storage import chains, events
from storage.database import Database

EVENTS_A_TIME = 1_000


@frozen(eq=False)
class AuthChains:
    """Reads auth chains; of large states too, without holding anybody up."""

    database: Database
    stored: Events
    nids: Nids

    async def of_state(self, room_nid: int, event_nids: Sequence[int]) -> list[int]:
        """Give the nids of all events in the auth chains of these state events."""
        if not event_nids:
            return []
        reach: dict[int, int] = {}
        for start in range(0, len(event_nids), EVENTS_A_TIME):
            part = event_nids[start : start + EVENTS_A_TIME]
            for packed in await self.database.read(events.reaches, room_nid, part):
                extend(reach, unpack_reach(packed))
        spans = [(chain, 0, number) for chain, number in reach.items()]
        named = await self.database.read(chains.events_in, room_nid, spans) if spans else ()
        return list(dict.fromkeys([*named, *await self._implied(room_nid)]))

    async def of_event(self, room_nid: int, event_id: EventID) -> list[int]:
        """Give the nids of all events in the auth chain of one event, of any kind; none if it is not here."""
        stored = (await self.stored.by_id(room_nid, (event_id,))).get(event_id)
        if stored is None:
            return []
        auth = [
            each.nid for each in (await self.stored.by_id(room_nid, authorities_of(stored.event))).values()
        ]
        return list(dict.fromkeys([*auth, *await self.of_state(room_nid, auth)]))

    async def _implied(self, room_nid: int) -> list[int]:
        """Give the nid of the create event where events do not name it."""
        room = await self.nids.room_of(room_nid)
        if room.version.create_in_auth_events:
            return []
        create = await self.stored.by_id(room_nid, (event_id_of_room_id(room.room_id),))
        return [each.nid for each in create.values()]
