"""What the placing of received events stands on: one way to read, on the reactor or under a room's lock.

All is `async`, so the same code judges and resolves in both. On the reactor the reads go through the
caches and may wait; under the lock they go straight to the transaction and never wait, so `run_at_once`
drives a coroutine to its end on the database thread.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from attrs import frozen

from homeserver.clock import Clock
from homeserver.events.event_store import stored_from_row
from homeserver.events.nids import Nids, Room
from homeserver.events.room_state import RoomState
from homeserver.events.stored import StoredEvent
from protocol.identifiers import EventID, UserID
from storage import events, nids
from storage.database import Database, Transaction
from storage.trie_format import NodeName
from storage.trie_nodes import load_nodes, run_walk
from storage.trie_walks import NeedNodes, Walk

P = ParamSpec("P")
T = TypeVar("T")


class Ground(Protocol):
    """Reads one room as it is in the database."""

    async def by_id(self, event_ids: Collection[EventID]) -> dict[EventID, StoredEvent]:
        """Give those events that the room has."""
        ...

    async def by_nid(self, event_nids: Collection[int]) -> dict[int, StoredEvent]:
        """Give those events that the room has."""
        ...

    async def walk(self, walk: Walk[T]) -> T:
        """Run a walk over the room's tries."""
        ...

    async def users(self, user_ids: Collection[UserID]) -> dict[UserID, int]:
        """Give users' numbers, making those of users never seen."""
        ...

    async def read(
        self, work: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a work that only reads."""
        ...

    async def turn(self) -> None:
        """Let others have their turn in the middle of long work."""
        ...


@frozen(eq=False)
class ReactorGround:
    """Reads through the caches, on the reactor."""

    room: Room
    database: Database
    state: RoomState
    numbers: Nids
    clock: Clock

    async def by_id(self, event_ids: Collection[EventID]) -> dict[EventID, StoredEvent]:
        """Give those events that the room has."""
        return await self.state.stored.by_id(self.room.nid, event_ids)

    async def by_nid(self, event_nids: Collection[int]) -> dict[int, StoredEvent]:
        """Give those events that the room has."""
        return await self.state.stored.by_nid(self.room.nid, event_nids)

    async def walk(self, walk: Walk[T]) -> T:
        """Run a walk over the room's tries."""
        return await self.state.tries.run(self.room.nid, walk)

    async def users(self, user_ids: Collection[UserID]) -> dict[UserID, int]:
        """Give users' numbers, making those of users never seen."""
        return await self.numbers.users(user_ids)

    async def read(
        self, work: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a work in a transaction of its own."""
        return await self.database.read(work, *args, **kwargs)

    async def turn(self) -> None:
        """Come back with the reactor's next turn."""
        await self.clock.sleep(0)


@frozen(eq=False)
class LockedGround:
    """Reads in one transaction that holds the room's lock; on a database thread."""

    room: Room
    tx: Transaction

    async def by_id(self, event_ids: Collection[EventID]) -> dict[EventID, StoredEvent]:
        """Give those events that the room has."""
        found = self._stored(events.by_id(self.tx, self.room.nid, list(event_ids)))
        return {stored.event.event_id: stored for stored in found}

    async def by_nid(self, event_nids: Collection[int]) -> dict[int, StoredEvent]:
        """Give those events that the room has."""
        found = self._stored(events.by_nid(self.tx, self.room.nid, list(event_nids)))
        return {stored.nid: stored for stored in found}

    async def walk(self, walk: Walk[T]) -> T:
        """Run a walk over the room's tries."""
        return run_walk(walk, lambda names: load_nodes(self.tx, self.room.nid, names))

    async def users(self, user_ids: Collection[UserID]) -> dict[UserID, int]:
        """Give users' numbers, making those of users never seen."""
        found = nids.intern_users(self.tx, user_ids)
        return {UserID(user_id): nid for user_id, nid in found.items()}

    async def read(
        self, work: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a work in this transaction."""
        return work(self.tx, *args, **kwargs)

    async def turn(self) -> None:
        """Go on: the thread is ours."""

    def _stored(self, rows: Iterable[events.EventRow]) -> list[StoredEvent]:
        return [stored_from_row(row, self.room.room_id, self.room.version) for row in rows]


def over(walk: Walk[T], made: Mapping[NodeName, bytes]) -> Walk[T]:
    """Run a walk over nodes that are not in the database yet, asking only for the others."""
    try:
        need = next(walk)
        while True:
            found = {name: made[name] for name in need.names if name in made}
            missing = [name for name in need.names if name not in found]
            if missing:
                found.update((yield NeedNodes(missing)))
            need = walk.send(found)
    except StopIteration as stop:
        result: T = stop.value
        return result
