"""Tests of work that nobody waits for."""

from __future__ import annotations

import gc

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from homeserver.background import run_in_background


class BackgroundTests(SynchronousTestCase):
    """Work in the background."""

    def setUp(self) -> None:
        """Note what happens."""
        self.done: list[object] = []

    async def work(self, *waits: Deferred[object]) -> None:
        """Wait for several things, one after the other."""
        for each in waits:
            try:
                self.done.append(await each)
            except KeyError as error:
                self.done.append(error)
        self.done.append("end")

    def test_it_begins_at_once_and_goes_on_when_it_can(self) -> None:
        """Work runs up to its first wait before its start returns, and on as results and failures come."""
        first: Deferred[object] = Deferred()
        second: Deferred[object] = Deferred()
        ended = run_in_background(self.work(first, second), "work")
        self.assertNoResult(ended)
        first.callback(1)
        self.assertEqual(self.done, [1])
        failure = KeyError("x")
        second.errback(failure)
        self.assertEqual(self.done, [1, failure, "end"])
        self.assertIsNone(self.successResultOf(ended))

    def test_work_that_waits_for_nothing(self) -> None:
        """Work that needs no wait is done when its start returns."""
        self.assertIsNone(self.successResultOf(run_in_background(self.work(), "work")))
        self.assertEqual(self.done, ["end"])

    def test_failures_are_logged(self) -> None:
        """Failures before and after a wait are logged, and the end is told all the same."""
        wait: Deferred[object] = Deferred()

        async def fail(*waits: Deferred[object]) -> None:
            for each in waits:
                await each
            raise ValueError

        self.assertIsNone(self.successResultOf(run_in_background(fail(), "work")))
        ended = run_in_background(fail(wait), "work")
        self.assertNoResult(ended)
        wait.callback(None)
        self.assertIsNone(self.successResultOf(ended))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 2)

    def test_what_it_waits_for_may_vanish(self) -> None:
        """Work whose wait is forgotten by everybody goes with it, and nothing is logged."""
        run_in_background(self.work(Deferred()), "work")
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])
        self.assertEqual(self.done, [])

    def test_it_can_be_cancelled(self) -> None:
        """Cancelling the end cancels what the work waits for."""
        wait: Deferred[object] = Deferred()
        ended = run_in_background(self.work(wait), "work")
        ended.cancel()
        self.assertIsNone(self.successResultOf(ended))
        self.assertEqual(self.done, [])
        self.assertEqual(len(self.flushLoggedErrors(CancelledError)), 1)
