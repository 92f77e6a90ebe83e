"""Account data: JSON objects that clients keep here, by type, global or for a room."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from storage.database import Dialect, Row, Transaction, single_statement
from storage.rows import Rows, Statement
from storage.text import escape, unescape

DATUM_NUMBERS = "account_data"
GLOBAL = 0
"""The room number of what belongs to no room."""

_COLUMNS = "room_nid, type, content"
_ONE = "SELECT content FROM account_data WHERE user_nid = ? AND room_nid = ? AND type = ?"
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended(?, 0))"
_OF_USER = f"SELECT {_COLUMNS} FROM account_data WHERE user_nid = ? ORDER BY datum_nid"
_BY_NID = f"SELECT {_COLUMNS} FROM account_data WHERE user_nid = ? AND datum_nid IN ? ORDER BY datum_nid"
_COUNT = "SELECT count(*) FROM account_data WHERE user_nid = ? AND room_nid = ?"
_OF_TYPE = "SELECT user_nid, content FROM account_data WHERE user_nid IN ? AND room_nid = ? AND type = ?"

PUT = Statement(
    "INSERT INTO account_data (user_nid, room_nid, type, datum_nid, content) VALUES (?, ?, ?, ?, ?)"
    " ON CONFLICT (user_nid, room_nid, type) DO UPDATE SET"
    " datum_nid = excluded.datum_nid, content = excluded.content",
    key=3,
)
DELETE_ALL = Statement("DELETE FROM account_data WHERE user_nid = ?")


class DatumRow(NamedTuple):
    """A piece of account data; room number 0 for a global one."""

    room_nid: int
    type: str
    content: bytes


def _datum(row: Row) -> DatumRow:
    return DatumRow(row[0], unescape(row[1]), bytes(row[2]))


@single_statement
def one(tx: Transaction, user_nid: int, room_nid: int, event_type: str) -> bytes | None:
    """Give the content of one piece."""
    row = tx.one(_ONE, (user_nid, room_nid, escape(event_type)))
    return None if row is None else bytes(row[0])


def differs(tx: Transaction, user_nid: int, room_nid: int, event_type: str, content: bytes | None) -> bool:
    """Tell whether a piece is not what it was read as; until the end of the transaction nobody else asks."""
    if tx.dialect is Dialect.POSTGRES:
        tx.one(_LOCK, (f"account data of {user_nid}",))
    return one(tx, user_nid, room_nid, event_type) != content


@single_statement
def of_user(tx: Transaction, user_nid: int) -> list[DatumRow]:
    """Give all of a user, the longest unchanged first."""
    return [_datum(row) for row in tx.all(_OF_USER, (user_nid,))]


@single_statement
def by_nids(tx: Transaction, user_nid: int, datum_nids: Collection[int]) -> list[DatumRow]:
    """Give the pieces with these numbers that have not changed since."""
    return [_datum(row) for row in tx.all(_BY_NID, (user_nid, list(datum_nids)))] if datum_nids else []


@single_statement
def of_type(tx: Transaction, user_nids: Collection[int], event_type: str) -> dict[int, bytes]:
    """Give one global type of many users."""
    if not user_nids:
        return {}
    found = tx.all(_OF_TYPE, (list(user_nids), GLOBAL, escape(event_type)))
    return {row[0]: bytes(row[1]) for row in found}


def count(tx: Transaction, user_nid: int, room_nid: int) -> int:
    """Tell how many types a user has in a room (0: globally)."""
    row = tx.one(_COUNT, (user_nid, room_nid))
    return int(row[0]) if row is not None else 0


def put_rows(user_nid: int, datum_nid: int, row: DatumRow) -> Rows:
    """Give the row that sets a piece."""
    return Rows(PUT, ((user_nid, row.room_nid, escape(row.type), datum_nid, row.content),))


def delete_all_rows(user_nid: int) -> Rows:
    """Give the row that removes all account data of a user."""
    return Rows(DELETE_ALL, ((user_nid,),))
