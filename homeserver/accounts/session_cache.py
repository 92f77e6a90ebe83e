"""Access tokens that were checked lately, and whose they are. Emptied by the feed, so a logout holds at once.

Bound: MAX_TOKENS tokens; the longest unused goes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from attrs import define

from homeserver.accounts.requester import Requester
from storage.feed import Entry, Kind

MAX_TOKENS = 50_000


@define(eq=False)
class CachedToken:
    """A token that stands."""

    requester: Requester
    expires: int | None
    seen: int = 0
    """When its device's sighting was last noted, milliseconds."""


class SessionCache:
    """Tokens by their text."""

    def __init__(self) -> None:
        """Start empty."""
        self._tokens: OrderedDict[str, CachedToken] = OrderedDict()
        self._by_user: dict[int, set[str]] = {}
        self.changes = 0
        """Counts what the feed took away; what is read from the database while it moves is not kept."""

    def get(self, token: str, now: int) -> CachedToken | None:
        """Give a token that is known to stand at `now`."""
        found = self._tokens.get(token)
        if found is None:
            return None
        if found.expires is not None and found.expires <= now:
            self._drop(token)
            return None
        self._tokens.move_to_end(token)
        return found

    def put(self, token: str, cached: CachedToken) -> None:
        """Keep a token."""
        self._tokens[token] = cached
        self._by_user.setdefault(cached.requester.user_nid, set()).add(token)
        if len(self._tokens) > MAX_TOKENS:
            self._drop(next(iter(self._tokens)))

    def apply(self, entries: Sequence[Entry]) -> None:
        """Follow the feed: drop the tokens of a session, or all of a user where no session is named."""
        for entry in entries:
            if entry.kind == Kind.SESSION and entry.user_nid is not None:
                self.changes += 1
                for token in tuple(self._by_user.get(entry.user_nid, ())):
                    if entry.ref in (None, self._tokens[token].requester.session_nid):
                        self._drop(token)

    def _drop(self, token: str) -> None:
        user_nid = self._tokens.pop(token).requester.user_nid
        tokens = self._by_user[user_nid]
        tokens.discard(token)
        if not tokens:
            del self._by_user[user_nid]

    def __len__(self) -> int:
        """Tell how many tokens are kept."""
        return len(self._tokens)
