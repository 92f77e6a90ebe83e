"""Whom a user ignores, read from account data once and dropped when that changes.

Bound: `size` users. Nonsense in the list ignores nobody.

Source: client-server-api/modules/ignore_users.md.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import msgspec

from homeserver.sync.suppliers import AccountData
from protocol.identifiers import UserID
from storage.feed import Entry, Kind

TYPE = "m.ignored_user_list"
NOBODY: frozenset[UserID] = frozenset()
MAX_IGNORED = 10_000


class _List(msgspec.Struct):
    """The content of `m.ignored_user_list`; anything may stand in it."""

    ignored_users: object = None


class IgnoredLists:
    """The lists of users who sync."""

    def __init__(self, account_data: AccountData, size: int = 10_000) -> None:
        """Start with none."""
        self._account_data = account_data
        self._size = size
        self._changes = 0
        self._lists: OrderedDict[int, frozenset[UserID]] = OrderedDict()

    async def of(self, user_nid: int) -> frozenset[UserID]:
        """Give the ignored users."""
        known = self._lists.get(user_nid)
        if known is not None:
            return known
        at = self._changes
        raw = await self._account_data.one(user_nid, TYPE)
        found = NOBODY if raw is None else read_list(raw)
        if at == self._changes:
            self._lists[user_nid] = found
            if len(self._lists) > self._size:
                self._lists.popitem(last=False)
        return found

    def apply(self, entries: Sequence[Entry]) -> None:
        """Drop the lists that may have changed. A listener of the feed, before any session is woken."""
        for entry in entries:
            if entry.kind == Kind.ACCOUNT_DATA and entry.room_nid is None and entry.user_nid is not None:
                self._changes += 1
                self._lists.pop(entry.user_nid, None)


def read_list(raw: bytes) -> frozenset[UserID]:
    """Read the users of a list."""
    try:
        users = msgspec.json.decode(raw, type=_List).ignored_users
    except (msgspec.DecodeError, UnicodeError):
        return NOBODY
    return (
        frozenset(UserID(user) for user in list(users)[:MAX_IGNORED]) if isinstance(users, dict) else NOBODY
    )
