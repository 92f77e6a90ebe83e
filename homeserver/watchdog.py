"""A watchdog over the reactor: it is told how long each turn took.

The reactor may not be held up for more than 50 ms at a time; what holds it up shows here.

Source: design, "Bad input, faults, security".
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

STALL = 0.05
"""Seconds of one turn that count as a stall."""


class Watchdog:
    """Keeps account of how long the reactor was held up."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register the series."""
        self.worst = 0.0
        """The longest turn since the start or the last `forget`, in seconds."""
        worst = Gauge(
            "plait_reactor_worst_stall_seconds", "Longest time the reactor was held up", registry=registry
        )
        worst.set_function(lambda: self.worst)
        self._stalls = Counter(
            "plait_reactor_stalls", "Times the reactor was held up for over 50 ms", registry=registry
        )
        self._stalled = Counter(
            "plait_reactor_stalled_seconds", "Seconds the reactor was held up, all in all", registry=registry
        )

    def turned(self, seconds: float) -> None:
        """Take note of a turn of the reactor."""
        if seconds > self.worst:
            self.worst = seconds
        if seconds > STALL:
            self._stalls.inc()
            self._stalled.inc(seconds)

    def forget(self) -> None:
        """Begin a new period."""
        self.worst = 0.0
