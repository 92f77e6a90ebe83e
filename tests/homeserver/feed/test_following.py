"""Tests of following other writers."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock as TaskClock
from twisted.trial.unittest import SynchronousTestCase

from homeserver.clock import Clock
from homeserver.feed.following import POLL_SECONDS, Follower


class SlowFeed:
    """A feed whose database answers when told to."""

    def __init__(self) -> None:
        """Start with nothing asked."""
        self.asked: list[Deferred[None]] = []
        self.whole_at = 0

    async def catch_up(self) -> None:
        """Wait for the answer."""
        self.asked.append(Deferred())
        await self.asked[-1]


class FollowerTests(SynchronousTestCase):
    """Knowing how far one can be behind."""

    def test_a_tail_that_is_not_compared_is_behind(self) -> None:
        """While the database does not answer, what is remembered is not to be trusted (security: L5)."""
        timers, feed = TaskClock(), SlowFeed()
        follower = Follower(feed, Clock(timers))  # type: ignore[arg-type]
        follower.start()
        feed.asked.pop().callback(None)
        self.assertFalse(follower.is_behind())
        timers.advance(POLL_SECONDS)
        timers.advance(3)
        self.assertTrue(follower.is_behind())
        feed.asked.pop().callback(None)
        self.assertTrue(follower.is_behind())
        timers.advance(POLL_SECONDS)
        feed.asked.pop().callback(None)
        self.assertFalse(follower.is_behind())
        follower.stop()

    def test_own_commits_spare_looking(self) -> None:
        """While own commits follow on what is known nothing is asked; a second after the last it is."""
        timers, feed = TaskClock(), SlowFeed()
        clock = Clock(timers)
        follower = Follower(feed, clock)  # type: ignore[arg-type]
        follower.start()
        feed.asked.pop().callback(None)
        for _ in range(8):
            timers.advance(POLL_SECONDS / 2)
            feed.whole_at = clock.now_ms()
        self.assertEqual((feed.asked, follower.is_behind()), ([], False))
        timers.advance(POLL_SECONDS - 0.01)
        self.assertEqual(feed.asked, [])
        timers.advance(0.02)
        self.assertEqual(len(feed.asked), 1)
        follower.stop()
        timers.advance(10)
        self.assertEqual(len(feed.asked), 1)
