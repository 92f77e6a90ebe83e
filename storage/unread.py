"""What unread counts are made of: verdicts that differ from the rule, markers, and the events after them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from storage.client_events import Place
from storage.database import Dialect, Transaction
from storage.memberships import Membership
from storage.rows import Rows, Statement
from storage.text import escape, unescape

INSERT = Statement(
    "INSERT INTO unread_verdicts (user_nid, room_nid, event_nid, depth, thread, notify, highlight)"
    " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
)
SET_CLASS = Statement("UPDATE events SET class = ? WHERE room_nid = ? AND event_nid = ?")

_JOINS = (
    "SELECT m.room_nid, e.depth, e.event_nid FROM memberships AS m JOIN events AS e"
    " ON e.room_nid = m.room_nid AND e.event_nid = m.event_nid"
    f" WHERE m.user_nid = ? AND m.room_nid IN ? AND m.membership = {int(Membership.JOIN)}"
)
_MARKERS = (
    "SELECT r.room_nid, r.thread, e.depth, e.event_nid FROM receipts AS r JOIN events AS e"
    " ON e.room_nid = r.room_nid AND e.event_id = r.event_id WHERE r.user_nid = ? AND r.room_nid IN ?"
)
_AFTER = (
    "SELECT room_nid, depth, event_nid, class, sender_nid, thread FROM events"
    " WHERE room_nid = ? AND status = 0 AND class > 0 AND redacted_by IS NULL"
    " AND (depth, event_nid) > (?, ?) ORDER BY depth DESC, event_nid DESC LIMIT ?"
)
_AFTER_IN_MANY = (
    "SELECT e.room_nid, e.depth, e.event_nid, e.class, e.sender_nid, e.thread"
    " FROM ( VALUES ?) AS w(room_nid, depth, event_nid, n) CROSS JOIN LATERAL (SELECT * FROM events AS a"
    " WHERE a.room_nid = w.room_nid AND a.status = 0 AND a.class > 0 AND a.redacted_by IS NULL"
    " AND (a.depth, a.event_nid) > (w.depth, w.event_nid)"
    " ORDER BY a.depth DESC, a.event_nid DESC LIMIT w.n) AS e"
)
_VERDICTS = (
    "SELECT v.room_nid, v.event_nid, v.depth, v.thread, v.notify, v.highlight, e.sender_nid"
    " FROM unread_verdicts AS v"
    " JOIN events AS e ON e.room_nid = v.room_nid AND e.event_nid = v.event_nid"
    " WHERE v.user_nid = ? AND v.room_nid IN ? AND e.redacted_by IS NULL"
)
_DROP = "DELETE FROM unread_verdicts WHERE user_nid = ? AND room_nid = ? AND (depth, event_nid) <= (?, ?)"


class VerdictRow(NamedTuple):
    """A verdict on one event for one user."""

    user_nid: int
    room_nid: int
    event_nid: int
    depth: int
    thread: str | None
    notify: int
    highlight: int


class Counted(NamedTuple):
    """An event that may count."""

    depth: int
    nid: int
    event_class: int
    sender_nid: int
    thread: str | None


class Special(NamedTuple):
    """A verdict as it is read back."""

    room_nid: int
    nid: int
    depth: int
    thread: str | None
    notify: int
    highlight: int
    sender_nid: int


def verdict_rows(rows: Sequence[VerdictRow]) -> Rows:
    """Give the rows of verdicts."""
    return Rows(
        INSERT,
        tuple(row._replace(thread=None if row.thread is None else escape(row.thread)) for row in rows),
    )


def class_rows(event_class: int, room_nid: int, event_nid: int) -> Rows:
    """Give the row that changes an event's class; the event is written in the same transaction."""
    return Rows(SET_CLASS, ((event_class, room_nid, event_nid),))


def joins(tx: Transaction, user_nid: int, room_nids: Sequence[int]) -> dict[int, Place]:
    """Give the place of the user's own member event in rooms the user is joined in."""
    rows = tx.all(_JOINS, (user_nid, list(room_nids)))
    return {row[0]: (row[1], row[2]) for row in rows}


def markers(tx: Transaction, user_nid: int, room_nids: Sequence[int]) -> dict[int, dict[str, Place]]:
    """Give how far the user has read in rooms, by thread; '' stands for the whole room."""
    found: dict[int, dict[str, Place]] = {}
    for room_nid, thread, depth, nid in tx.all(_MARKERS, (user_nid, list(room_nids))):
        by_thread, name = found.setdefault(room_nid, {}), unescape(thread)
        by_thread[name] = max(by_thread.get(name, (-1, 0)), (depth, nid))
    return found


def after(tx: Transaction, places: Mapping[int, Place], limit: int) -> dict[int, list[Counted]]:
    """Give the events that may count after a place in each room, the newest first."""
    wanted = [(room_nid, *place, limit) for room_nid, place in places.items()]
    if tx.dialect is Dialect.POSTGRES:
        rows = tx.values(_AFTER_IN_MANY, wanted)
    else:
        rows = [row for args in wanted for row in tx.all(_AFTER, args)]
    found: dict[int, list[Counted]] = {room_nid: [] for room_nid in places}
    for room_nid, depth, nid, event_class, sender_nid, thread in rows:
        name = None if thread is None else unescape(thread)
        found[room_nid].append(Counted(depth, nid, event_class, sender_nid, name))
    for events in found.values():
        events.sort(reverse=True)
    return found


def verdicts(tx: Transaction, user_nid: int, room_nids: Sequence[int]) -> list[Special]:
    """Give all verdicts kept for a user in rooms."""
    return [
        Special(room, nid, depth, None if thread is None else unescape(thread), *rest)
        for room, nid, depth, thread, *rest in tx.all(_VERDICTS, (user_nid, list(room_nids)))
    ]


def drop_read(tx: Transaction, user_nid: int, room_nid: int, place: Place) -> None:
    """Drop the verdicts on events up to a place."""
    tx.execute(_DROP, (user_nid, room_nid, *place))
