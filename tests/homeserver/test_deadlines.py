"""Tests of waits that share timers."""

from __future__ import annotations

from twisted.internet.task import Clock as TaskClock
from twisted.trial.unittest import SynchronousTestCase

from homeserver.clock import Clock
from homeserver.deadlines import STEP_MS, Deadline, Deadlines


class DeadlineTests(SynchronousTestCase):
    """Deadlines on a clock that stands still."""

    def setUp(self) -> None:
        """Make the clock."""
        self.timers = TaskClock()
        self.timers.advance(1_700_000_000)
        self.deadlines = Deadlines(Clock(self.timers))
        self.ended: list[str] = []

    def set(self, wait_ms: int, name: str) -> Deadline:
        """Set a deadline that notes its name."""
        return self.deadlines.set(wait_ms, lambda: self.ended.append(name))

    def test_each_comes_in_its_time(self) -> None:
        """A wait ends not before its time, and at most a step after it."""
        self.set(1000, "on a step")
        self.set(1001, "after it")
        self.timers.advance(0.999)
        self.assertEqual(self.ended, [])
        self.timers.advance(0.001)
        self.assertEqual(self.ended, ["on a step"])
        self.timers.advance((STEP_MS - 1) / 1000)
        self.assertEqual(self.ended, ["on a step"])
        self.timers.advance(0.001)
        self.assertEqual(self.ended, ["on a step", "after it"])

    def test_waits_that_end_together_share_a_timer(self) -> None:
        """Many waits take one timer, and none when all are taken back."""
        deadlines = [self.deadlines.set(900 + n, lambda: self.ended.append("x")) for n in range(1, 100)]
        self.assertEqual(len(self.timers.getDelayedCalls()), 1)
        for deadline in deadlines[1:]:
            deadline.cancel()
        self.timers.advance(0.5)
        self.assertEqual(len(self.timers.getDelayedCalls()), 1)
        deadlines[0].cancel()
        deadlines[0].cancel()
        self.assertEqual(self.timers.getDelayedCalls(), [])
        self.deadlines.set(400, lambda: self.ended.append("y"))
        self.timers.advance(1)
        self.assertEqual(self.ended, ["y"])

    def test_what_ends_may_take_back_and_set_others(self) -> None:
        """What ends first may cancel what would end with it, and may wait again at once."""
        both: list[Deadline] = []

        def end() -> None:
            for each in both:
                each.cancel()
            self.set(0, "again")

        both += [self.deadlines.set(100, end), self.deadlines.set(100, end)]
        self.timers.advance(0.1)
        self.timers.advance(0)
        self.assertEqual(self.ended, ["again"])
        self.assertEqual(self.timers.getDelayedCalls(), [])
