"""The push rules of local users, compiled, for whoever judges events: from memory where known.

Asked on database threads, told of changes by the feed on the reactor's thread; hence the lock.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from threading import Lock

from homeserver.accounts.account_data import PUSH_RULES
from protocol.canonical_json import decode_own
from protocol.identifiers import UserID
from protocol.push_evaluation import Evaluator
from protocol.push_rules import read_push_rules
from storage import account_data, feed
from storage.database import Transaction
from storage.feed import Entry, Kind

MAX_KNOWN = 20_000


class RuleSets:
    """Compiled rules by user number. Bound: `MAX_KNOWN` users; the longest known goes."""

    def __init__(self) -> None:
        """Start knowing nobody's; `apply` must follow the feed."""
        self._known: OrderedDict[int, Evaluator | None] = OrderedDict()
        self._lock = Lock()
        self._changed_at = 0
        """The position in the feed of the last change told: what is read as of before it is not kept."""

    def of(self, tx: Transaction, users: Mapping[int, UserID]) -> Mapping[int, Evaluator]:
        """Give the rules of those users whose rules are not the default ones; no query if all are known."""
        with self._lock:
            found = {nid: self._known[nid] for nid in users if nid in self._known}
        missing = [nid for nid in users if nid not in found]
        if missing:
            upto = feed.tail(tx)
            contents = account_data.of_type(tx, missing, PUSH_RULES)
            fresh = {nid: _compile(users[nid], contents.get(nid)) for nid in missing}
            self._remember(fresh, upto)
            found |= fresh
        return {nid: rules for nid, rules in found.items() if rules is not None}

    def note_new(self, user_nid: int) -> None:
        """Know that a new account has the default rules."""
        with self._lock:
            self._keep({user_nid: None})

    def _remember(self, fresh: Mapping[int, Evaluator | None], upto: int) -> None:
        """Keep what was read as of a position, unless the feed has told of a later change."""
        with self._lock:
            if upto >= self._changed_at:
                self._keep(fresh)

    def _keep(self, fresh: Mapping[int, Evaluator | None]) -> None:
        self._known.update(fresh)
        while len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)

    def apply(self, entries: Sequence[Entry]) -> None:
        """Follow the feed."""
        for entry in entries:
            if entry.kind == Kind.ACCOUNT_DATA and entry.room_nid is None and entry.user_nid is not None:
                with self._lock:
                    self._changed_at = entry.pos
                    self._known.pop(entry.user_nid, None)


def _compile(user_id: UserID, content: bytes | None) -> Evaluator | None:
    """Compile rules; None for the default ones."""
    if content is None:
        return None
    rules = read_push_rules(user_id, decode_own(content))
    return None if rules.are_default else Evaluator(rules)
