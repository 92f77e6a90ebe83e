"""Relations between events, in few columns and across rooms; and the threads of a room."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from attrs import frozen

from storage.client_events import CLIENT_COLUMNS, ClientEventRow, Place
from storage.database import Transaction
from storage.plans import Often
from storage.text import escape, unescape


class Child(NamedTuple):
    """An accepted event that relates to another and is not redacted."""

    room_nid: int
    parent_id: str
    nid: int
    event_id: str
    depth: int
    ts: int
    rel_type: str
    type: str
    sender_nid: int
    is_state: bool


class Thread(NamedTuple):
    """A thread of a room: its root, and the place of its latest event."""

    root_id: str
    depth: int
    nid: int


_CHILDREN = (
    "WITH wanted(room_nid, parent) AS ( VALUES ?)"
    " SELECT e.room_nid, e.relates_to, e.event_nid, e.event_id, e.depth, e.ts, e.rel_type, e.type,"
    " e.sender_nid, e.state_key IS NOT NULL FROM wanted JOIN events AS e"
    " ON e.room_nid = wanted.room_nid AND e.relates_to = wanted.parent"
    " WHERE e.status = 0 AND e.redacted_by IS NULL"
    " ORDER BY e.depth DESC, e.event_nid DESC LIMIT {limit}"
)
# The plus keeps SQLite from going through the whole room in the order asked for.
_CHILDREN_IN_ROOM = Often(
    "SELECT e.room_nid, e.relates_to, e.event_nid, e.event_id, e.depth, e.ts, e.rel_type, e.type,"
    " e.sender_nid, e.state_key IS NOT NULL FROM events AS e"
    " WHERE e.room_nid = ? AND e.relates_to IN ? AND e.status = 0 AND e.redacted_by IS NULL"
    " ORDER BY +e.depth DESC, e.event_nid DESC LIMIT ?"
)
_THREADS = (
    "SELECT e.thread, e.depth, e.event_nid FROM events AS e WHERE e.room_nid = ? AND e.status = 0"
    " AND e.thread IS NOT NULL AND e.rel_type = 'm.thread' AND e.redacted_by IS NULL"
    " AND (? < 0 OR EXISTS (SELECT 1 FROM events AS own WHERE own.room_nid = e.room_nid"
    " AND own.sender_nid = ? AND own.status = 0 AND (own.event_id = e.thread OR (own.thread = e.thread"
    " AND own.rel_type = 'm.thread' AND own.redacted_by IS NULL))))"
    " AND (e.depth, e.event_nid) < (?, ?) AND NOT EXISTS (SELECT 1 FROM events AS l"
    " WHERE l.room_nid = e.room_nid AND l.thread = e.thread AND l.status = 0 AND l.rel_type = 'm.thread'"
    " AND l.redacted_by IS NULL AND (l.depth, l.event_nid) > (e.depth, e.event_nid))"
    " ORDER BY e.depth DESC, e.event_nid DESC LIMIT ?"
)
_OWN_CHILDREN = (
    "SELECT pdu FROM events WHERE room_nid = ? AND relates_to = ? AND rel_type = ? AND sender_nid = ?"
    " AND type = ? AND status = 0 AND redacted_by IS NULL LIMIT ?"
)
_USERS = "SELECT user_nid FROM users WHERE user_id IN ?"


def children(tx: Transaction, parents: Sequence[tuple[int, str]], limit: int) -> list[Child]:
    """Give the children of events named by (room nid, event ID), newest first; at most `limit` in all."""
    if not parents:
        return []
    if len({room for room, _ in parents}) == 1:
        args = (parents[0][0], [escape(parent) for _, parent in parents], limit)
        rows = tx.all(_CHILDREN_IN_ROOM, args)
    else:
        named = [(room, escape(parent)) for room, parent in parents]
        rows = tx.values(_CHILDREN.format(limit=int(limit)), named)
    return [
        Child(
            row[0],
            unescape(row[1]),
            row[2],
            row[3],
            row[4],
            row[5],
            unescape(row[6]),
            unescape(row[7]),
            row[8],
            bool(row[9]),
        )
        for row in rows
        if row[6] is not None
    ]


class Kinship(NamedTuple):
    """How events of one sender relate to another."""

    room_nid: int
    parent_id: str
    rel_type: str
    sender_nid: int
    type: str


def own_children(tx: Transaction, kinship: Kinship, limit: int) -> list[bytes]:
    """Give events that relate so to another, as PDUs; at most `limit`."""
    named = kinship._replace(parent_id=escape(kinship.parent_id), type=escape(kinship.type))
    return [bytes(row[0]) for row in tx.all(_OWN_CHILDREN, (*named, limit))]


def threads(tx: Transaction, room_nid: int, before: Place, limit: int, by: int | None = None) -> list[Thread]:
    """Give a room's threads whose latest event comes before a place, the most recent first.

    `by` is the number of a user who must have taken part; None: anybody's.
    """
    sender = -1 if by is None else by
    rows = tx.all(_THREADS, (room_nid, sender, sender, *before, limit))
    return [Thread(unescape(row[0]), row[1], row[2]) for row in rows]


def user_nids(tx: Transaction, user_ids: Sequence[str]) -> set[int]:
    """Give the numbers of those users that have one."""
    return {row[0] for row in tx.all(_USERS, ([escape(user) for user in user_ids],))} if user_ids else set()


_PAGE = (
    "SELECT {columns} FROM events AS e WHERE e.room_nid = ? AND e.relates_to IN ? AND e.status = 0"
    " AND e.redacted_by IS NULL AND (? = '' OR e.rel_type = ?) AND (? = '' OR e.type = ?)"
    " AND (e.depth, e.event_nid) {side} (?, ?) ORDER BY e.depth {order}, e.event_nid {order} LIMIT ?"
)
_CHILD_IDS = (
    "SELECT e.event_id FROM events AS e WHERE e.room_nid = ? AND e.relates_to IN ? AND e.status = 0"
    " AND e.redacted_by IS NULL ORDER BY e.event_nid LIMIT ?"
)


@frozen
class Sought:
    """Which children are asked for: of these parents, of a relation and type (None: of any)."""

    room_nid: int
    parents: Sequence[str]
    rel_type: str | None
    type: str | None


def page(
    tx: Transaction, sought: Sought, start: Place, *, backwards: bool, limit: int
) -> list[ClientEventRow]:
    """Give children before a place, newest first; or not before it, oldest first."""
    rel_type, kind = escape(sought.rel_type or ""), escape(sought.type or "")
    sql = _PAGE.format(
        columns=CLIENT_COLUMNS, side="<" if backwards else ">=", order="DESC" if backwards else "ASC"
    )
    parents = [escape(parent) for parent in sought.parents]
    rows = tx.all(sql, (sought.room_nid, parents, rel_type, rel_type, kind, kind, *start, limit))
    return [ClientEventRow._make(row) for row in rows]


def descendants(
    tx: Transaction, room_nid: int, event_id: str, levels: int, limit: int
) -> tuple[list[str], int]:
    """Give an event and its descendants some levels down, at most `limit`, and the levels looked at."""
    found = dict.fromkeys([event_id])
    level, depth = [event_id], 0
    while level and depth < levels and len(found) < limit:
        depth += 1
        rows = tx.all(_CHILD_IDS, (room_nid, [escape(each) for each in level], limit - len(found)))
        level = [row[0] for row in rows if row[0] not in found]
        found |= dict.fromkeys(level)
    return list(found), depth
