"""Events that others have seen, on their way into rooms this server is in.

They cannot be built anew, so a lost race gives them a new place, not a new shape: first on the head in
memory, then under the room's lock in the transaction that commits them, where every try makes progress.
One at a time in each room. Fetching what is missing is not done here (`gaps`).

Source: server-server-api.md, "Checks performed on receipt of a PDU".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence, Set
from functools import partial

from attrs import define, evolve, frozen
from twisted.logger import Logger

from homeserver.events.building import claim_of
from homeserver.events.commit_batch import repeated
from homeserver.events.draft import Draft
from homeserver.events.ground import LockedGround
from homeserver.events.nids import Room
from homeserver.events.place import Place
from homeserver.events.placing import Placing
from homeserver.events.policy import PolicyServers
from homeserver.events.received import Course, Delivery, Incoming, Outcome
from homeserver.events.received_store import Store
from homeserver.events.stored import Status, StoredEvent
from homeserver.events.write import DatabaseGone, HeadMoved, Poisoned, TakenBack, TransactionRepeated, Write
from homeserver.room_queues import RoomQueues
from protocol.errors import Forbidden, NotFound, Unavailable
from protocol.events import Event
from protocol.identifiers import EventID
from storage import events
from storage.database import Transaction
from storage.heads import HeadRow
from storage.inside import run_at_once
from storage.transactions import Claim, TransactionKey

log = Logger()

TRIES = 2
"""Times a place is sought on the head in memory before the room is locked."""

MAX_WAITING = 200
"""Groups of events that may wait in one room."""

GROUP = 50
"""Events placed in one transaction."""

ORDERED_A_TURN = 1_000
"""Events brought into order before others have their turn."""


@frozen(eq=False)
class _Wanted:
    """Events to be placed together."""

    room: Room
    events: Sequence[Event]
    course: Course
    refused: Set[EventID] = frozenset()
    """Those that the room's policy server does not recommend."""
    txn: TransactionKey | None = None
    """The transaction ID of a client that stands for the one event."""


@frozen(eq=False)
class _Group:
    """The same with their numbers."""

    wanted: _Wanted
    incoming: Sequence[Incoming]

    @property
    def room(self) -> Room:
        """Give the room they are for."""
        return self.wanted.room

    async def place_on(self, placing: Placing, draft: Draft) -> Sequence[Outcome]:
        """Judge and place them in a draft of the room."""
        outcomes = await placing.place_all(draft, self.incoming, self.wanted.course)
        txn, stored = self.wanted.txn, outcomes[0].stored
        if txn is not None and stored is not None and stored.status is Status.ACCEPTED:
            draft.claim = claim_of(txn, stored)
        return outcomes


@define(eq=False)
class _LockedPlacing:
    """Places a group under the room's lock; see `write.LockedWrite` and `write.Build`."""

    placing: Placing
    group: _Group
    outcomes: Sequence[Outcome] = ()

    @property
    def room_nid(self) -> int:
        """Give the room's nid."""
        return self.group.room.nid

    @property
    def claims(self) -> Sequence[Claim]:
        """Give the transaction ID, if there is one: events of others have none."""
        wanted = self.group.wanted
        return () if wanted.txn is None else (Claim(wanted.txn, wanted.events[0].origin_server_ts),)

    def begin(self) -> _LockedPlacing:
        """Give itself; there is nothing to collect."""
        return self

    def build(
        self, tx: Transaction, head: HeadRow | None, taken: Set[TransactionKey]
    ) -> Sequence[Write | Exception]:
        """Judge and place on the locked head."""
        if head is None:
            return [NotFound("This server is not in the room")]
        txn = self.group.wanted.txn
        if txn is not None and txn not in taken:
            return [repeated(tx, txn)]
        room = self.group.room
        ids = events.ids(tx, room.nid, head.mark.extremities)
        prev_events = tuple(EventID(ids[nid]) for nid in head.mark.extremities)
        place = Place(room.room_id, room.nid, room.version, head.mark, prev_events, head.root)
        draft = Draft.on(LockedGround(room, tx), room, place)
        self.outcomes = run_at_once(self.group.place_on(self.placing, draft))
        write = draft.write()
        return [] if write is None else [write]


class ReceivedEvents:
    """Places events of other servers, and own ones that others have seen."""

    def __init__(self, store: Store, placing: Placing, policies: PolicyServers) -> None:
        """Place by `placing`, into `store`, what `policies` recommend."""
        self._store = store
        self._placing = placing
        self._policies = policies
        self.queues = RoomQueues(MAX_WAITING)

    async def place(
        self, room_nid: int, batch: Sequence[Event], course: Course = Course.RECEIVED
    ) -> list[Outcome]:
        """Judge and place events, parents before children; what each lacks is in its outcome.

        Raises `NotFound` for a room this server is not in, `Unavailable` when too much waits in it,
        `DatabaseGone` when nobody can tell whether they were committed: to receive them again is safe.
        """
        room = await self._store.nids.room_of(room_nid)
        for event in batch:
            if event.room_id != room.room_id:
                raise Forbidden("The event is of another room")
        refused: Set[EventID] = frozenset()
        if course is not Course.PAST:
            batch, refused = await self._policies.weigh(room_nid, batch)
        ordered = in_order(batch)
        outcomes: dict[EventID, Outcome] = {}
        for start in range(0, len(ordered), GROUP):
            wanted = _Wanted(room, ordered[start : start + GROUP], course, refused)
            placed = await self.queues.run(room_nid, partial(self._place, wanted))
            outcomes.update(zip([event.event_id for event in wanted.events], placed, strict=True))
        return [outcomes[event.event_id] for event in batch]

    async def place_news(self, room_nid: int, batch: Sequence[Event], delivery: Delivery) -> bool:
        """Place events that nobody here has heard of, with the answer to their delivery, in one commit.

        That they are news is found out by the commit itself, which spares all reading beforehand. False if
        nothing was done, since they are no news, or the room is too busy, or the delivery asks for more:
        `place` them then. Raises what `place` does.
        """
        ids = [event.event_id for event in batch]
        if len(batch) > GROUP or self._store.has_at_hand(room_nid, ids):
            return False
        room = await self._store.nids.room_of(room_nid)
        weighed, refused = await self._policies.weigh(room_nid, batch)
        wanted = _Wanted(room, in_order(weighed), Course.RECEIVED, refused)
        try:
            return await self.queues.run(room_nid, partial(self._place_news, wanted, delivery))
        except (DatabaseGone, NotFound, Unavailable):
            raise
        except Exception:  # `place` will find out which of them it is
            return False

    async def place_own(
        self, room_nid: int, event: Event, *, now: int, txn: TransactionKey | None = None
    ) -> StoredEvent:
        """Commit an event of this server that another has seen, as it is; `txn` stands for it then.

        Raises `Forbidden`; `TransactionRepeated` if the `txn` was used before.
        """
        room = await self._store.nids.room_of(room_nid)
        (signed,), refused = await self._policies.weigh(room_nid, (event,))
        wanted = _Wanted(room, (signed,), Course.OWN, refused, txn)
        (outcome,) = await self.queues.run(room_nid, partial(self._place, wanted))
        if outcome.status is not Status.ACCEPTED or outcome.stored is None:
            raise Forbidden(outcome.reason or "The event has lost its place in the room")
        return outcome.stored

    async def _place(self, wanted: _Wanted) -> Sequence[Outcome]:
        """Place a group; if one of it spoils the rest, place each alone."""
        try:
            return await self._place_group(wanted)
        except (DatabaseGone, NotFound, Unavailable, TransactionRepeated):
            raise
        except Exception as error:
            if len(wanted.events) == 1:
                log.failure("An event cannot be placed: {event}", event=wanted.events[0].event_id)
                return [Outcome(None, reason=f"The event cannot be placed: {type(error).__name__}")]
        outcomes: list[Outcome] = []
        for event in wanted.events:
            outcomes += await self._place(evolve(wanted, events=(event,)))
        return outcomes

    async def _place_news(self, wanted: _Wanted, delivery: Delivery) -> bool:
        room, ids = wanted.room, [event.event_id for event in wanted.events]
        group = _Group(wanted, await self._numbered(wanted))
        for _ in range(TRIES):
            head = await self._store.heads.get(room.nid)
            draft = Draft.on(self._store.ground(room), room, head.place, head.cached)
            draft.presume_news(ids)
            outcomes = await group.place_on(self._placing, draft)
            write, answer = draft.write(), delivery.answer(outcomes)
            if write is None or answer is None:
                return False
            unless = partial(delivery.is_old, room_nid=room.nid, event_ids=ids)
            try:
                whole = evolve(write, rows=(*write.rows, answer), unless=unless)
                await self._store.put(room.nid, whole, draft.nodes)
            except HeadMoved:
                self._store.forget(room.nid, outcomes)
            except (Poisoned, TakenBack):
                self._store.forget(room.nid, outcomes)
                return False
            else:
                return True
        return False

    async def _place_group(self, wanted: _Wanted) -> Sequence[Outcome]:
        room = wanted.room
        group = _Group(wanted, await self._numbered(wanted))
        for _ in range(TRIES):
            head = await self._store.heads.get(room.nid)
            draft = Draft.on(self._store.ground(room), room, head.place, head.cached)
            outcomes = await group.place_on(self._placing, draft)
            try:
                await self._store.commit(draft)
            except (HeadMoved, Poisoned):  # Poisoned: another worker has stored one of them meanwhile
                self._store.forget(room.nid, outcomes)
                continue
            return outcomes
        return await self._place_locked(group)

    async def _numbered(self, wanted: _Wanted) -> Sequence[Incoming]:
        incoming = await self._store.incoming(wanted.events)
        if not wanted.refused:
            return incoming
        return [evolve(one, recommended=one.event.event_id not in wanted.refused) for one in incoming]

    async def _place_locked(self, group: _Group) -> Sequence[Outcome]:
        locked = _LockedPlacing(self._placing, group)
        for result in await self._store.persister.commit_locked(locked):
            if isinstance(result, HeadMoved):
                raise Unavailable("The room is too busy")
            if isinstance(result, Exception):
                raise result
        return locked.outcomes


def in_order(batch: Sequence[Event]) -> list[Event]:
    """Give events each once, those named by others before them; a circle is broken where it is met."""
    return run_at_once(in_order_of(batch, lambda event: (*event.prev_events, *event.auth_events)))


async def in_order_of(
    batch: Sequence[Event],
    named: Callable[[Event], Sequence[EventID]],
    turn: Callable[[], Awaitable[None]] | None = None,
) -> list[Event]:
    """Give events each once, after those that they have `named`; others have their `turn` now and then."""
    by_id = {event.event_id: event for event in batch}
    ordered: dict[EventID, Event] = {}
    entered: set[EventID] = set()
    for place, first in enumerate(batch):
        if turn is not None and place % ORDERED_A_TURN == 0:
            await turn()
        stack = [first]
        while stack:
            event = stack[-1]
            before = [by_id[each] for each in named(event) if each in by_id and each not in entered]
            entered.add(event.event_id)
            if before:
                stack += before
                continue
            stack.pop()
            ordered.setdefault(event.event_id, event)
    return list(ordered.values())
