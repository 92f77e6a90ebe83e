"""Stretches of the feed as `/sync` reads them: the newest entries of many rooms in one go.

For each room asked, the newest events and state changes within bounds; one query on PostgreSQL, one
short indexed query a room on SQLite, where a query costs no trip.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from storage.database import Dialect, Row, Transaction
from storage.feed import Entry, HeadMark, Kind

_COLUMNS = "f.pos, f.kind, f.flags, f.room_nid, f.user_nid, f.ref, f.root, f.head"
_CHANGES = f"({int(Kind.EVENT)}, {int(Kind.STATE)})"
_NEWEST = (
    f"SELECT {_COLUMNS} FROM feed AS f WHERE f.room_nid = ? AND f.pos > ? AND f.pos <= ?"
    f" AND f.kind IN {_CHANGES} ORDER BY f.pos DESC LIMIT ?"
)
_NEWEST_OF_MANY = (
    f"SELECT {_COLUMNS} FROM ( VALUES ?) AS w(room_nid, after, upto, n) CROSS JOIN LATERAL"
    " (SELECT * FROM feed AS e WHERE e.room_nid = w.room_nid AND e.pos > w.after AND e.pos <= w.upto"
    f" AND e.kind IN {_CHANGES} ORDER BY e.pos DESC LIMIT w.n) AS f"
)
_RECEIPTS = (
    "SELECT room_nid, ref FROM feed WHERE room_nid IN ? AND pos > ? AND pos <= ?"
    f" AND kind = {int(Kind.RECEIPT)} ORDER BY pos DESC LIMIT ?"
)
_OWN = (
    f"SELECT {_COLUMNS} FROM feed AS f WHERE f.user_nid = ? AND f.pos > ? AND f.pos <= ?"
    " ORDER BY f.pos DESC LIMIT ?"
)
_DEVICE_LISTS = (
    f"SELECT DISTINCT user_nid FROM feed WHERE kind = {int(Kind.DEVICE_LIST)} AND kind >= 16"
    " AND pos > ? AND pos <= ? LIMIT ?"
)
_OWN_LAST = (
    f"SELECT max(pos), room_nid FROM feed WHERE user_nid = ? AND kind IN {_CHANGES} AND room_nid IN ?"
    " AND pos <= ? GROUP BY room_nid"
)


@frozen
class Bounds:
    """What to read of a room: at most the newest `n` entries with `after < pos <= upto`."""

    room_nid: int
    after: int
    upto: int
    n: int


def _entry(row: Row) -> Entry:
    pos, kind, flags, room_nid, user_nid, ref, root, head = row
    mark = None if head is None else HeadMark.unpack(head)
    return Entry(pos, kind, flags, room_nid, user_nid, ref, root, mark)


def newest(tx: Transaction, wanted: Sequence[Bounds]) -> dict[int, list[Entry]]:
    """Give the newest events and state changes of each room, newest first; at most one `Bounds` a room."""
    found: dict[int, list[Entry]] = {bounds.room_nid: [] for bounds in wanted}
    rows = [(bounds.room_nid, bounds.after, bounds.upto, bounds.n) for bounds in wanted]
    if tx.dialect is Dialect.POSTGRES:
        for row in tx.values(_NEWEST_OF_MANY, rows):
            found[row[3]].append(_entry(row))
        for entries in found.values():
            entries.sort(key=lambda entry: -entry.pos)
    else:
        for args in rows:
            found[args[0]] = [_entry(row) for row in tx.all(_NEWEST, args)]
    return found


def receipts(
    tx: Transaction, room_nids: Sequence[int], after: int, upto: int, limit: int
) -> dict[int, set[int]]:
    """Give the numbers of receipts that came between two positions, by room; at most `limit`, the newest."""
    found: dict[int, set[int]] = {}
    if room_nids:
        for room_nid, ref in tx.all(_RECEIPTS, (list(room_nids), after, upto, limit)):
            found.setdefault(room_nid, set()).add(ref)
    return found


def own(tx: Transaction, user_nid: int, after: int, upto: int, limit: int) -> list[Entry]:
    """Give a user's entries, oldest first; at most `limit`, the newest."""
    return [_entry(row) for row in reversed(tx.all(_OWN, (user_nid, after, upto, limit)))]


def device_list_users(tx: Transaction, after: int, upto: int, limit: int) -> set[int]:
    """Give the users whose devices or keys changed."""
    return {row[0] for row in tx.all(_DEVICE_LISTS, (after, upto, limit))}


def own_last(tx: Transaction, user_nid: int, room_nids: Sequence[int], upto: int) -> dict[int, int]:
    """Give the position of the user's last membership change in each room."""
    if not room_nids:
        return {}
    return {row[1]: row[0] for row in tx.all(_OWN_LAST, (user_nid, list(room_nids), upto))}


_ROOT_AT = (
    "SELECT f.root FROM feed AS f WHERE f.room_nid = ? AND f.pos <= ? AND f.root IS NOT NULL"
    " ORDER BY f.pos DESC LIMIT 1"
)
_ROOTS_AT = (
    "SELECT w.room_nid, f.root FROM ( VALUES ?) AS w(room_nid, pos) CROSS JOIN LATERAL"
    " (SELECT root FROM feed AS e WHERE e.room_nid = w.room_nid AND e.pos <= w.pos AND e.root IS NOT NULL"
    " ORDER BY e.pos DESC LIMIT 1) AS f"
)


def roots_at(tx: Transaction, wanted: Sequence[tuple[int, int]]) -> dict[int, bytes]:
    """Give the resolved state of rooms at a position each; rooms with no state yet are absent."""
    if not wanted:
        return {}
    if tx.dialect is Dialect.POSTGRES:
        return {row[0]: bytes(row[1]) for row in tx.values(_ROOTS_AT, wanted)}
    rows = [(room_nid, tx.one(_ROOT_AT, (room_nid, pos))) for room_nid, pos in wanted]
    return {room_nid: bytes(row[0]) for room_nid, row in rows if row is not None}


_MOVERS = (
    "SELECT DISTINCT user_nid, room_nid FROM feed WHERE room_nid IN ? AND pos > ? AND pos <= ?"
    f" AND kind IN {_CHANGES} AND user_nid IS NOT NULL LIMIT ?"
)


def movers(
    tx: Transaction, room_nids: Sequence[int], after: int, upto: int, limit: int
) -> set[tuple[int, int]]:
    """Give (user, room) for memberships changed in rooms."""
    if not room_nids:
        return set()
    return {(row[0], row[1]) for row in tx.all(_MOVERS, (list(room_nids), after, upto, limit))}


_OWN_IN_ROOM = (
    f"SELECT {_COLUMNS} FROM feed AS f WHERE f.user_nid = ? AND f.room_nid = ? AND f.pos <= ?"
    f" AND f.kind IN {_CHANGES} ORDER BY f.pos DESC LIMIT ?"
)
_PLACES_UPTO = (
    "SELECT e.depth, e.event_nid FROM feed AS f JOIN events AS e ON e.room_nid = f.room_nid"
    f" AND e.event_nid = f.ref WHERE f.room_nid = ? AND f.pos <= ? AND f.kind = {int(Kind.EVENT)}"
    " ORDER BY f.pos DESC LIMIT ?"
)
_PLACES_AFTER = (
    "SELECT e.depth, e.event_nid FROM feed AS f JOIN events AS e ON e.room_nid = f.room_nid"
    f" AND e.event_nid = f.ref WHERE f.room_nid = ? AND f.pos > ? AND f.kind = {int(Kind.EVENT)}"
    " ORDER BY f.pos LIMIT ?"
)


def own_in_room(tx: Transaction, user_nid: int, room_nid: int, upto: int, limit: int) -> list[Entry]:
    """Give a user's membership entries in one room, oldest first; at most `limit`, the newest."""
    rows = tx.all(_OWN_IN_ROOM, (user_nid, room_nid, upto, limit))
    return [_entry(row) for row in reversed(rows)]


def places_upto(tx: Transaction, room_nid: int, pos: int, limit: int) -> list[tuple[int, int]]:
    """Give the places in history of the last events up to a position of the feed."""
    return [(row[0], row[1]) for row in tx.all(_PLACES_UPTO, (room_nid, pos, limit))]


def places_after(tx: Transaction, room_nid: int, pos: int, limit: int) -> list[tuple[int, int]]:
    """Give the places in history of the first events after a position of the feed."""
    return [(row[0], row[1]) for row in tx.all(_PLACES_AFTER, (room_nid, pos, limit))]
