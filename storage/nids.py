"""Interned names: short numbers for users, rooms and events.

Numbers come in blocks from the table of counters; a name gets its number by unique key in one
transaction, so that two workers can never give one name two numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from storage.database import Transaction, parts_of
from storage.rows import Rows, Statement
from storage.text import escape, unescape

EVENT_NUMBERS = "event"
USER_NUMBERS = "user"
ROOM_NUMBERS = "room"
RECEIPT_NUMBERS = "receipt"
MESSAGE_NUMBERS = "message"

_TAKE = """
    INSERT INTO counters (name, next) VALUES (?, ?)
    ON CONFLICT (name) DO UPDATE SET next = counters.next + excluded.next - 1 RETURNING next
"""
_USERS = "SELECT user_id, user_nid FROM users WHERE user_id IN ?"
_USER_IDS = "SELECT user_nid, user_id FROM users WHERE user_nid IN ?"
_NEW_USERS = (
    "INSERT INTO users (user_nid, user_id) VALUES ? ON CONFLICT DO NOTHING RETURNING user_id, user_nid"
)
_ROOM_BY_ID = "SELECT room_nid, room_id, version FROM rooms WHERE room_id = ?"
_ROOM_BY_NID = "SELECT room_nid, room_id, version FROM rooms WHERE room_nid = ?"

INSERT_ROOM = Statement("INSERT INTO rooms (room_nid, room_id, version) VALUES (?, ?, ?)")
_NEW_ROOM = "INSERT INTO rooms (room_nid, room_id, version) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"


class RoomRow(NamedTuple):
    """A room known here."""

    room_nid: int
    room_id: str
    version: str


def take(tx: Transaction, name: str, count: int) -> int:
    """Take `count` numbers of one kind and give the first; they are never handed out again."""
    row = tx.one(_TAKE, (name, count + 1))
    assert row is not None
    return int(row[0]) - count


def users(tx: Transaction, user_ids: Sequence[str]) -> dict[str, int]:
    """Give the nids of those users that have one."""
    parts = parts_of([escape(each) for each in user_ids])
    return {unescape(row[0]): row[1] for part in parts for row in tx.all(_USERS, (part,))}


def user_ids(tx: Transaction, user_nids: Sequence[int]) -> dict[int, str]:
    """Give the user IDs of nids."""
    parts = parts_of(user_nids)
    return {row[0]: unescape(row[1]) for part in parts for row in tx.all(_USER_IDS, (part,))}


def intern_users(tx: Transaction, wanted: Iterable[str]) -> dict[str, int]:
    """Give the nids of users, making those that are missing."""
    names = set(wanted)
    found = users(tx, list(names))
    missing = names - found.keys()
    return found | new_users(tx, missing) if missing else found


def new_users(tx: Transaction, missing: Iterable[str]) -> dict[str, int]:
    """Make the nids of users that had none a moment ago; those that got theirs meanwhile keep it."""
    names = sorted(set(missing))
    first = take(tx, USER_NUMBERS, len(names))
    made = tx.values(_NEW_USERS, [(nid, escape(name)) for nid, name in enumerate(names, first)])
    found = {unescape(row[0]): row[1] for row in made}
    return found | users(tx, [name for name in names if name not in found])


def room_by_id(tx: Transaction, room_id: str) -> RoomRow | None:
    """Look a room up by its ID."""
    row = tx.one(_ROOM_BY_ID, (escape(room_id),))
    return None if row is None else RoomRow(row[0], unescape(row[1]), row[2])


def room_by_nid(tx: Transaction, room_nid: int) -> RoomRow | None:
    """Look a room up by its nid."""
    row = tx.one(_ROOM_BY_NID, (room_nid,))
    return None if row is None else RoomRow(row[0], unescape(row[1]), row[2])


def intern_room(tx: Transaction, room_id: str, version: str) -> RoomRow:
    """Give the room of this ID, making it with `version` if it is new."""
    known = room_by_id(tx, room_id)
    if known is None:
        nid = take(tx, ROOM_NUMBERS, 1)
        tx.execute(_NEW_ROOM, (nid, escape(room_id), version))
        known = room_by_id(tx, room_id)
    assert known is not None
    return known


def room_rows(room_nid: int, room_id: str, version: str) -> Rows:
    """Give the row of a room made here, whose ID cannot be known elsewhere yet."""
    return Rows(INSERT_ROOM, ((room_nid, escape(room_id), version),))
