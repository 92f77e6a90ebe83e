"""Whole auth chains of events, read by their clocks: a few queries, no walk.

Source: server-server-api.md, "Definitions" (auth chain).
"""

from __future__ import annotations

from collections.abc import Collection

from attrs import frozen

from homeserver.events.clocks import AuthClock, union
from homeserver.events.room_state import RoomState
from protocol.events import Event
from protocol.identifiers import EventID
from storage import chains
from storage.database import Database
from storage.events import ClockRow

EVENTS_A_TIME = 5_000


@frozen(eq=False)
class AuthChains:
    """Reads auth chains."""

    database: Database
    state: RoomState

    async def chain(self, room_nid: int, event_ids: Collection[EventID]) -> list[Event]:
        """Give all events in the auth chains of these events; unknown events are passed over."""
        ids = await self.chain_ids(room_nid, event_ids)
        nids = list(ids)
        found: list[Event] = []
        for start in range(0, len(nids), EVENTS_A_TIME):
            part = await self.state.stored.by_nid(room_nid, nids[start : start + EVENTS_A_TIME])
            found += [stored.event for stored in part.values()]
        return found

    async def chain_ids(self, room_nid: int, event_ids: Collection[EventID]) -> dict[int, EventID]:
        """Give the same as (nid, event ID)."""
        named: set[EventID] = set()
        wanted = list(event_ids)
        for start in range(0, len(wanted), EVENTS_A_TIME):
            part = await self.state.stored.by_id(room_nid, wanted[start : start + EVENTS_A_TIME])
            named.update(each for stored in part.values() for each in stored.event.auth_events)
        reach = union(await self._clocks(room_nid, list(named)))
        spans = [(chain, 0, number) for chain, number in reach.items()]
        found = await self.database.read(chains.events_in, room_nid, spans) if spans else {}
        return {nid: EventID(event_id) for nid, event_id in found.items()}

    async def _clocks(self, room_nid: int, event_ids: list[EventID]) -> list[AuthClock]:
        rows: list[ClockRow] = []
        for start in range(0, len(event_ids), EVENTS_A_TIME):
            part = await self.state.stored.by_id(room_nid, event_ids[start : start + EVENTS_A_TIME])
            rows += await self.state.stored.clocks(room_nid, [each.nid for each in part.values()])
        return [AuthClock.unpack(row.chain, row.number, row.clock) for row in rows]
