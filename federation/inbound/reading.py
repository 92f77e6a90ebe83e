"""What servers in a room ask of its graph: events, states, auth chains, history, what lies between.

Every read goes by the room first, so an event of another room is as unknown as one that is nowhere. Walks
are bounded in the events they visit, whatever the asker names.

Source: server-server-api.md, "Retrieving events", "Backfilling and retrieving missing events";
security F10, F14.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence, Set

from attrs import frozen

from federation.inbound.sight import Sight
from federation.ports import AuthChains
from homeserver.events.room_state import RoomState
from homeserver.events.stored import Status, StoredEvent
from protocol.errors import InvalidParam, NotFound
from protocol.events import Event
from protocol.identifiers import EventID, RoomID, ServerName
from storage import events
from storage.database import Database

MAX_BACKFILL = 100
MAX_MISSING = 20
MAX_NAMED = 100
"""Event IDs that may be named in one request."""

MAX_VISITED = 500
"""Events looked at in one walk."""

_SERVED = (Status.ACCEPTED, Status.SOFT_FAILED)


@frozen
class StateBefore:
    """The state before an event, and the auth chains of what is in it, as event nids."""

    room_nid: int
    state: Sequence[int]
    auth_chain: Sequence[int]


@frozen(eq=False)
class GraphReads:
    """Answers other servers."""

    database: Database
    state: RoomState
    chains: AuthChains
    sight: Sight

    async def event(self, origin: ServerName, event_id: EventID) -> Event:
        """Give one event as the asker may see it; raises NotFound, whatever the reason."""
        for room_nid in await self.database.read(events.rooms_of, event_id):
            stored = (await self.state.stored.by_id(room_nid, (event_id,))).get(event_id)
            if stored is None or stored.status is Status.REJECTED:
                continue
            head = await self.sight.access.find(stored.event.room_id)
            if head is None or origin not in head.servers or not await self.sight.access.allows(origin, head):
                continue
            (shown,) = await self.sight.shown(origin, (stored,))
            return shown
        raise _unknown()

    async def state_before(self, origin: ServerName, room_id: RoomID, event_id: EventID) -> StateBefore:
        """Give the state before an event; raises NotFound, Forbidden."""
        stored = await self._placed(origin, room_id, event_id)
        assert stored.root_before is not None
        state = list((await self.state.all(stored.room_nid, stored.root_before)).values())
        return StateBefore(stored.room_nid, state, await self.chains.of_state(stored.room_nid, state))

    async def auth_chain(
        self, origin: ServerName, room_id: RoomID, event_id: EventID
    ) -> tuple[int, Sequence[int]]:
        """Give the room's nid, and the auth chain of an event as nids; raises NotFound, Forbidden."""
        head = await self.sight.room(origin, room_id)
        if not await self.state.stored.by_id(head.room_nid, (event_id,)):
            raise _unknown()
        return head.room_nid, await self.chains.of_event(head.room_nid, event_id)

    async def backfill(
        self, origin: ServerName, room_id: RoomID, named: Sequence[EventID], limit: int
    ) -> Sequence[Event]:
        """Give events and what came before them, the latest first."""
        head = await self.sight.room(origin, room_id)
        _check_named(named)
        found = await self._walk(head.room_nid, named, frozenset(), min(limit, MAX_BACKFILL))
        found.sort(key=lambda stored: (-stored.depth, -stored.nid))
        return await self.sight.shown(origin, found)

    async def missing(
        self,
        origin: ServerName,
        room_id: RoomID,
        between: tuple[Sequence[EventID], Sequence[EventID]],
        limit: int,
        min_depth: int = 0,
    ) -> Sequence[Event]:
        """Give what came after the first and before the second of `between`, the oldest first.

        What claims a depth below `min_depth`, and what comes before that, is left out.
        """
        head = await self.sight.room(origin, room_id)
        earliest, latest = between
        _check_named((*earliest, *latest))
        known = await self.state.stored.by_id(head.room_nid, latest)
        parents = [parent for stored in known.values() for parent in stored.event.prev_events]
        stop = frozenset((*earliest, *latest))
        found = await self._walk(head.room_nid, parents, stop, min(limit, MAX_MISSING), min_depth)
        found.sort(key=lambda stored: (stored.depth, stored.nid))
        return await self.sight.shown(origin, found)

    async def _placed(self, origin: ServerName, room_id: RoomID, event_id: EventID) -> StoredEvent:
        head = await self.sight.room(origin, room_id)
        stored = (await self.state.stored.by_id(head.room_nid, (event_id,))).get(event_id)
        if stored is None or stored.root_before is None:
            raise _unknown()
        return stored

    async def _walk(
        self, room_nid: int, begin: Iterable[EventID], stop: Set[EventID], limit: int, min_depth: int = 0
    ) -> list[StoredEvent]:
        """Go from events to their parents, level by level, and give those that may be served."""
        found: list[StoredEvent] = []
        seen = set(stop)
        waiting: Collection[EventID] = [each for each in dict.fromkeys(begin) if each not in seen]
        while waiting and len(found) < limit and len(seen) < MAX_VISITED:
            seen.update(waiting)
            level = (await self.state.stored.by_id(room_nid, waiting)).values()
            placed = [
                stored
                for stored in level
                if stored.root_before is not None and stored.event.depth >= min_depth
            ]
            placed.sort(key=lambda stored: (-stored.depth, -stored.nid))
            found += [stored for stored in placed if stored.status in _SERVED]
            parents = dict.fromkeys(parent for stored in placed for parent in stored.event.prev_events)
            waiting = [each for each in parents if each not in seen][:MAX_NAMED]
        return found[:limit]


def _check_named(named: Sequence[EventID]) -> None:
    if len(named) > MAX_NAMED:
        raise InvalidParam(f"At most {MAX_NAMED} events may be named")


def _unknown() -> NotFound:
    """Say the same of an event that is nowhere and of one that is none of the asker's business."""
    return NotFound("There is no such event")
