"""Tests of hearing from PostgreSQL that the feed moved."""

from __future__ import annotations

from twisted.internet.defer import DeferredQueue

from storage import feed
from storage.feed import Kind, NewEntry
from storage.feed_writers import Writers
from storage.migrate import migrate
from storage.notifications import FeedNotifications
from tests.storage.helpers import REACTOR, PostgresCase


class FeedNotificationsTests(PostgresCase):
    """A hint for each commit of another writer."""

    async def test_others_are_heard_and_oneself_is_not(self) -> None:
        """A connection counts as one hint, then each commit of another writer is one."""
        await migrate(self.database)
        hints: DeferredQueue[None] = DeferredQueue()
        listening = FeedNotifications(self.url, REACTOR, Writers("me"), lambda: hints.put(None))
        listening.start()
        await hints.get()
        for writer in ("me", "other", "me", "other"):
            await self.database.write(feed.append, [NewEntry(Kind.EVENT)], writer)
        await hints.get()
        listening.stop()
        self.assertLessEqual(len(hints.pending), 1)

    async def test_who_is_alone_notifies_nobody(self) -> None:
        """Two that listen know of each other, whoever began first; one that is left alone is quiet again."""
        await migrate(self.database)
        hints: DeferredQueue[str] = DeferredQueue()
        mine, theirs = Writers("me"), Writers("other")
        one = FeedNotifications(self.url, REACTOR, mine, lambda: hints.put("me"))
        two = FeedNotifications(self.url, REACTOR, theirs, lambda: hints.put("other"))
        one.start()
        await hints.get()
        self.assertEqual(mine.told, None)
        two.start()
        while mine.told is None or theirs.told is None:
            await hints.get()
        self.assertEqual((mine.told, theirs.told), ("me", "other"))
        two.stop()
        while mine.told is not None:
            await hints.get()
        one.stop()

    async def test_who_is_heard_of_late_is_known_all_the_same(self) -> None:
        """A writer whose greeting was missed is known by the next thing it says, and is answered once."""
        writers = Writers("me")
        self.assertEqual(writers.hear("other"), None)
        self.assertEqual(writers.told, "me")
        self.assertEqual(writers.hear("third hello"), "me here")
        self.assertEqual(writers.hear("third hello"), None)
        self.assertEqual(writers.hear("other gone"), None)
        self.assertEqual(writers.hear("third gone"), None)
        self.assertEqual(writers.told, None)
