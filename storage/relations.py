"""Relations between events, in few columns and across rooms; and the threads of a room."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from storage.client_events import Place
from storage.database import Transaction
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
_THREADS = (
    "SELECT e.thread, e.depth, e.event_nid FROM events AS e WHERE e.room_nid = ? AND e.status = 0"
    " AND e.thread IS NOT NULL AND e.rel_type = 'm.thread' AND e.redacted_by IS NULL"
    " AND (e.depth, e.event_nid) < (?, ?) AND NOT EXISTS (SELECT 1 FROM events AS l"
    " WHERE l.room_nid = e.room_nid AND l.thread = e.thread AND l.status = 0 AND l.rel_type = 'm.thread'"
    " AND l.redacted_by IS NULL AND (l.depth, l.event_nid) > (e.depth, e.event_nid))"
    " ORDER BY e.depth DESC, e.event_nid DESC LIMIT ?"
)
_USERS = "SELECT user_nid FROM users WHERE user_id IN ?"


def children(tx: Transaction, parents: Sequence[tuple[int, str]], limit: int) -> list[Child]:
    """Give the children of events named by (room nid, event ID), newest first; at most `limit` in all."""
    if not parents:
        return []
    rows = tx.values(_CHILDREN.format(limit=int(limit)), [(room, escape(parent)) for room, parent in parents])
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


def threads(tx: Transaction, room_nid: int, before: Place, limit: int) -> list[Thread]:
    """Give a room's threads whose latest event comes before a place, the most recent first."""
    rows = tx.all(_THREADS, (room_nid, *before, limit))
    return [Thread(unescape(row[0]), row[1], row[2]) for row in rows]


def user_nids(tx: Transaction, user_ids: Sequence[str]) -> set[int]:
    """Give the numbers of those users that have one."""
    return {row[0] for row in tx.all(_USERS, ([escape(user) for user in user_ids],))} if user_ids else set()
