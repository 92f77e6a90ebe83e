"""Messages that wait for devices, in the order of the feed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from storage.database import Transaction
from storage.feed import Kind
from storage.rows import Rows, Statement
from storage.text import escape

PUT = Statement("INSERT INTO to_device (user_nid, device_id, message_nid, content) VALUES (?, ?, ?, ?)")
PUT_RECEIVED = Statement("INSERT INTO received_messages (origin, message_id, ts) VALUES (?, ?, ?)")
_IS_RECEIVED = "SELECT 1 FROM received_messages WHERE origin = ? AND message_id = ?"
_FORGET_RECEIVED = "DELETE FROM received_messages WHERE ts < ?"
_AFTER = (
    "SELECT f.pos, m.content FROM to_device AS m JOIN feed AS f ON f.ref = m.message_nid"
    f" AND f.kind = {int(Kind.TO_DEVICE)} WHERE m.user_nid = ? AND m.device_id = ? AND f.pos > ?"
    " ORDER BY f.pos LIMIT ?"
)
_DELETE = (
    "DELETE FROM to_device WHERE user_nid = ? AND device_id = ? AND message_nid IN"
    f" (SELECT ref FROM feed WHERE kind = {int(Kind.TO_DEVICE)} AND user_nid = ? AND pos <= ?)"
)
_DELETE_DEVICE = "DELETE FROM to_device WHERE user_nid = ? AND device_id IN ?"
_COUNT = "SELECT count(*) FROM to_device WHERE user_nid = ? AND device_id = ?"

_WAITING = (
    "SELECT device_id, count(*), sum(length(content)) FROM to_device WHERE user_nid = ? AND device_id IN ?"
    " GROUP BY device_id"
)
_KEEP_NEWEST = (
    "DELETE FROM to_device WHERE user_nid = ? AND device_id = ? AND message_nid NOT IN"
    " (SELECT message_nid FROM to_device WHERE user_nid = ? AND device_id = ?"
    " ORDER BY message_nid DESC LIMIT ?)"
)


class ToDeviceRow(NamedTuple):
    """A message for a device."""

    user_nid: int
    device_id: str
    message_nid: int
    content: bytes


def message_rows(*rows: ToDeviceRow) -> Rows:
    """Give the rows of messages; each needs a feed entry of kind TO_DEVICE with its number."""
    return Rows(PUT, rows)


def received_rows(origin: str, message_id: str, now: int) -> Rows:
    """Give the row by which a repeat of another server's message is known."""
    return Rows(PUT_RECEIVED, ((origin, escape(message_id), now),))


def is_received(tx: Transaction, origin: str, message_id: str) -> bool:
    """Tell whether another server's message came before."""
    return tx.one(_IS_RECEIVED, (origin, escape(message_id))) is not None


def forget_received(tx: Transaction, before: int) -> int:
    """Drop names of messages taken in before a time."""
    return tx.execute(_FORGET_RECEIVED, (before,))


def after(tx: Transaction, user_nid: int, device_id: str, pos: int, limit: int) -> list[tuple[int, bytes]]:
    """Give messages for a device behind a position of the feed, oldest first, with their positions."""
    found = tx.all(_AFTER, (user_nid, device_id, pos, limit))
    return [(int(row[0]), bytes(row[1])) for row in found]


def delete(tx: Transaction, user_nid: int, device_id: str, upto: int) -> int:
    """Drop a device's messages up to a position of the feed."""
    return tx.execute(_DELETE, (user_nid, device_id, user_nid, upto))


def delete_devices(tx: Transaction, user_nid: int, device_ids: Collection[str]) -> int:
    """Drop all messages for devices that are gone."""
    return tx.execute(_DELETE_DEVICE, (user_nid, list(device_ids))) if device_ids else 0


def waiting(tx: Transaction, user_nid: int, device_ids: Collection[str]) -> Mapping[str, tuple[int, int]]:
    """Tell how many messages, and bytes, wait for each of a user's devices that has any."""
    rows = tx.all(_WAITING, (user_nid, list(device_ids))) if device_ids else []
    return {str(row[0]): (int(row[1]), int(row[2])) for row in rows}


def keep_newest(tx: Transaction, user_nid: int, device_id: str, keep: int) -> int:
    """Drop all messages for a device but the newest."""
    return tx.execute(_KEEP_NEWEST, (user_nid, device_id, user_nid, device_id, keep))


def count(tx: Transaction, user_nid: int, device_id: str) -> int:
    """Tell how many messages wait for a device."""
    row = tx.one(_COUNT, (user_nid, device_id))
    return int(row[0]) if row is not None else 0
