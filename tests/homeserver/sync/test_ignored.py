"""Tests of the lists of ignored users."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from homeserver.sync.ignored import IgnoredLists, read_list
from storage.feed import Entry, Kind


class AccountData:
    """One user's list."""

    content: bytes | None = b'{"ignored_users":{"@a:x":{}}}'
    asked = 0

    async def one(self, user_nid: int, event_type: str) -> bytes | None:
        """Give the list."""
        self.asked += 1
        return self.content


class IgnoredTests(SynchronousTestCase):
    """Lists of ignored users."""

    def test_nonsense_ignores_nobody(self) -> None:
        """A list of the wrong shape ignores nobody."""
        for raw in (b"{}", b"[]", b"5", b'{"ignored_users":[]}', b'{"ignored_users":5}', b"\xff", b""):
            self.assertEqual(read_list(raw), frozenset())

    def test_a_list_is_read_once_until_it_changes(self) -> None:
        """A list is kept in memory until the feed tells of a change."""
        data: Any = AccountData()
        lists = IgnoredLists(data)

        def of() -> frozenset[str]:
            return self.successResultOf(Deferred.fromCoroutine(lists.of(1)))

        self.assertEqual(of(), {"@a:x"})
        self.assertEqual(of(), {"@a:x"})
        self.assertEqual(data.asked, 1)
        data.content = None
        lists.apply([Entry(1, Kind.ACCOUNT_DATA, user_nid=1, ref=1)])
        self.assertEqual(of(), frozenset())
