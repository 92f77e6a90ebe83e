"""Tests of the watchdog over the reactor."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from twisted.trial.unittest import SynchronousTestCase

from homeserver.watchdog import STALL, Watchdog


class WatchdogTests(SynchronousTestCase):
    """Noting stalls."""

    def test_a_stall_is_noted(self) -> None:
        """A long turn counts as a stall; the longest turn shows even if it was short."""
        registry = CollectorRegistry()
        watchdog = Watchdog(registry)
        for seconds in (STALL / 2, STALL / 4):
            watchdog.turned(seconds)
        self.assertEqual(registry.get_sample_value("plait_reactor_stalls_total"), 0)
        self.assertEqual(registry.get_sample_value("plait_reactor_worst_stall_seconds"), STALL / 2)
        watchdog.turned(0.2)
        self.assertEqual(registry.get_sample_value("plait_reactor_stalls_total"), 1)
        self.assertEqual(registry.get_sample_value("plait_reactor_stalled_seconds_total"), 0.2)
        self.assertEqual(registry.get_sample_value("plait_reactor_worst_stall_seconds"), 0.2)
