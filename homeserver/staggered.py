"""Ask several for the same, each a little after the one before; the first good answer counts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from federation.failures import Refused
from homeserver.clock import Clock, Timer
from protocol.errors import MatrixError, NotFound

T = TypeVar("T")
Attempt = Callable[[], Awaitable[T]]


async def first_good(clock: Clock, attempts: Sequence[Attempt[T]], stagger: float) -> T:
    """Start `attempts` in order, `stagger` seconds apart or when one fails; give the first result.

    The others are cancelled. If all fail, raises the last refusal, else the last failure; NotFound for
    no attempts.
    """
    return await _Race(clock, attempts, stagger).run()


class _Race(Generic[T]):
    """Attempts under way."""

    def __init__(self, clock: Clock, attempts: Sequence[Attempt[T]], stagger: float) -> None:
        """Prepare to start `attempts`."""
        self._clock = clock
        self._waiting = list(attempts)[::-1]
        self._stagger = stagger
        self._running: list[Deferred[T]] = []
        self._timer: Timer | None = None
        self._done: Deferred[T] = Deferred(lambda _: self._stop())
        self._last: Failure = Failure(NotFound("there is nobody to ask"))

    def run(self) -> Deferred[T]:
        """Start the first."""
        self._next()
        return self._done

    def _next(self) -> None:
        """Start one more, and the timer for the one after it."""
        self._timer = None
        if self._done.called:
            return
        if not self._waiting:
            if not self._running:
                self._done.errback(self._last)
            return
        attempt = Deferred.fromCoroutine(_awaited(self._waiting.pop()))
        self._running.append(attempt)
        attempt.addCallbacks(self._won, self._lost, callbackArgs=(attempt,), errbackArgs=(attempt,))
        if self._waiting and not attempt.called and self._timer is None:
            self._timer = self._clock.call_later(self._stagger, self._next)

    def _won(self, result: T, attempt: Deferred[T]) -> None:
        self._running.remove(attempt)
        if not self._done.called:
            self._done.callback(result)
            self._stop()

    def _lost(self, failure: Failure, attempt: Deferred[T]) -> None:
        self._running.remove(attempt)
        if self._done.called:
            return
        if not failure.check(MatrixError):
            self._done.errback(failure)
            self._stop()
            return
        if not self._last.check(Refused) or failure.check(Refused):
            self._last = failure
        if self._timer is not None:
            self._timer.cancel()
        self._next()

    def _stop(self) -> None:
        """Give up whatever is still under way."""
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for attempt in list(self._running):
            attempt.cancel()


async def _awaited(attempt: Attempt[T]) -> T:
    return await attempt()
