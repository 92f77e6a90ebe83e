"""Group commit: one writer per process that commits all that waits in one transaction.

Batches grow under load by themselves: while one is on its way to the disk, the next one gathers. Nothing
is acknowledged before COMMIT has returned, and the feed has it before the caller hears.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from itertools import islice
from typing import Any, Protocol

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from homeserver.background import run_in_background
from homeserver.clock import Clock
from homeserver.events.commit_batch import (
    Attempt,
    Batch,
    MoreRows,
    Outcome,
    Result,
    commit_batch,
    no_more_rows,
)
from homeserver.events.write import Build, Committed, HeadMoved, LockedWrite, Poisoned, Write
from protocol.errors import Unavailable
from storage import feed
from storage.database import Database, DatabaseGone, UnknownOutcome
from storage.feed import Entry
from storage.feed_writers import Writers

log = Logger()

MAX_BATCH_WRITES = 256
MAX_BATCH_BYTES = 4 * 1024 * 1024
MAX_QUEUED_WRITES = 4_000
MAX_QUEUED_BYTES = 64 * 1024 * 1024
SETTLE_WAITS = (0.05, 0.2, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds between tries to learn the outcome of a COMMIT; after them the callers are told of failure."""
COMMIT_TRIES = 3
"""Times a batch is tried of which each COMMIT is lost and has not happened."""

BuildOutcome = Committed | Exception


class Tail(Protocol):
    """The feed in memory, which must have an entry before anybody is told of it."""

    async def deliver(self, entries: Sequence[Entry], began: int) -> None:
        """Take in entries this process has committed, in a transaction that began then (ms)."""


@define(eq=False)
class _Waiting:
    """A piece in the queue, and whom to tell (`Committed` for a write, a list for a locked write)."""

    piece: Write | LockedWrite
    done: Deferred[Any] = field(factory=Deferred)
    build: Build | None = None

    @property
    def room_nid(self) -> int | None:
        """Give the room whose head it moves."""
        if not isinstance(self.piece, Write):
            return self.piece.room_nid
        return None if self.piece.head is None else self.piece.head.room_nid

    @property
    def size(self) -> int:
        """Give its bytes, roughly; what is yet to be built counts nothing."""
        return self.piece.size if isinstance(self.piece, Write) else 0


_Answer = tuple[_Waiting, object]
"""What a piece is to be told; an exception if it has failed."""


def at_once(function: Callable[[], object]) -> None:
    """Start a batch with the first write that comes."""
    function()


class Persister:
    """Commit writes in groups; the one way to anything that bears a position in the feed."""

    def __init__(
        self,
        database: Database,
        tail: Tail,
        clock: Clock,
        *,
        writers: Writers,
        gather: Callable[[Callable[[], None]], None] = at_once,
        more_rows: MoreRows = no_more_rows,
    ) -> None:
        """Write to `database` and tell `tail`.

        `writers` knows the name of this process, and whether others are to be told. `gather` puts the start
        of a batch off until the present turn of the reactor is over (`Clock.soon`), so that all requests of
        one turn share it. `more_rows` gives rows that go in with entries (unread verdicts).
        """
        self._database = database
        self._tail = tail
        self._clock = clock
        self._writers = writers
        self._gather = gather
        self._more_rows = more_rows
        self._queue: deque[_Waiting] = deque()
        self._bytes = 0
        self._running = False

    def write_beside(self, more_rows: MoreRows) -> None:
        """Write these rows with entries from now on; for who needs the persister to come to be."""
        self._more_rows = more_rows

    @property
    def queued(self) -> int:
        """Tell how many pieces wait."""
        return len(self._queue)

    def commit(self, write: Write) -> Deferred[Committed]:
        """Commit `write` with the next group.

        The answer fails with `HeadMoved`, `TransactionRepeated`, `Poisoned` or `DatabaseGone`; it may come
        before this returns. Raises `Unavailable` when too much waits.
        """
        if len(self._queue) >= MAX_QUEUED_WRITES or self._bytes >= MAX_QUEUED_BYTES:
            raise Unavailable("Too many writes are waiting for the database")
        return self._put(write)

    def commit_locked(self, locked: LockedWrite) -> Deferred[list[BuildOutcome]]:
        """Build and commit writes to one room under its lock; answers for each piece what became of it.

        The whole fails with `Poisoned` or `DatabaseGone`. Not bounded here: the pieces were let in before.
        """
        return self._put(locked)

    def _put(self, piece: Write | LockedWrite) -> Deferred[Any]:
        waiting = _Waiting(piece)
        self._queue.append(waiting)
        self._bytes += waiting.size
        if not self._running:
            self._running = True
            self._gather(self._start)
        return waiting.done

    def _start(self) -> None:
        run_in_background(self._drain(), "the group commit")

    async def _drain(self) -> None:
        """Commit batch after batch until nothing waits."""
        try:
            while self._queue:
                self._tell(await self._commit_all(self._take()))
        finally:
            self._running = False

    def _take(self) -> list[_Waiting]:
        """Take the next batch from the queue: bounded, and no room both written and locked."""
        taken: list[_Waiting] = []
        size = 0
        written: set[int] = set()
        locked: set[int] = set()
        while self._queue and len(taken) < MAX_BATCH_WRITES and size < MAX_BATCH_BYTES:
            waiting = self._queue[0]
            room_nid = waiting.room_nid
            is_write = isinstance(waiting.piece, Write)
            if room_nid is not None:
                if room_nid in locked or (not is_write and room_nid in written):
                    break
                (written if is_write else locked).add(room_nid)
            size += waiting.size
            taken.append(self._queue.popleft())
        self._bytes -= size
        return taken

    async def _commit_all(self, taken: list[_Waiting]) -> list[_Answer]:
        """Commit one batch; if the database refuses it, commit it room by room."""
        began = self._clock.now_ms()
        try:
            result = await self._commit(taken)
        except DatabaseGone as gone:
            return [(waiting, gone) for waiting in taken]
        except Exception as error:
            return await self._commit_apart(taken, error)
        try:
            return await self._answers(taken, result, began)
        except Exception as error:
            log.failure("A group commit failed in an unforeseen way")
            return [(waiting, error) for waiting in taken]

    async def _commit_apart(self, taken: list[_Waiting], error: Exception) -> list[_Answer]:
        """Narrow a refused batch down: first to its rooms, then to single pieces."""
        if len(taken) == 1:
            log.error("The database refuses a write: {error!r}", error=error)
            return [(taken[0], Poisoned("The database refuses this"))]
        parts = _by_room(taken)
        if len(parts) == 1:
            return await self._commit_in_turn(taken)
        return [answer for part in parts for answer in await self._commit_all(part)]

    async def _commit_in_turn(self, taken: list[_Waiting]) -> list[_Answer]:
        """Commit the pieces of one room one by one; what follows one that fails is built on nothing."""
        answers: list[_Answer] = []
        for place, waiting in enumerate(taken):
            answers += await self._commit_all([waiting])
            if isinstance(answers[-1][1], Exception):
                return answers + [(follower, HeadMoved()) for follower in taken[place + 1 :]]
        return answers

    async def _commit(self, taken: list[_Waiting]) -> Result:
        """Run the transaction; settle an unknown outcome before anything else happens."""
        for waiting in taken:
            if not isinstance(waiting.piece, Write) and waiting.build is None:
                waiting.build = waiting.piece.begin()
        batch = Batch(
            tuple(waiting.piece for waiting in taken if isinstance(waiting.piece, Write)),
            tuple(
                (waiting.piece.room_nid, waiting.build)
                for waiting in taken
                if not isinstance(waiting.piece, Write) and waiting.build is not None
            ),
            self._more_rows,
        )
        for _ in range(COMMIT_TRIES):
            attempt = Attempt()
            try:
                return await self._database.write(commit_batch, batch, self._writers.told, attempt)
            except UnknownOutcome as unknown:
                if await self._has_happened(attempt, unknown):
                    assert attempt.result is not None
                    return attempt.result
        raise DatabaseGone("No COMMIT comes through")

    async def _has_happened(self, attempt: Attempt, unknown: UnknownOutcome) -> bool:
        """Ask the database what became of the batch; raises `unknown` again if nobody can tell."""
        result = attempt.result
        if result is None or result.place is None:
            raise unknown
        for seconds in SETTLE_WAITS:
            try:
                return await self._database.write(feed.is_committed, result.place, result.entries)
            except DatabaseGone:
                await self._clock.sleep(seconds)
        raise unknown

    async def _answers(self, taken: list[_Waiting], result: Result, began: int) -> list[_Answer]:
        """Give the feed its entries; then everybody may have an answer, in this order."""
        first = 0 if result.place is None else result.place.first
        entries = [entry.at(pos) for pos, entry in enumerate(result.entries, first)]
        if entries and (failure := await self._deliver(entries, began)) is not None:
            return [(waiting, failure) for waiting in taken]
        places = iter(entries)
        writes, builds = iter(result.writes), iter(result.builds)
        answers: list[_Answer] = []
        for waiting in taken:
            if isinstance(waiting.piece, Write):
                answers.append((waiting, _committed(next(writes), places)))
        for waiting in taken:
            if not isinstance(waiting.piece, Write):
                answers.append((waiting, [_committed(outcome, places) for outcome in next(builds)]))
        return answers

    async def _deliver(self, entries: Sequence[Entry], began: int) -> DatabaseGone | None:
        """Give the feed committed entries; it may have to read what others have committed before."""
        for seconds in SETTLE_WAITS:
            try:
                await self._tail.deliver(entries, began)
            except DatabaseGone as gone:
                failure = gone
                await self._clock.sleep(seconds)
            else:
                return None
        return failure

    def _tell(self, answers: Sequence[_Answer]) -> None:
        """Tell everybody, failures first, in order, and with them what waits built on what has failed.

        Whoever hears of a success may send at once, and must not build on what has failed beside it.
        """
        failed = [(waiting, answer) for waiting, answer in answers if isinstance(answer, Exception)]
        broken = {waiting.room_nid for waiting, _ in failed if waiting.room_nid is not None}
        failed += [(follower, HeadMoved()) for follower in self._take_followers(broken)] if broken else []
        for waiting, error in failed:
            waiting.done.errback(error)
        for waiting, answer in answers:
            if not isinstance(answer, Exception):
                waiting.done.callback(answer)

    def _take_followers(self, rooms: Set[int]) -> list[_Waiting]:
        """Take writes out of the queue whose room has not become what they were built on."""
        lost = [each for each in self._queue if isinstance(each.piece, Write) and each.room_nid in rooms]
        if lost:
            gone = set(map(id, lost))
            self._queue = deque(each for each in self._queue if id(each) not in gone)
            self._bytes -= sum(each.size for each in lost)
        return lost


def _by_room(taken: Iterable[_Waiting]) -> list[list[_Waiting]]:
    """Group pieces by room, in order of first appearance; those of no room stand alone."""
    parts: dict[object, list[_Waiting]] = {}
    for waiting in taken:
        parts.setdefault(waiting if waiting.room_nid is None else waiting.room_nid, []).append(waiting)
    return list(parts.values())


def _committed(outcome: Outcome, places: Iterator[Entry]) -> BuildOutcome:
    """Give a write its entries, which come in the order of the writes."""
    if isinstance(outcome, Write):
        return Committed(tuple(islice(places, len(outcome.entries))))
    return outcome
