"""A watchdog over the reactor: a timer that notes how late it is called.

The reactor may not be held up for more than 50 ms at a time; what holds it up shows here.

Source: design, "Bad input, faults, security".
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

from homeserver.clock import Clock, Timer

TICK = 0.25
"""Seconds between looks; a stall shorter than that may go unseen. Each look wakes a process that rests."""
STALL = 0.05
"""Seconds of lateness that count as a stall."""


class Watchdog:
    """Measures how long the reactor is held up."""

    def __init__(self, clock: Clock, registry: CollectorRegistry) -> None:
        """Register the series; `start` begins to look."""
        self._clock = clock
        self._worst = Gauge(
            "plait_reactor_worst_stall_seconds", "Longest time the reactor was held up", registry=registry
        )
        self._stalls = Counter(
            "plait_reactor_stalls", "Times the reactor was held up for over 50 ms", registry=registry
        )
        self._stalled = Counter(
            "plait_reactor_stalled_seconds", "Seconds the reactor was held up, all in all", registry=registry
        )
        self._timer: Timer | None = None
        self._due = 0.0
        self.worst = 0.0
        """The longest stall since the start or the last `forget`, in seconds."""

    def start(self) -> None:
        """Begin to look."""
        self._due = self._clock.reactor.seconds() + TICK
        self._timer = self._clock.call_later(TICK, self._look)

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def forget(self) -> None:
        """Begin a new period."""
        self.worst = 0.0

    def _look(self) -> None:
        late = self._clock.reactor.seconds() - self._due
        if late > self.worst:
            self.worst = late
            self._worst.set(late)
        if late > STALL:
            self._stalls.inc()
            self._stalled.inc(late)
        self.start()
