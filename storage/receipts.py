"""Read receipts: the newest of each kind and thread that a user has in a room."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from storage.database import Row, Transaction
from storage.rows import Rows, Statement
from storage.text import escape, unescape

_COLUMNS = "room_nid, user_nid, kind, thread, receipt_nid, event_id, ts"
PUT = Statement(
    f"INSERT INTO receipts ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (room_nid, user_nid, kind, thread) DO UPDATE SET"
    " receipt_nid = excluded.receipt_nid, event_id = excluded.event_id, ts = excluded.ts",
    key=4,
)
_OF_ROOM = f"SELECT {_COLUMNS} FROM receipts WHERE room_nid IN ?"
_BY_NID = f"SELECT {_COLUMNS} FROM receipts WHERE receipt_nid IN ?"
_ONE = f"SELECT {_COLUMNS} FROM receipts WHERE room_nid = ? AND user_nid = ? AND kind = ? AND thread = ?"


class ReceiptRow(NamedTuple):
    """A receipt; `thread` is '' for one without thread."""

    room_nid: int
    user_nid: int
    kind: str
    thread: str
    receipt_nid: int
    event_id: str
    ts: int


def receipt_rows(row: ReceiptRow) -> Rows:
    """Give the row that sets a receipt."""
    return Rows(PUT, (row._replace(thread=escape(row.thread), event_id=escape(row.event_id)),))


def of_rooms(tx: Transaction, room_nids: Collection[int]) -> list[ReceiptRow]:
    """Give all receipts of rooms."""
    return [_receipt(row) for row in tx.all(_OF_ROOM, (list(room_nids),))] if room_nids else []


def by_nids(tx: Transaction, nids: Sequence[int]) -> list[ReceiptRow]:
    """Give the receipts of these numbers that no newer one has replaced."""
    return [_receipt(row) for row in tx.all(_BY_NID, (list(nids),))] if nids else []


def one(tx: Transaction, room_nid: int, user_nid: int, kind: str, thread: str) -> ReceiptRow | None:
    """Give a user's receipt of one kind and thread."""
    row = tx.one(_ONE, (room_nid, user_nid, kind, escape(thread)))
    return None if row is None else _receipt(row)


def _receipt(row: Row) -> ReceiptRow:
    found = ReceiptRow(*row)
    return found._replace(thread=unescape(found.thread), event_id=unescape(found.event_id))
