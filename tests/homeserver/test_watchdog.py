"""Tests of the watchdog over the reactor."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from twisted.internet.task import Clock as TaskClock
from twisted.trial.unittest import SynchronousTestCase

from homeserver.clock import Clock
from homeserver.watchdog import TICK, Watchdog


class WatchdogTests(SynchronousTestCase):
    """Noting stalls."""

    def test_a_stall_is_noted(self) -> None:
        """A tick that comes late shows by how much; ticks on time show nothing."""
        timers = TaskClock()
        registry = CollectorRegistry()
        watchdog = Watchdog(Clock(timers), registry)
        watchdog.start()
        timers.pump([TICK] * 10)
        self.assertLess(watchdog.worst, 0.001)
        timers.advance(TICK + 0.2)
        self.assertAlmostEqual(watchdog.worst, 0.2, places=3)
        self.assertEqual(registry.get_sample_value("plait_reactor_stalls_total"), 1)
        watchdog.stop()
        self.assertEqual(timers.getDelayedCalls(), [])
