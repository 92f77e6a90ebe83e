"""Transaction IDs of clients: a repeated request gives the first answer.

The key is user, device, endpoint with its path parameters, and transaction ID; the WebSocket shares it.

Source: client-server-api/_index.md, "Transaction identifiers".
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from attrs import frozen

from storage.database import Row, Transaction
from storage.plans import Often
from storage.rows import Rows, Statement
from storage.text import escape, unescape

_CLAIM = Often(
    "INSERT INTO transactions (user_nid, device_id, key, room_nid, event_nid, event_id, ts)"
    " VALUES ? ON CONFLICT DO NOTHING RETURNING user_nid, device_id, key"
)
_FIND = (
    "SELECT room_nid, event_nid, event_id FROM transactions WHERE user_nid = ? AND device_id = ? AND key = ?"
)
_WITHDRAW = "DELETE FROM transactions WHERE user_nid = ? AND device_id = ? AND key = ?"
_OF_EVENTS = (
    "SELECT event_nid, user_nid, device_id, key FROM transactions WHERE room_nid = ? AND event_nid IN ?"
)
_COMPLETE = Statement(
    "INSERT INTO transactions (user_nid, device_id, key, room_nid, event_nid, event_id, ts)"
    " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (user_nid, device_id, key) DO UPDATE"
    " SET room_nid = excluded.room_nid, event_nid = excluded.event_nid, event_id = excluded.event_id"
)
_EXPIRE = "DELETE FROM transactions WHERE ts < ?"


class TransactionKey(NamedTuple):
    """What makes a request the same request: who asks, from which device, for what."""

    user_nid: int
    device_id: str
    key: str
    """Endpoint, path parameters and transaction ID, kept apart by JSON's quoting; see `of`."""

    @classmethod
    def of(cls, user_nid: int, device_id: str, endpoint: Sequence[str], txn_id: str) -> TransactionKey:
        """Make the key of a request.

        `endpoint` is the endpoint's name and its decoded path parameters except the transaction ID, such
        as `("send", room_id, event_type)`; the quoting lets no part pose as two.
        """
        return cls(user_nid, escape(device_id), json.dumps([*endpoint, txn_id], ensure_ascii=True))

    @property
    def txn_id(self) -> str:
        """Give the client's transaction ID."""
        if "\\" not in self.key:
            return self.key[:-2].rpartition('"')[2]  # the last of plain strings, in a tenth of the time
        txn_id: str = json.loads(self.key)[-1]
        return txn_id


@frozen
class Claim:
    """A transaction ID about to be used, and the event it will stand for (None: another kind of request)."""

    key: TransactionKey
    ts: int
    room_nid: int | None = None
    event_nid: int | None = None
    event_id: str | None = None

    def row(self) -> Row:
        """Give the whole row."""
        return (*self.key, self.room_nid, self.event_nid, self.event_id, self.ts)


@frozen
class Used:
    """What an earlier request of the same key has made."""

    room_nid: int | None
    event_nid: int | None
    event_id: str | None


def claim(tx: Transaction, claims: Sequence[Claim]) -> set[TransactionKey]:
    """Take all keys that are free, in the order of the keys, and give those taken now."""
    rows = sorted((each.row() for each in claims), key=lambda row: row[:3])
    return {TransactionKey._make(row) for row in tx.values(_CLAIM, rows)}


def completed_rows(claims: Iterable[Claim]) -> Rows:
    """Give rows that tell which events claimed keys have led to, where that was unknown when claiming."""
    return Rows(_COMPLETE, tuple(each.row() for each in claims))


def find(tx: Transaction, key: TransactionKey) -> Used | None:
    """Look a key up."""
    row = tx.one(_FIND, key)
    return None if row is None else Used(*row)


def withdraw(tx: Transaction, keys: Iterable[TransactionKey]) -> None:
    """Give back keys claimed in this transaction, whose writes leave it."""
    for key in keys:
        tx.execute(_WITHDRAW, key)


def transaction_ids(
    tx: Transaction, room_nid: int, event_nids: Sequence[int]
) -> dict[int, tuple[int, str, str]]:
    """Give (user nid, device, transaction ID) for each of the room's events that was sent with one."""
    found = tx.all(_OF_EVENTS, (room_nid, list(event_nids))) if event_nids else []
    return {
        event_nid: (user_nid, unescape(device), json.loads(key)[-1])
        for event_nid, user_nid, device, key in found
    }


def expire(tx: Transaction, before: int) -> int:
    """Drop transaction IDs used before this time in milliseconds, and give how many."""
    return tx.execute(_EXPIRE, (before,))
