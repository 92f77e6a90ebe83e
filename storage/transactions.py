"""Transaction IDs of clients: a repeated request gives the first answer.

The key is user, device, endpoint with its path parameters, and transaction ID; the WebSocket shares it.

Source: client-server-api/_index.md, "Transaction identifiers".
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from attrs import frozen

from storage.database import Row, Transaction
from storage.text import escape

_CLAIM = (
    "INSERT INTO transactions (user_nid, device_id, key, txn_id, room_nid, event_nid, event_id, ts)"
    " VALUES ? ON CONFLICT DO NOTHING RETURNING user_nid, device_id, key"
)
_FIND = (
    "SELECT room_nid, event_nid, event_id FROM transactions WHERE user_nid = ? AND device_id = ? AND key = ?"
)
_WITHDRAW = "DELETE FROM transactions WHERE user_nid = ? AND device_id = ? AND key = ?"
_OF_EVENTS = (
    "SELECT event_nid, user_nid, device_id, txn_id FROM transactions WHERE room_nid = ? AND event_nid IN ?"
)
_EXPIRE = "DELETE FROM transactions WHERE ts < ?"


@frozen
class TransactionKey:
    """What makes a request the same request: who asks, from which device, for what."""

    user_nid: int
    device_id: str
    endpoint: tuple[str, ...]
    """The endpoint's name and its path parameters but the transaction ID, decoded."""
    txn_id: str

    def row(self) -> tuple[int, str, str]:
        """Give the primary key; the parts are kept apart by JSON's quoting, so that none can pose as two."""
        return (self.user_nid, escape(self.device_id), json.dumps([*self.endpoint, self.txn_id]))


@frozen
class Claim:
    """A transaction ID about to be used, and the event it will stand for (None: another kind of request)."""

    key: TransactionKey
    ts: int
    room_nid: int | None = None
    event_nid: int | None = None
    event_id: str | None = None

    def row(self) -> Row:
        """Give the whole row; `txn_id` is JSON text, so that it survives any character."""
        txn_id = json.dumps(self.key.txn_id)
        return (*self.key.row(), txn_id, self.room_nid, self.event_nid, self.event_id, self.ts)


@frozen
class Used:
    """What an earlier request of the same key has made."""

    room_nid: int | None
    event_nid: int | None
    event_id: str | None


def claim(tx: Transaction, claims: Sequence[Claim]) -> set[tuple[int, str, str]]:
    """Take all keys that are free, in the order of the keys, and give those taken now."""
    rows = sorted((each.row() for each in claims), key=lambda row: row[:3])
    return {(row[0], row[1], row[2]) for row in tx.values(_CLAIM, rows)}


def find(tx: Transaction, key: TransactionKey) -> Used | None:
    """Look a key up."""
    row = tx.one(_FIND, key.row())
    return None if row is None else Used(*row)


def withdraw(tx: Transaction, keys: Iterable[TransactionKey]) -> None:
    """Give back keys claimed in this transaction, whose writes leave it."""
    for key in keys:
        tx.execute(_WITHDRAW, key.row())


def transaction_ids(
    tx: Transaction, room_nid: int, event_nids: Sequence[int]
) -> dict[int, tuple[int, str, str]]:
    """Give (user nid, device, transaction ID) for each of the room's events that was sent with one."""
    found = tx.all(_OF_EVENTS, (room_nid, list(event_nids))) if event_nids else []
    return {event_nid: (user_nid, device, json.loads(txn)) for event_nid, user_nid, device, txn in found}


def expire(tx: Transaction, before: int) -> int:
    """Drop transaction IDs used before this time in milliseconds, and give how many."""
    return tx.execute(_EXPIRE, (before,))
