"""Tests of hearing from PostgreSQL that the feed moved."""

from __future__ import annotations

from twisted.internet.defer import DeferredQueue

from storage import feed
from storage.feed import Kind, NewEntry
from storage.migrate import migrate
from storage.notifications import FeedNotifications
from tests.storage.helpers import REACTOR, PostgresCase


class FeedNotificationsTests(PostgresCase):
    """A hint for each commit of another writer."""

    async def test_others_are_heard_and_oneself_is_not(self) -> None:
        """A connection counts as one hint, then each commit of another writer is one."""
        await migrate(self.database)
        hints: DeferredQueue[None] = DeferredQueue()
        listening = FeedNotifications(self.url, REACTOR, "me", lambda: hints.put(None))
        listening.start()
        await hints.get()
        for writer in ("me", "other", "me", "other"):
            await self.database.write(feed.append, [NewEntry(Kind.EVENT)], writer)
        await hints.get()
        listening.stop()
        self.assertLessEqual(len(hints.pending), 1)
