"""Devices of local users; the keys and messages of a device that goes, go with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from storage.database import Row, Transaction, single_statement
from storage.rows import Rows, Statement
from storage.text import escape, unescape

_COLUMNS = "device_id, display_name, last_seen, last_ip, user_agent"
_OF_USER = f"SELECT {_COLUMNS} FROM devices WHERE user_nid = ? ORDER BY device_id"
_ONE = f"SELECT {_COLUMNS} FROM devices WHERE user_nid = ? AND device_id = ?"
_ENSURE = (
    "INSERT INTO devices (user_nid, device_id, display_name, last_seen) VALUES (?, ?, ?, ?)"
    " ON CONFLICT (user_nid, device_id) DO UPDATE SET last_seen = excluded.last_seen"
)
_COUNT = "SELECT count(*) FROM devices WHERE user_nid = ?"
_UNSEEN = "SELECT device_id FROM devices WHERE user_nid = ? ORDER BY coalesce(last_seen, 0) LIMIT ?"
_SEEN = (
    "UPDATE devices SET last_seen = ?, last_ip = ?, user_agent = ?"
    " WHERE user_nid = ? AND device_id = ? AND coalesce(last_seen, 0) < ?"
)

RENAME = Statement("UPDATE devices SET display_name = ? WHERE user_nid = ? AND device_id = ?")
PUT = Statement(
    "INSERT INTO devices (user_nid, device_id, display_name) VALUES (?, ?, ?)"
    " ON CONFLICT (user_nid, device_id) DO UPDATE SET display_name = excluded.display_name",
    key=2,
)
_REMOVALS = tuple(
    Statement(f"DELETE FROM {table} WHERE user_nid = ? AND device_id = ?")
    for table in ("devices", "sessions", "device_keys", "one_time_keys", "fallback_keys", "to_device")
)


class DeviceRow(NamedTuple):
    """A device."""

    device_id: str
    display_name: str | None
    last_seen: int | None
    last_ip: str | None
    user_agent: str | None


class SeenRow(NamedTuple):
    """When, where and as what a device was seen."""

    user_nid: int
    device_id: str
    ts: int
    ip: str
    user_agent: str


def _device(row: Row) -> DeviceRow:
    name = None if row[1] is None else unescape(row[1])
    return DeviceRow(unescape(row[0]), name, *row[2:])


@single_statement
def of_user(tx: Transaction, user_nid: int) -> list[DeviceRow]:
    """Give all devices of a user, in order of their IDs."""
    return [_device(row) for row in tx.all(_OF_USER, (user_nid,))]


@single_statement
def one(tx: Transaction, user_nid: int, device_id: str) -> DeviceRow | None:
    """Look a device up."""
    row = tx.one(_ONE, (user_nid, escape(device_id)))
    return None if row is None else _device(row)


def ensure(tx: Transaction, user_nid: int, device_id: str, display_name: str | None, now: int) -> None:
    """Make a device unless it is there; a name it has is kept."""
    name = None if display_name is None else escape(display_name)
    tx.execute(_ENSURE, (user_nid, escape(device_id), name, now))


def longest_unseen(tx: Transaction, user_nid: int, bound: int) -> list[str]:
    """Give the devices beyond `bound`, those not seen for longest."""
    row = tx.one(_COUNT, (user_nid,))
    over = (row[0] if row is not None else 0) - bound
    return [unescape(found[0]) for found in tx.all(_UNSEEN, (user_nid, over))] if over > 0 else []


def note_seen(tx: Transaction, seen: Sequence[SeenRow]) -> None:
    """Keep when and where devices were last seen."""
    for row in seen:
        agent = escape(row.user_agent)
        tx.execute(_SEEN, (row.ts, row.ip, agent, row.user_nid, escape(row.device_id), row.ts))


def rename_rows(user_nid: int, device_id: str, display_name: str | None) -> Rows:
    """Give the row that names a device."""
    name = None if display_name is None else escape(display_name)
    return Rows(RENAME, ((name, user_nid, escape(device_id)),))


def put_rows(user_nid: int, device_id: str, display_name: str | None) -> Rows:
    """Give the row that makes or names a device."""
    name = None if display_name is None else escape(display_name)
    return Rows(PUT, ((user_nid, escape(device_id), name),))


def removal_rows(user_nid: int, device_ids: Sequence[str]) -> tuple[Rows, ...]:
    """Give the rows that remove devices, their sessions, keys and messages."""
    named = tuple((user_nid, escape(device_id)) for device_id in device_ids)
    return tuple(Rows(statement, named) for statement in _REMOVALS)
