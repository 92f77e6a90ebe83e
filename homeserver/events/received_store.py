"""Where events of other servers are read and written: what every part of receiving needs, in one place.

It numbers, reads and commits; it judges nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from attrs import frozen

from homeserver.clock import Clock
from homeserver.events.draft import Draft
from homeserver.events.ground import Ground, ReactorGround
from homeserver.events.heads import Heads
from homeserver.events.nids import Nids, Room
from homeserver.events.outliers import Known
from homeserver.events.persister import Persister
from homeserver.events.received import Incoming, Outcome
from homeserver.events.room_state import RoomState
from homeserver.events.stored import Status, StoredEvent
from homeserver.events.write import Committed, Write
from protocol.events import Event
from protocol.identifiers import EventID, UserID
from storage.database import Database
from storage.events import ClockRow
from storage.trie_format import NodeName

NUMBERS_A_TIME = 1_000


@frozen(eq=False)
class Store:
    """Where events are read and written: what every part of receiving needs."""

    database: Database
    nids: Nids
    state: RoomState
    heads: Heads
    persister: Persister
    clock: Clock

    def ground(self, room: Room) -> Ground:
        """Give the ground of a room on the reactor."""
        return ReactorGround(room, self.database, self.state, self.nids, self.clock)

    async def incoming(
        self, batch: Sequence[Event], bare: Mapping[EventID, int] = MappingProxyType({})
    ) -> list[Incoming]:
        """Give events their numbers; those in `bare` have one."""
        numbered: list[Incoming] = []
        for start in range(0, len(batch), NUMBERS_A_TIME):
            part = batch[start : start + NUMBERS_A_TIME]
            users = await self.nids.users(list({event.sender for event in part}))
            await self.nids.events.ready(len(part))
            for event in part:
                nid = bare.get(event.event_id) or self.nids.next_event()
                numbered.append(Incoming(event, nid, users[event.sender]))
        return numbered

    async def users(self, user_ids: Sequence[UserID]) -> dict[UserID, int]:
        """Give users' numbers, however many they are."""
        found: dict[UserID, int] = {}
        for start in range(0, len(user_ids), NUMBERS_A_TIME):
            found |= await self.nids.users(user_ids[start : start + NUMBERS_A_TIME])
        return found

    async def known(self, room_nid: int, event_ids: Sequence[EventID]) -> Known:
        """Give those of many events that are here, with their auth clocks."""
        found: dict[EventID, StoredEvent] = {}
        clocks: dict[int, ClockRow] = {}
        for start in range(0, len(event_ids), NUMBERS_A_TIME):
            part = await self.state.stored.by_id(room_nid, event_ids[start : start + NUMBERS_A_TIME])
            found |= part
            rows = await self.state.stored.clocks(room_nid, [each.nid for each in part.values()])
            clocks |= {row.event_nid: row for row in rows}
        bare = {
            event_id: stored.nid
            for event_id, stored in found.items()
            if stored.status is Status.OUTLIER and stored.event.is_state and stored.nid not in clocks
        }
        return Known({each: found[each] for each in found if each not in bare}, clocks, bare)

    async def put(self, room_nid: int, write: Write, nodes: Mapping[NodeName, bytes]) -> Committed:
        """Commit a write, whose new nodes can be read by all who hear of it."""
        self.state.nodes.hold(room_nid, nodes)
        stored = False
        try:
            committed = await self.persister.commit(write)
            stored = True
        finally:
            self.state.nodes.release(room_nid, nodes, stored=stored)
        return committed

    async def commit(self, draft: Draft) -> Committed | None:
        """Commit a draft; None if there was nothing in it. Raises what `Persister.commit` does."""
        write = draft.write()
        return None if write is None else await self.put(draft.room.nid, write, draft.nodes)

    def has_at_hand(self, room_nid: int, event_ids: Iterable[EventID]) -> bool:
        """Tell whether memory has any of these events."""
        return any(self.state.stored.is_at_hand(room_nid, each) for each in event_ids)

    def forget(self, room_nid: int, outcomes: Sequence[Outcome]) -> None:
        """Forget what memory has of events whose commit failed."""
        nids = [one.stored.nid for one in outcomes if one.stored is not None]
        self.state.stored.forget(room_nid, nids)
