"""What a destination missed, read back from the database.

A moderate backlog is sent whole and in order. A very long one is cut to the newest event of each room,
from where the destination fills the gap itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import field, frozen

from federation.outbound.audience import Audiences
from federation.outbound.transaction import MAX_PDUS, is_sendable
from federation.ports import EventReader
from homeserver.events.stored import Status, StoredEvent
from protocol.events import Event
from protocol.identifiers import ServerName
from storage.catch_up import CatchUpStore, Owed
from storage.outbound_edus import Extra, OutboundEduStore

MAX_BACKLOG = 1_000
"""Events that are sent one and all; beyond it only the newest of each room."""
SCAN = 200
"""Events looked at in one query."""


@frozen
class PendingPdu:
    """An event on its way to a destination, with its feed position."""

    pos: int
    event: Event
    is_extra: bool = False
    """Whether the destination gets it though it is not in the room."""


@frozen
class Plan:
    """What to send next. All up to `reached` is in it; `whole`: only once all of it arrived."""

    pdus: Sequence[PendingPdu]
    reached: int
    whole: bool = False


@frozen
class CatchUp:
    """Reads backlogs."""

    store: CatchUpStore
    edus: OutboundEduStore
    events: EventReader
    audiences: Audiences
    max_backlog: int = field(default=MAX_BACKLOG)

    async def plan(self, server: ServerName, after: int, upto: int) -> Plan:
        """Give what `server` is owed with `after < pos <= upto`: a transaction's worth, or all newest."""
        owed = await self.store.owed(server, after, upto, self.max_backlog + 1)
        if len(owed) > self.max_backlog:
            newest = await self.store.newest(server, after, upto)
            extras = await self._all_extras(server, after, upto)
            pdus = [*await self._sendable(server, newest), *extras]
            return Plan(sorted(pdus, key=lambda pdu: pdu.pos), upto, whole=True)
        return await self._in_order(server, owed, after, upto)

    async def _in_order(self, server: ServerName, owed: Sequence[Owed], after: int, upto: int) -> Plan:
        """Give the first of what is owed, in order, up to a transaction's worth."""
        found: list[PendingPdu] = []
        for start in range(0, len(owed), SCAN):
            found += await self._sendable(server, owed[start : start + SCAN])
            if len(found) >= MAX_PDUS:
                break
        reached = found[MAX_PDUS - 1].pos if len(found) >= MAX_PDUS else upto
        found += await self._extras(server, after, reached)
        found.sort(key=lambda pdu: pdu.pos)
        if len(found) >= MAX_PDUS:
            return Plan(found[:MAX_PDUS], found[MAX_PDUS - 1].pos)
        return Plan(found, reached)

    async def _sendable(self, server: ServerName, owed: Sequence[Owed]) -> list[PendingPdu]:
        """Load events, and keep those that go to `server`."""
        loaded = await self._load([(one.room_nid, one.event_nid) for one in owed])
        found: list[PendingPdu] = []
        for one in owed:
            stored = loaded.get((one.room_nid, one.event_nid))
            if stored is not None and await self.audiences.is_member(server, stored):
                found.append(PendingPdu(one.pos, stored.event))
        return found

    async def _extras(self, server: ServerName, after: int, upto: int) -> list[PendingPdu]:
        """Load events about users of `server` in rooms it is not in."""
        return await self._loaded(await self.edus.extras(server, after, upto, MAX_PDUS))

    async def _loaded(self, extras: Sequence[Extra]) -> list[PendingPdu]:
        loaded = await self._load([(one.room_nid, one.event_nid) for one in extras])
        pairs = [(one.pos, loaded.get((one.room_nid, one.event_nid))) for one in extras]
        return [PendingPdu(pos, stored.event, is_extra=True) for pos, stored in pairs if stored is not None]

    async def _all_extras(self, server: ServerName, after: int, upto: int) -> list[PendingPdu]:
        """Load all such events, however many."""
        found: list[PendingPdu] = []
        while after < upto:
            extras = await self.edus.extras(server, after, upto, SCAN)
            found += await self._loaded(extras)
            after = extras[-1].pos if len(extras) == SCAN else upto
        return found

    async def _load(self, wanted: Sequence[tuple[int, int]]) -> dict[tuple[int, int], StoredEvent]:
        """Give the events with these room and event numbers that may be sent."""
        by_room: dict[int, list[int]] = {}
        for room_nid, event_nid in wanted:
            by_room.setdefault(room_nid, []).append(event_nid)
        found: dict[tuple[int, int], StoredEvent] = {}
        for room_nid, event_nids in by_room.items():
            for event_nid, stored in (await self.events.by_nid(room_nid, event_nids)).items():
                if may_go_out(stored):
                    found[room_nid, event_nid] = stored
        return found


def may_go_out(stored: StoredEvent) -> bool:
    """Tell whether an event was accepted, has its place in the room, and may stand in a transaction."""
    return stored.status is Status.ACCEPTED and stored.root_before is not None and is_sendable(stored.event)
