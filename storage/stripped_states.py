"""Stripped state of invites and knocks in rooms not known here, as it was given.

Whoever writes checks the form; whoever reads trusts none of it.
"""

from __future__ import annotations

from collections.abc import Sequence

from storage.database import Transaction
from storage.rows import Rows, Statement

PUT = Statement(
    "INSERT INTO stripped_states (room_nid, user_nid, state) VALUES (?, ?, ?)"
    " ON CONFLICT (room_nid, user_nid) DO UPDATE SET state = excluded.state",
    key=2,
)
_OF_USER = "SELECT room_nid, state FROM stripped_states WHERE user_nid = ? AND room_nid IN ?"


def stripped_rows(room_nid: int, user_nid: int, state: bytes) -> Rows:
    """Give the row for one invite or knock; `state` is a JSON list."""
    return Rows(PUT, ((room_nid, user_nid, state),))


def of_user(tx: Transaction, user_nid: int, room_nids: Sequence[int]) -> dict[int, bytes]:
    """Give what was stored for a user in rooms."""
    if not room_nids:
        return {}
    return {row[0]: bytes(row[1]) for row in tx.all(_OF_USER, (user_nid, list(room_nids)))}
