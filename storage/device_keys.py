"""Keys of local devices: identity keys, one-time keys claimed once each, fallback keys."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from storage.database import Transaction, single_statement
from storage.text import escape, unescape

_PUT_KEYS = (
    "INSERT INTO device_keys (user_nid, device_id, keys) VALUES (?, ?, ?)"
    " ON CONFLICT (user_nid, device_id) DO UPDATE SET keys = excluded.keys"
)
_KEYS_OF = (
    "SELECT k.user_nid, k.device_id, k.keys, d.display_name FROM device_keys AS k LEFT JOIN devices AS d"
    " ON d.user_nid = k.user_nid AND d.device_id = k.device_id WHERE k.user_nid IN ?"
)
_LIST = (
    "SELECT d.device_id, k.keys, s.stream_id FROM users AS u"
    " LEFT JOIN device_list_streams AS s ON s.user_nid = u.user_nid"
    " LEFT JOIN devices AS d ON d.user_nid = u.user_nid"
    " LEFT JOIN device_keys AS k ON k.user_nid = d.user_nid AND k.device_id = d.device_id"
    " WHERE u.user_id = ? ORDER BY d.device_id"
)
_PUT_ONE_TIME = (
    "INSERT INTO one_time_keys (user_nid, device_id, algorithm, key_id, place, key) VALUES (?, ?, ?, ?, ?, ?)"
)
_HELD = "SELECT algorithm, key_id, key FROM one_time_keys WHERE user_nid = ? AND device_id = ?"
_PLACE = "SELECT coalesce(max(place), 0) FROM one_time_keys WHERE user_nid = ? AND device_id = ?"
_COUNTS = (
    "SELECT algorithm, count(*) FROM one_time_keys WHERE user_nid = ? AND device_id = ? GROUP BY algorithm"
)
_CLAIM = (
    "DELETE FROM one_time_keys WHERE user_nid = ? AND device_id = ? AND algorithm = ? AND key_id ="
    " (SELECT key_id FROM one_time_keys WHERE user_nid = ? AND device_id = ? AND algorithm = ?"
    " ORDER BY place LIMIT 1 FOR UPDATE) RETURNING key_id, key"
)
_PUT_FALLBACK = (
    "INSERT INTO fallback_keys (user_nid, device_id, algorithm, key_id, key, used) VALUES (?, ?, ?, ?, ?, 0)"
    " ON CONFLICT (user_nid, device_id, algorithm) DO UPDATE SET key_id = excluded.key_id,"
    " key = excluded.key,"
    " used = CASE WHEN fallback_keys.key = excluded.key THEN fallback_keys.used ELSE 0 END"
)
_USE_FALLBACK = (
    "UPDATE fallback_keys SET used = 1 WHERE user_nid = ? AND device_id = ? AND algorithm = ?"
    " RETURNING key_id, key"
)
_UNUSED = "SELECT algorithm FROM fallback_keys WHERE user_nid = ? AND device_id = ? AND used = 0"
_TABLES = ("device_keys", "one_time_keys", "fallback_keys")

_COUNT_CHANGES = (
    "INSERT INTO device_list_streams (user_nid, stream_id) VALUES (?, ?)"
    " ON CONFLICT (user_nid) DO UPDATE SET stream_id = device_list_streams.stream_id + excluded.stream_id"
    " RETURNING stream_id"
)


class OneTimeKey(NamedTuple):
    """A key that is handed out once."""

    algorithm: str
    key_id: str
    key: bytes


class FallbackKey(NamedTuple):
    """A key that is handed out when no other is left."""

    algorithm: str
    key_id: str
    key: bytes


class KeysOfDevice(NamedTuple):
    """Identity keys of a device."""

    user_nid: int
    device_id: str
    keys: bytes
    display_name: str | None


class DeviceList(NamedTuple):
    """A user's devices, and how often they have changed."""

    stream_id: int
    keys: Sequence[tuple[str, bytes]]
    """Identity keys by device, of those that have any."""


@single_statement
def list_of(tx: Transaction, user_id: str) -> DeviceList | None:
    """Give a local user's device list; None for who never had a device."""
    rows = tx.all(_LIST, (escape(user_id),))
    if not rows or (rows[0][0] is None and rows[0][2] is None):
        return None
    return DeviceList(
        rows[0][2] or 0, [(unescape(row[0]), bytes(row[1])) for row in rows if row[1] is not None]
    )


def keys_of(tx: Transaction, user_nids: Collection[int]) -> list[KeysOfDevice]:
    """Give the identity keys of all devices of users."""
    rows = tx.all(_KEYS_OF, (list(user_nids),)) if user_nids else []
    return [
        KeysOfDevice(row[0], row[1], bytes(row[2]), None if row[3] is None else unescape(row[3]))
        for row in rows
    ]


def put_keys(tx: Transaction, user_nid: int, device_id: str, keys: bytes) -> None:
    """Set the identity keys of a device."""
    tx.execute(_PUT_KEYS, (user_nid, device_id, keys))


def held(tx: Transaction, user_nid: int, device_id: str) -> dict[tuple[str, str], bytes]:
    """Give a device's unclaimed one-time keys, by algorithm and key ID."""
    return {(row[0], row[1]): bytes(row[2]) for row in tx.all(_HELD, (user_nid, device_id))}


def add_one_time(tx: Transaction, user_nid: int, device_id: str, keys: Sequence[OneTimeKey]) -> None:
    """Add one-time keys, to be claimed in this order after those that are there."""
    row = tx.one(_PLACE, (user_nid, device_id))
    place = int(row[0]) + 1 if row is not None else 1
    tx.many(
        _PUT_ONE_TIME,
        [
            (user_nid, device_id, key.algorithm, key.key_id, place + number, key.key)
            for number, key in enumerate(keys)
        ],
    )


def put_fallback(tx: Transaction, user_nid: int, device_id: str, keys: Sequence[FallbackKey]) -> None:
    """Set fallback keys; the same key again stays used if it was."""
    for key in keys:
        tx.execute(_PUT_FALLBACK, (user_nid, device_id, key.algorithm, key.key_id, key.key))


def counts(tx: Transaction, user_nid: int, device_id: str) -> Mapping[str, int]:
    """Count unclaimed one-time keys by algorithm."""
    return {str(row[0]): int(row[1]) for row in tx.all(_COUNTS, (user_nid, device_id))}


def unused_fallback(tx: Transaction, user_nid: int, device_id: str) -> list[str]:
    """Give the algorithms whose fallback key was never handed out."""
    return [str(row[0]) for row in tx.all(_UNUSED, (user_nid, device_id))]


def claim(tx: Transaction, user_nid: int, device_id: str, algorithm: str) -> OneTimeKey | None:
    """Hand out the oldest one-time key, or the fallback key; None if the device has neither.

    The key is deleted by the statement that reads it, so it is given out once, whoever asks meanwhile.
    """
    name = (user_nid, device_id, algorithm)
    row = tx.one(_CLAIM, (*name, *name)) or tx.one(_USE_FALLBACK, name)
    return None if row is None else OneTimeKey(algorithm, row[0], bytes(row[1]))


def next_streams(tx: Transaction, user_nid: int, count: int) -> int:
    """Count changes of a user's devices, and give the number of the last, which no other change has."""
    row = tx.one(_COUNT_CHANGES, (user_nid, count))
    assert row is not None
    return int(row[0])


def delete_devices(tx: Transaction, user_nid: int, device_ids: Collection[str]) -> None:
    """Drop all keys of devices that are gone."""
    for table in _TABLES if device_ids else ():
        tx.execute(f"DELETE FROM {table} WHERE user_nid = ? AND device_id IN ?", (user_nid, list(device_ids)))
