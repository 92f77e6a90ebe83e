"""Send events of local users: build on the head in memory, commit in a group, answer after the commit.

The next event of a room builds on the one before while that is still on its way to the disk; the `Line`
holds where the room will be when all of them are there. Nobody outside sees a line: heads that others read
move when the feed tells of the commit. When another worker was faster, the whole line has lost, and its
events are built anew under the room's lock (`rebuilding`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

from attrs import define, field
from twisted.python.failure import Failure

from homeserver.background import run_in_background
from homeserver.clock import Clock
from homeserver.events.building import (
    Author,
    Sending,
    StateChange,
    auth_events_of,
    build,
    clock_of,
    member_changes,
    state_keys,
    wanted_keys,
    write_of,
)
from homeserver.events.clocks import AuthClock
from homeserver.events.heads import Heads
from homeserver.events.members import MemberChange
from homeserver.events.nids import Room
from homeserver.events.persister import BuildOutcome, Persister
from homeserver.events.place import HeadState, Place
from homeserver.events.preparing import Preparation
from homeserver.events.rebuilding import Rebuild
from homeserver.events.room_state import RoomState
from homeserver.events.stored import StoredEvent
from homeserver.events.write import Committed, HeadMoved, Poisoned, TransactionRepeated
from homeserver.single_flight import SingleFlight
from homeserver.turns import Turns
from protocol.errors import InvalidParam, NotFound, Unavailable
from protocol.events import EventDraft
from protocol.identifiers import EventID
from storage.transactions import TransactionKey

CONTENDED_MS = 1_000
"""So long after a loss a room's events go straight to the lock: building them first would be in vain."""

MAX_REBUILDING = 2_000
"""Events of one room that may wait for its lock."""

MAX_ANSWERS = 4_000
"""Transaction IDs whose answers are kept in memory, some 400 bytes each; the database keeps all of the
last day."""


@define(eq=False)
class Line:
    """A room with events on their way to the disk: where it will be when they are there."""

    place: Place
    state: HeadState
    pending: int = 0
    broken: bool = False
    """Something in the line has failed: nothing more may be built on it."""
    clocks: dict[int, AuthClock] = field(factory=dict)
    """Auth clocks of state events that may still be on their way."""


class LocalEvents:
    """Events of this server's users, on their way into rooms that this server is in."""

    def __init__(
        self,
        preparation: Preparation,
        heads: Heads,
        state: RoomState,
        persister: Persister,
        author: Author,
        clock: Clock,
    ) -> None:
        """Build on `heads` and `state` as `author`; commit through `persister`."""
        self._preparation = preparation
        self._heads = heads
        self._state = state
        self._persister = persister
        self._author = author
        self._clock = clock
        self._lines: dict[int, Line] = {}
        self._rebuilds: dict[int, Rebuild] = {}
        self._contended: dict[int, int] = {}
        self._turns: Turns[int] = Turns()
        self._flights: SingleFlight[TransactionKey, StoredEvent] = SingleFlight()
        self._answers: OrderedDict[TransactionKey, tuple[int, EventID]] = OrderedDict()

    async def send(self, draft: EventDraft, *, now: int, txn: TransactionKey | None = None) -> StoredEvent:
        """Send one event and give it as it was committed; with a `txn` used before, give the first one.

        Raises `NotFound` for a room this server is not in, `Forbidden` when the rules refuse the event,
        `EventTooLarge` or `BadJson` when it cannot be one, `Unavailable` when too much waits, `DatabaseGone`
        when nobody can tell whether it was committed (a repeat with the same `txn` finds out).
        """
        room = await self._room_of(draft)
        if txn is None:
            return await self._send(room, draft, None, now)
        answered = self._answers.get(txn)
        if answered is not None:
            return await self._answer(*answered)
        return await self._flights.run(txn, lambda: self._send(room, draft, txn, now))

    async def send_many(self, drafts: Iterable[EventDraft], *, now: int) -> list[StoredEvent]:
        """Send events in order, without waiting for one commit before the next is built.

        Raises the first failure after all have ended.
        """
        sendings: list[Sending] = []
        try:
            for draft in drafts:
                sendings.append(await self._queue(await self._room_of(draft), draft, None, now))
        finally:
            results: list[StoredEvent | Exception] = []
            for sending in sendings:
                try:
                    results.append(await sending.done)
                except Exception as error:
                    results.append(error)
        for result in results:
            if isinstance(result, Exception):
                raise result
        return [result for result in results if isinstance(result, StoredEvent)]

    async def _room_of(self, draft: EventDraft) -> Room:
        room = None
        if draft.room_id is not None:
            room = await self._preparation.nids.known_room(draft.room_id)
        if room is None:
            raise NotFound("This server is not in the room")
        return room

    async def _send(self, room: Room, draft: EventDraft, txn: TransactionKey | None, now: int) -> StoredEvent:
        sending = await self._queue(room, draft, txn, now)
        try:
            stored = await sending.done
        except TransactionRepeated as used:
            if used.event_id is None:
                raise InvalidParam("The transaction ID was used for another request") from used
            stored = await self._answer(room.nid, used.event_id)
        if txn is not None:
            self._answers[txn] = (room.nid, stored.event.event_id)
            if len(self._answers) > MAX_ANSWERS:
                self._answers.popitem(last=False)
        return stored

    async def _answer(self, room_nid: int, event_id: EventID) -> StoredEvent:
        """Give the event that an earlier request with the same transaction ID has sent."""
        found = await self._state.stored.by_id(room_nid, (event_id,))
        if event_id not in found:
            raise NotFound("The event of this transaction ID is gone")
        return found[event_id]

    async def _queue(self, room: Room, draft: EventDraft, txn: TransactionKey | None, now: int) -> Sending:
        """Build an event and queue its write, after all that came before it to the room."""
        await self._turns.take(room.nid)
        try:
            sending = await self._preparation.prepare(room.nid, draft, txn)
            await self._submit(room, sending, now)
        finally:
            self._turns.give(room.nid)
        return sending

    async def _submit(self, room: Room, sending: Sending, now: int) -> None:
        """Build an event on the room's line and queue its write; waits only for what is not in memory."""
        keys = state_keys(room.version, sending.draft)
        wanted = wanted_keys(keys, sending)
        while True:
            if room.nid in self._rebuilds or self._is_contended(room.nid, now):
                self._rebuild(room, sending)
                return
            line = self._line(room.nid)
            if line is None:
                await self._heads.get(room.nid)
                continue
            state = line.state.known(wanted)
            if state is None:
                await line.state.get(wanted)
                continue
            auth = auth_events_of(room.version, keys, state)
            own = sending.state_key
            if own is None:
                stored = build(line.place, sending, state, auth, now, self._author)
                self._commit(room, line, sending, stored)
                return
            change = await self._change(room.nid, line, sending, auth, state.get(own))
            if line.broken:
                continue
            stored = build(line.place, sending, state, auth, now, self._author)
            members = member_changes(sending, stored, state.get(own), self._author.server_name)
            self._commit(room, line, sending, stored, change, members)
            return

    def _is_contended(self, room_nid: int, now: int) -> bool:
        """Tell whether another worker has been faster in this room of late."""
        until = self._contended.get(room_nid)
        if until is None:
            return False
        if until <= now:
            del self._contended[room_nid]
            return False
        return True

    def _line(self, room_nid: int) -> Line | None:
        """Give the line of a room, a new one where nothing is on its way; None if the head must be loaded."""
        line = self._lines.get(room_nid)
        if line is None:
            head = self._heads.peek(room_nid)
            line = None if head is None else Line(head.place, head.cached)
        return line

    async def _change(
        self,
        room_nid: int,
        line: Line,
        sending: Sending,
        auth: Sequence[StoredEvent],
        before: StoredEvent | None,
    ) -> StateChange:
        """Work out what a state event changes; meanwhile the line stays."""
        own = sending.state_key
        assert own is not None
        self._join(room_nid, line)
        try:
            applied = await self._state.apply(room_nid, line.place.root, {own: sending.nid})
            missing = [stored.nid for stored in auth if stored.nid not in line.clocks]
            rows = await self._state.stored.clocks(room_nid, missing, None if before is None else before.nid)
        finally:
            self._leave(room_nid, line)
        clock = clock_of(sending.nid, auth, before, line.clocks, rows)
        return StateChange(applied.root, applied.nodes, clock)

    def _commit(
        self,
        room: Room,
        line: Line,
        sending: Sending,
        stored: StoredEvent,
        change: StateChange | None = None,
        members: Sequence[MemberChange] = (),
    ) -> None:
        """Queue the write of a built event and let the line go on from it; raises `Unavailable`."""
        write, after = write_of(line.place, sending, stored, change, members)
        done = self._persister.commit(write)
        line.place = after
        if change is not None:
            self._state.nodes.hold(room.nid, change.nodes)
            line.state = line.state.after(stored, change.root)
            line.clocks[stored.nid] = change.clock
        self._join(room.nid, line)

        def committed(_: Committed) -> None:
            self._end(room.nid, line, change, stored=True)
            sending.done.callback(stored)

        def failed(failure: Failure) -> None:
            line.broken = True
            self._end(room.nid, line, change, stored=False)
            if failure.check(HeadMoved):
                self._contended[room.nid] = self._clock.now_ms() + CONTENDED_MS
                self._rebuild(room, sending)
            else:
                sending.done.errback(failure)

        done.addCallbacks(committed, failed)

    def _join(self, room_nid: int, line: Line) -> None:
        line.pending += 1
        self._lines[room_nid] = line

    def _leave(self, room_nid: int, line: Line) -> None:
        """Forget a line when nothing of it is on its way any more, or when it has failed."""
        line.pending -= 1
        if (line.broken or line.pending == 0) and self._lines.get(room_nid) is line:
            del self._lines[room_nid]

    def _end(self, room_nid: int, line: Line, change: StateChange | None, *, stored: bool) -> None:
        if change is not None:
            self._state.nodes.release(room_nid, change.nodes, stored=stored)
        self._leave(room_nid, line)

    def _rebuild(self, room: Room, sending: Sending) -> None:
        """Let an event wait for the room's lock; one that finds too many waiting fails with `Unavailable`."""
        rebuild = self._rebuilds.get(room.nid)
        if rebuild is None:
            rebuild = Rebuild(room, self._author, self._clock, self._heads)
            self._rebuilds[room.nid] = rebuild
            rebuild.waiting.append(sending)
            run_in_background(self._rebuild_all(rebuild), "building events under the room's lock")
        elif len(rebuild.waiting) < MAX_REBUILDING:
            rebuild.waiting.append(sending)
        else:
            sending.done.errback(Unavailable("Too many events wait for the room"))

    async def _rebuild_all(self, rebuild: Rebuild) -> None:
        """Commit what waits for a room's lock, until nothing does."""
        try:
            while rebuild.waiting:
                try:
                    outcomes: Sequence[BuildOutcome] = await self._persister.commit_locked(rebuild)
                except Poisoned as poisoned:
                    if len(rebuild.taken) > 1:
                        rebuild.try_each_alone()
                        continue
                    outcomes = [poisoned for _ in rebuild.taken]
                except Exception as error:
                    outcomes = [error for _ in rebuild.taken]
                for sending, outcome in zip(rebuild.taken, outcomes, strict=True):
                    _tell(sending, outcome)
        finally:
            del self._rebuilds[rebuild.room_nid]


def _tell(sending: Sending, outcome: BuildOutcome) -> None:
    """Answer for an event that was built under the lock."""
    if isinstance(outcome, Committed):
        stored = outcome.entries[0].payload
        assert isinstance(stored, StoredEvent)
        sending.done.callback(stored)
    else:
        sending.done.errback(outcome)
