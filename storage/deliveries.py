"""Delivery marks: how far the devices of a user have what is said in a room."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from storage.database import Row, Transaction
from storage.rows import Rows, Statement
from storage.text import escape, unescape

_COLUMNS = "room_nid, user_nid, delivery_nid, event_id, depth, event_nid, ts"
_PLACE = slice(4, 6)


def _further(earlier: Row, later: Row) -> Row:
    return max(earlier, later, key=lambda row: row[_PLACE])


PUT = Statement(
    f"INSERT INTO deliveries ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (room_nid, user_nid) DO UPDATE SET delivery_nid = excluded.delivery_nid,"
    " event_id = excluded.event_id, depth = excluded.depth, event_nid = excluded.event_nid, ts = excluded.ts"
    " WHERE (excluded.depth, excluded.event_nid) > (deliveries.depth, deliveries.event_nid)",
    key=2,
    fold=_further,
)
_BY_NID = f"SELECT {_COLUMNS} FROM deliveries WHERE delivery_nid IN ?"
_PLACE_OF = "SELECT depth, event_nid FROM deliveries WHERE room_nid = ? AND user_nid = ?"
_OF_USER = "SELECT room_nid, depth, event_nid FROM deliveries WHERE user_nid = ? AND room_nid IN ?"
_SENDERS = (
    "SELECT DISTINCT sender_nid FROM (SELECT sender_nid FROM events WHERE room_nid = ? AND status = 0"
    " AND (depth, event_nid) > (?, ?) AND (depth, event_nid) <= (?, ?)"
    " ORDER BY depth DESC, event_nid DESC LIMIT ?) AS newest"
)


class DeliveryRow(NamedTuple):
    """A mark: the last event that a user's devices have, with its place in history."""

    room_nid: int
    user_nid: int
    delivery_nid: int
    event_id: str
    depth: int
    event_nid: int
    ts: int


def delivery_rows(marks: Sequence[DeliveryRow]) -> Rows:
    """Give the rows that move marks forward; one that would go back changes nothing."""
    return Rows(PUT, tuple(mark._replace(event_id=escape(mark.event_id)) for mark in marks))


def by_nids(tx: Transaction, nids: Sequence[int]) -> list[DeliveryRow]:
    """Give the marks of these numbers that have not moved since."""
    rows = tx.all(_BY_NID, (list(nids),)) if nids else []
    return [mark._replace(event_id=unescape(mark.event_id)) for mark in map(DeliveryRow._make, rows)]


def of_user(tx: Transaction, user_nid: int, room_nids: Sequence[int]) -> dict[int, tuple[int, int]]:
    """Give where in history (depth, nid) a user's mark stands, for those of the rooms that have one."""
    rows = tx.all(_OF_USER, (user_nid, list(room_nids))) if room_nids else []
    return {room_nid: (depth, event_nid) for room_nid, depth, event_nid in rows}


def senders_up_to(
    tx: Transaction, room_nid: int, user_nid: int, place: tuple[int, int], limit: int
) -> set[int]:
    """Give who sent the events, at most the newest `limit`, from a user's mark to a place in history."""
    row = tx.one(_PLACE_OF, (room_nid, user_nid))
    start = (-1, 0) if row is None else (row[0], row[1])
    return {row[0] for row in tx.all(_SENDERS, (room_nid, *start, *place, limit))}
