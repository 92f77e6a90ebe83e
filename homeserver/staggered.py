"""Ask several for the same, each a little after the one before; the first good answer counts.

Source: RFC 8305 (the stagger).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from homeserver.clock import Clock, Timer

T = TypeVar("T")
Attempt = Callable[[], Awaitable[T]]


class NoneGood(Exception):
    """Every attempt has failed; `failures` are in the order in which they came."""

    def __init__(self, failures: Sequence[Exception]) -> None:
        """Keep the failures."""
        super().__init__(failures)
        self.failures = failures


def _ignore(_result: object) -> None:
    """Let a result be."""


async def first_good(
    clock: Clock,
    attempts: Sequence[Attempt[T]],
    stagger: float,
    *,
    expected: type[Exception] = Exception,
    too_late: Callable[[T], object] = _ignore,
) -> T:
    """Start `attempts` in order, `stagger` seconds apart or when one fails; give the first result.

    The others are cancelled; a result that comes in spite of that is handed to `too_late`. A failure that is
    not `expected` ends it all. Raises `NoneGood` if all fail.
    """
    return await _Race(clock, list(attempts)[::-1], stagger, expected, too_late).run()


@define(eq=False)
class _Race(Generic[T]):
    """Attempts under way."""

    _clock: Clock
    _waiting: list[Attempt[T]]
    _stagger: float
    _expected: type[Exception]
    _too_late: Callable[[T], object]
    _running: list[Deferred[T]] = field(factory=list, init=False)
    _failures: list[Exception] = field(factory=list, init=False)
    _timer: Timer | None = field(default=None, init=False)
    _is_over: bool = field(default=False, init=False)
    _done: Deferred[T] = field(init=False)

    def run(self) -> Deferred[T]:
        """Start the first."""
        self._done = Deferred(lambda _: self._stop())
        self._next()
        return self._done

    def _next(self) -> None:
        """Start one more, and the timer for the one after it."""
        self._timer = None
        if not self._waiting:
            if not self._running:
                self._done.errback(NoneGood(self._failures))
            return
        attempt = Deferred.fromCoroutine(_awaited(self._waiting.pop()))
        self._running.append(attempt)
        attempt.addCallbacks(self._won, self._lost, callbackArgs=(attempt,), errbackArgs=(attempt,))
        if self._waiting and not attempt.called:
            self._timer = self._clock.call_later(self._stagger, self._next)

    def _won(self, result: T, attempt: Deferred[T]) -> None:
        self._running.remove(attempt)
        if self._is_over:
            self._too_late(result)
            return
        self._stop()
        self._done.callback(result)

    def _lost(self, failure: Failure, attempt: Deferred[T]) -> None:
        self._running.remove(attempt)
        if self._is_over:
            return
        if not isinstance(failure.value, self._expected):
            self._stop()
            self._done.errback(failure)
            return
        self._failures.append(failure.value)
        self._cancel_timer()
        self._next()

    def _stop(self) -> None:
        """Give up whatever is still under way."""
        self._is_over = True
        self._waiting.clear()
        self._cancel_timer()
        for attempt in list(self._running):
            attempt.cancel()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


async def _awaited(attempt: Attempt[T]) -> T:
    return await attempt()
