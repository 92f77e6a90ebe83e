"""Database threads: one queue, a few workers, results carried back to the reactor in bundles.

Each worker owns one `Session` (a connection), used by its thread alone. A job goes to the first worker that
rests, by a fixed order, also while that one still ends its last transaction: its pages, its prepared
statements and what its server process knows of the tables are warm, which is worth more than the wait, and
under light load the other connections are never opened. A job costs one hop to a worker and a share of one
wake-up of the reactor: all jobs that finish before the reactor gets to run are handed over by one call. The
queue is bounded: past `max_waiting` jobs `submit` raises `Unavailable` at once.

`PooledDatabase` is the `Database` of both engines: it has workers that read and workers that write,
so that long reads never stand before a commit.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from queue import SimpleQueue
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure

from protocol.errors import Unavailable
from storage.database import DatabaseGone, Dialect, Transaction

P = ParamSpec("P")
T = TypeVar("T")

Work = Callable[..., Any]


class Session(Protocol):
    """One connection, used by one thread."""

    def run(self, work: Work, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Run `work(transaction, *args, **kwargs)` in a transaction and give what it returns."""

    def settle(self) -> None:
        """End what `run` left open, after its result was handed over; never raises."""

    def close(self) -> None:
        """Close the connection; never raises."""


@frozen(eq=False)
class Job:
    """A unit of work on its way to a worker and back."""

    work: Work
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: Deferred[Any]


@frozen(order=True)
class _Worker:
    """A thread's session, and where a job is put for it while it rests."""

    number: int
    session: Session = field(eq=False)
    next: SimpleQueue[Job | None] = field(factory=SimpleQueue, eq=False)


class Workers:
    """Threads that serve one queue, each with a session of its own."""

    def __init__(
        self, reactor: IReactorFromThreads, name: str, sessions: Sequence[Session], *, max_waiting: int
    ) -> None:
        """Start one thread for each session; `max_waiting` bounds the jobs not yet answered."""
        self._reactor = reactor
        self._lock = threading.Lock()
        self._queue: deque[Job | None] = deque()
        self._resting = [_Worker(number, session) for number, session in enumerate(sessions)]
        """A heap: the first by number is the first to work."""
        self._finished: deque[tuple[Deferred[Any], Any]] = deque()
        self._wakeup_sent = False
        self._waiting = 0
        self._max_waiting = max_waiting
        self._exits: list[Deferred[None]] | None = None
        self._sessions = sessions
        for worker in list(self._resting):
            threading.Thread(
                target=self._serve, args=(worker,), name=f"database-{name}-{worker.number}", daemon=True
            ).start()

    @property
    def waiting(self) -> int:
        """Tell how many jobs are queued or running."""
        return self._waiting

    def submit(self, work: Work, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Deferred[Any]:
        """Queue a job; cancelling its Deferred abandons the result, and the job too if it has not begun.

        Raises `Unavailable` when the queue is full, `DatabaseGone` after `close`.
        """
        if self._exits is not None:
            raise DatabaseGone("the database is closed")
        if self._waiting >= self._max_waiting:
            raise Unavailable("Too many database operations are waiting")
        self._waiting += 1
        result: Deferred[Any] = Deferred()
        self._hand_out(Job(work, args, kwargs, result))
        return result

    async def close(self) -> None:
        """Serve what is queued, then end all threads and close their sessions."""
        if self._exits is None:
            self._exits = [Deferred() for _ in self._sessions]
            self._waiting += len(self._exits)
            for _ in self._exits:
                self._hand_out(None)
        for ended in self._exits:
            if not ended.called:
                await ended

    def _hand_out(self, job: Job | None) -> None:
        """Give a job, or the word to end, to a resting worker or to the first that will be free."""
        with self._lock:
            worker = heappop(self._resting) if self._resting else None
            if worker is None:
                self._queue.append(job)
        if worker is not None:
            worker.next.put(job)

    def _rest(self, worker: _Worker) -> None:
        """Let a worker have its next job, now or when one comes (runs on the worker's thread)."""
        with self._lock:
            if self._queue:
                worker.next.put(self._queue.popleft())
            else:
                heappush(self._resting, worker)

    def _serve(self, worker: _Worker) -> None:
        """Serve jobs until told to end (runs on a worker's thread)."""
        session = worker.session
        while (job := worker.next.get()) is not None:
            outcome = None
            if not job.result.called:
                try:
                    outcome = session.run(job.work, job.args, job.kwargs)
                except BaseException:
                    outcome = Failure()
            self._rest(worker)
            self._post(job.result, outcome)
            del job, outcome
            session.settle()
        session.close()
        self._reactor.callFromThread(self._ended)

    def _post(self, result: Deferred[Any], outcome: Any) -> None:
        """Hand an outcome to the reactor, waking it only when no wake-up is under way.

        Two threads may both send one, which is harmless; none is lost, since `_deliver` clears the
        mark before it looks.
        """
        self._finished.append((result, outcome))
        if not self._wakeup_sent:
            self._wakeup_sent = True
            self._reactor.callFromThread(self._deliver)

    def _deliver(self) -> None:
        """Fire the Deferreds of all finished jobs (runs on the reactor's thread)."""
        self._wakeup_sent = False
        while self._finished:
            result, outcome = self._finished.popleft()
            self._waiting -= 1
            result.callback(outcome)

    def _ended(self) -> None:
        """Note that one thread has ended (runs on the reactor's thread)."""
        self._deliver()
        assert self._exits is not None
        self._waiting -= 1
        next(ended for ended in self._exits if not ended.called).callback(None)


@define
class PooledDatabase:
    """A database served by workers that read and workers that write; see `storage.database.Database`."""

    dialect: Dialect
    _readers: Workers
    _writers: Workers

    async def read(
        self, work: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run `work` in a read-only transaction with one snapshot."""
        result: T = await self._readers.submit(work, args, kwargs)
        return result

    async def write(
        self, work: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run `work` in a transaction that commits when it returns and rolls back when it raises."""
        result: T = await self._writers.submit(work, args, kwargs)
        return result

    async def close(self) -> None:
        """Wait for running work and close all connections."""
        await self._writers.close()
        await self._readers.close()
