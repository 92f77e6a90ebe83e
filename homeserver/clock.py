"""The one clock: milliseconds of the day for records, and timers on the reactor.

Everything that needs the time gets this object or the time itself as an argument; tests put a
`twisted.internet.task.Clock` in.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from attrs import frozen
from twisted.internet.defer import Deferred


class Timer(Protocol):
    """A call that is still to come."""

    def cancel(self) -> None:
        """Let it not come."""

    def active(self) -> bool:
        """Tell whether it is still to come."""
        ...


class Timers(Protocol):
    """What this module needs of a reactor (`IReactorTime`)."""

    def seconds(self) -> float:
        """Give seconds since the epoch."""
        ...

    def callLater(self, delay: float, callable: Callable[..., object], *args: object) -> Timer:
        """Call later."""
        ...


@frozen
class Clock:
    """Tell the time and wake up later."""

    reactor: Timers

    def now_ms(self) -> int:
        """Give milliseconds since the epoch."""
        return int(self.reactor.seconds() * 1000)

    def call_later(self, seconds: float, function: Callable[[], object]) -> Timer:
        """Call `function` after so many seconds; the answer can cancel it."""
        return self.reactor.callLater(seconds, function)

    def soon(self, function: Callable[[], object]) -> None:
        """Call `function` when the present turn of the reactor is over."""
        self.reactor.callLater(0, function)

    def sleep(self, seconds: float) -> Awaitable[None]:
        """Wait so many seconds; cancelling the wait cancels the timer."""
        done: Deferred[None] = Deferred(lambda _: timer.cancel())
        timer = self.reactor.callLater(seconds, done.callback, None)
        return done
