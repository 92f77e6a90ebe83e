"""Tests of doing one thing at a time in each room."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from homeserver.room_queues import RoomQueues
from protocol.errors import Unavailable


class RoomQueuesTests(SynchronousTestCase):
    """Lines of work."""

    def test_a_full_line_whose_work_fails_at_once(self) -> None:
        """Each of many that wait gets its turn, without a deep stack, also when all of them fail at once."""
        queues = RoomQueues(1_000)
        gate: Deferred[None] = Deferred()

        async def wait() -> None:
            await gate

        async def fail() -> None:
            raise ValueError

        first = Deferred.fromCoroutine(queues.run(1, wait))
        others = [Deferred.fromCoroutine(queues.run(1, fail)) for _ in range(1_000)]
        self.assertEqual(queues.waiting(1), 1_000)
        self.failureResultOf(Deferred.fromCoroutine(queues.run(1, fail)), Unavailable)
        gate.callback(None)
        self.successResultOf(first)
        for each in others:
            self.failureResultOf(each, ValueError)
        self.assertEqual(queues.waiting(1), 0)
