"""Tests of asking several for the same."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock as Timers
from twisted.trial.unittest import SynchronousTestCase

from homeserver.clock import Clock
from homeserver.staggered import NoneGood, first_good


class StaggeredTests(SynchronousTestCase):
    """Three that are asked, two seconds apart."""

    def setUp(self) -> None:
        """Ask nobody yet."""
        self.timers = Timers()
        self.asked: list[Deferred[str]] = []
        self.cancelled: list[int] = []
        self.late: list[str] = []

    def ask(self, number: int) -> Deferred[str]:
        """Note that one is asked, and when it is given up."""
        answer: Deferred[str] = Deferred(lambda _: self.cancelled.append(number))
        self.asked.append(answer)
        return answer

    def race(self, attempts: Sequence[Any] | None = None) -> Deferred[str]:
        """Begin to ask."""
        if attempts is None:
            attempts = [partial(self.ask, number) for number in range(3)]
        race = first_good(Clock(self.timers), attempts, 2.0, expected=ValueError, too_late=self.late.append)
        return Deferred.fromCoroutine(race)

    def test_the_first_to_answer_counts(self) -> None:
        """The next is asked after the stagger, the rest not at all, and who has not answered is given up."""
        race = self.race()
        self.assertEqual(len(self.asked), 1)
        self.timers.advance(2)
        self.assertEqual(len(self.asked), 2)
        self.asked[1].callback("second")
        self.assertEqual(self.successResultOf(race), "second")
        self.assertEqual(self.cancelled, [0])
        self.assertEqual(self.timers.getDelayedCalls(), [])

    def test_who_fails_is_followed_at_once(self) -> None:
        """Nobody waits for the stagger after a failure, and all failures are told in their order."""
        race = self.race()
        failures = [ValueError(str(number)) for number in range(3)]
        for number, failure in enumerate(failures):
            self.assertEqual(len(self.asked), number + 1)
            self.asked[number].errback(failure)
        self.assertEqual(self.failureResultOf(race, NoneGood).value.failures, failures)
        self.assertEqual(self.failureResultOf(self.race([]), NoneGood).value.failures, [])
        self.assertEqual(self.timers.getDelayedCalls(), [])

    def test_an_unexpected_failure_ends_it(self) -> None:
        """What is no answer of theirs is told as it is, and nobody else is asked."""
        race = self.race()
        self.asked[0].errback(ZeroDivisionError())
        self.failureResultOf(race, ZeroDivisionError)
        self.timers.advance(10)
        self.assertEqual(len(self.asked), 1)

    def test_what_comes_too_late_is_handed_over(self) -> None:
        """Who answers in spite of being given up has its answer looked after."""

        async def stubborn() -> str:
            try:
                return await self.ask(0)
            except Exception:
                return "late"

        race = self.race([stubborn, partial(self.ask, 1)])
        self.timers.advance(2)
        self.asked[1].callback("second")
        self.assertEqual(self.successResultOf(race), "second")
        self.assertEqual(self.late, ["late"])

    def test_a_race_may_be_given_up(self) -> None:
        """Cancelling it cancels all that is under way, and asks nobody else."""
        race = self.race()
        self.timers.advance(2)
        race.cancel()
        self.failureResultOf(race)
        self.assertEqual(self.cancelled, [0, 1])
        self.assertEqual(self.timers.getDelayedCalls(), [])
