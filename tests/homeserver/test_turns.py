"""Tests of taking turns."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from homeserver.turns import Turns


class TurnsTests(SynchronousTestCase):
    """One at a time, in order."""

    def test_many_wait_in_order(self) -> None:
        """Five thousand that wait get their turn in the order of asking, without a deep stack."""
        turns: Turns[str] = Turns()
        order: list[int] = []

        async def work(number: int, until: Deferred[None] | None = None) -> None:
            await turns.take("room")
            if until is not None:
                await until
            order.append(number)
            turns.give("room")

        gate: Deferred[None] = Deferred()
        all_work = [Deferred.fromCoroutine(work(n, None if n else gate)) for n in range(5000)]
        self.assertEqual(order, [])
        gate.callback(None)
        for each in all_work:
            self.successResultOf(each)
        self.assertEqual(order, list(range(5000)))

    def test_keys_do_not_wait_for_each_other(self) -> None:
        """A turn under one key does not hold up another."""
        turns: Turns[str] = Turns()
        self.successResultOf(Deferred.fromCoroutine(turns.take("one")))
        self.successResultOf(Deferred.fromCoroutine(turns.take("two")))
        self.assertNoResult(Deferred.fromCoroutine(turns.take("one")))

    def test_who_gives_up_waiting_is_passed_over(self) -> None:
        """A turn goes to the next one when who waited for it has been cancelled."""
        turns: Turns[str] = Turns()
        self.successResultOf(Deferred.fromCoroutine(turns.take("room")))
        gone, next_one = (Deferred.fromCoroutine(turns.take("room")) for _ in range(2))
        gone.cancel()
        self.failureResultOf(gone, CancelledError)
        turns.give("room")
        self.successResultOf(next_one)
