"""What local users tell of themselves: fields by name, each a JSON value."""

from __future__ import annotations

from collections.abc import Collection

from storage.database import Transaction, single_statement
from storage.rows import Rows, Statement
from storage.text import escape, unescape

_OF_USER = "SELECT field, value FROM profiles WHERE user_nid = ?"
_NAMES = "SELECT user_nid, field, value FROM profiles WHERE user_nid IN ? AND field IN ?"

PUT = Statement(
    "INSERT INTO profiles (user_nid, field, value) VALUES (?, ?, ?)"
    " ON CONFLICT (user_nid, field) DO UPDATE SET value = excluded.value",
    key=2,
)
DELETE = Statement("DELETE FROM profiles WHERE user_nid = ? AND field = ?")
DELETE_ALL = Statement("DELETE FROM profiles WHERE user_nid = ?")


@single_statement
def of_user(tx: Transaction, user_nid: int) -> dict[str, bytes]:
    """Give all fields of a user, as JSON."""
    return {unescape(row[0]): bytes(row[1]) for row in tx.all(_OF_USER, (user_nid,))}


@single_statement
def of_users(
    tx: Transaction, user_nids: Collection[int], fields: Collection[str]
) -> dict[int, dict[str, bytes]]:
    """Give some fields of many users, as JSON."""
    found: dict[int, dict[str, bytes]] = {nid: {} for nid in user_nids}
    for user_nid, field, value in tx.all(_NAMES, (list(user_nids), list(fields))) if user_nids else ():
        found[user_nid][unescape(field)] = bytes(value)
    return found


def put_rows(user_nid: int, field: str, value: bytes) -> Rows:
    """Give the row that sets a field."""
    return Rows(PUT, ((user_nid, escape(field), value),))


def delete_rows(user_nid: int, field: str) -> Rows:
    """Give the row that removes a field."""
    return Rows(DELETE, ((user_nid, escape(field)),))


def delete_all_rows(user_nid: int) -> Rows:
    """Give the row that removes a whole profile."""
    return Rows(DELETE_ALL, ((user_nid,),))
