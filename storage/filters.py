"""Filters that clients keep here, numbered for each account; the same filter is kept once."""

from __future__ import annotations

from storage.database import Transaction, single_statement

_BY_HASH = "SELECT filter_id FROM filters WHERE user_nid = ? AND hash = ?"
_NEXT = "SELECT coalesce(max(filter_id), 0) + 1 FROM filters WHERE user_nid = ?"
_INSERT = (
    "INSERT INTO filters (user_nid, filter_id, content, hash) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
)
_DROP_OLD = "DELETE FROM filters WHERE user_nid = ? AND filter_id <= ?"
_ONE = "SELECT content FROM filters WHERE user_nid = ? AND filter_id = ?"


def add(tx: Transaction, user_nid: int, content: bytes, content_hash: bytes, bound: int) -> int:
    """Keep a filter and give its number; beyond `bound` the oldest goes."""
    while True:
        found = tx.one(_BY_HASH, (user_nid, content_hash))
        if found is not None:
            return int(found[0])
        row = tx.one(_NEXT, (user_nid,))
        assert row is not None
        # Another worker may take the number, or bring the same filter, at the same time.
        if tx.execute(_INSERT, (user_nid, row[0], content, content_hash)):
            tx.execute(_DROP_OLD, (user_nid, row[0] - bound))
            return int(row[0])


@single_statement
def one(tx: Transaction, user_nid: int, filter_id: int) -> bytes | None:
    """Give a filter as the client gave it."""
    row = tx.one(_ONE, (user_nid, filter_id))
    return None if row is None else bytes(row[0])
