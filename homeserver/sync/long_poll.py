"""The long poll: answer at once if there is news, else wait for some until the timeout.

First syncs are the costly ones: few run at a time, and a request equal to one under way shares its
answer (security: D10).

Source: client-server-api/_index.md, "Syncing".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable

from twisted.internet.defer import Deferred, DeferredSemaphore

from homeserver.clock import Clock
from homeserver.deadlines import Deadlines
from homeserver.single_flight import SingleFlight
from homeserver.sync.delta import Delta
from homeserver.sync.feed import SessionFeed
from homeserver.sync.session import Options, Session
from homeserver.sync.tokens import SyncToken
from homeserver.sync.waiting import Waiters

MAX_TIMEOUT_MS = 120_000
FIRST_SYNCS = 4
"""First syncs computed at the same time."""


class _Wait:
    """One wait for a wake-up or the timeout; a wake-up that comes early is not lost."""

    def __init__(self, deadlines: Deadlines) -> None:
        """Start not woken."""
        self._deadlines = deadlines
        self._woken = False
        self._waiting: Deferred[None] | None = None

    def wake(self) -> None:
        """End the wait, or the next one."""
        self._woken = True
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            waiting.callback(None)

    async def at_most(self, wait_ms: int) -> None:
        """Wait for `wake`, at most about so long."""
        if not self._woken:
            waiting = self._waiting = Deferred()
            deadline = self._deadlines.set(wait_ms, self.wake)
            try:
                await waiting
            finally:
                self._waiting = None
                deadline.cancel()
        self._woken = False


class LongPoll:
    """Serves `/sync`."""

    def __init__(self, feed: SessionFeed, waiters: Waiters, clock: Clock) -> None:
        """Start with nobody waiting."""
        self._feed = feed
        self._waiters = waiters
        self._clock = clock
        self._deadlines = Deadlines(clock)
        self._first: SingleFlight[Hashable, Delta] = SingleFlight()
        self._turns = DeferredSemaphore(FIRST_SYNCS)

    async def sync(
        self,
        session: Session,
        since: SyncToken | None,
        options: Options,
        timeout_ms: int,
        stands: Callable[[int], Awaitable[None]] | None = None,
    ) -> Delta:
        """Give what changed; without news, wait for it up to `timeout_ms` and else give an empty answer.

        After a wait `stands` is given the time, and raises if whoever asks may be told no more.
        """
        if since is None or options.full_state:
            key = (session, since, options.filter, options.state_name, options.full_state)
            return await self._first.run(key, lambda: self._in_turn(session, since, options))
        deadline = self._clock.now_ms() + min(timeout_ms, MAX_TIMEOUT_MS)
        wait = _Wait(self._deadlines)
        subscription = self._waiters.subscribe(session.user_nid, wait.wake)
        at = since
        try:
            while True:
                now = self._clock.now_ms()
                delta = await self._feed.delta(session, at, options, now=now)
                if not delta.is_empty or self._clock.now_ms() >= deadline:
                    return delta
                at = delta.next_batch
                await wait.at_most(deadline - self._clock.now_ms())
                if stands is not None:
                    await stands(self._clock.now_ms())
        finally:
            subscription.cancel()

    async def device_lists(self, session: Session, since: SyncToken) -> bytes:
        """Give the `device_lists` object of what changed since a token; raise UnknownPos for a bad one."""
        return await self._feed.device_lists(session, since, now=self._clock.now_ms())

    async def _in_turn(self, session: Session, since: SyncToken | None, options: Options) -> Delta:
        """Compute a first sync when its turn has come."""
        await self._turns.acquire()
        try:
            return await self._feed.delta(session, since, options, now=self._clock.now_ms())
        finally:
            self._turns.release()
