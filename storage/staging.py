"""What other servers have handed in: transactions already answered, and PDUs accepted for later.

A PDU is staged before its transaction is answered, and stays until it is placed or given up, so that an
answer of 200 outlives the process. The room a peer takes up here is bounded. One process places what is
staged in a room, by a lease: the last that staged anything there, or one that took over from it. Two for a
moment do no harm, since events are known by their IDs.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from storage.database import Transaction
from storage.nids import take
from storage.plans import Often
from storage.rows import Rows, Statement, run_all

STAGED_NUMBERS = "staged"

LEASE = 120_000
"""Milliseconds that a room is left to a process that is not heard of."""

_ANSWER = "SELECT answer FROM inbound_transactions WHERE origin = ? AND txn_id = ?"
_PUT_ANSWER = Statement(
    Often(
        "INSERT INTO inbound_transactions (origin, txn_id, ts, answer)"
        " VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
    )
)
_IS_OLD = Often("""
    SELECT 1 FROM inbound_transactions WHERE origin = ? AND txn_id = ?
    UNION ALL SELECT 1 FROM events WHERE room_nid = ? AND event_id IN ?
    UNION ALL SELECT 1 FROM redactions WHERE room_nid = ? AND target_id IN ?
    UNION ALL SELECT 1 FROM gaps WHERE room_nid = ? AND missing_id IN ? LIMIT 1
""")
_EXPIRE = "DELETE FROM inbound_transactions WHERE ts < ?"
_BYTES_BY_ROOM = "SELECT room_nid, sum(size) FROM staged_pdus WHERE origin = ? GROUP BY room_nid"
_STAGE = (
    "INSERT INTO staged_pdus (room_nid, event_id, staged_nid, origin, ts, size, pdu)"
    " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
)
_AFTER = (
    "SELECT room_nid, event_id, staged_nid, origin, ts, pdu FROM staged_pdus"
    " WHERE room_nid = ? AND staged_nid > ?"
    " AND EXISTS (SELECT 1 FROM staged_rooms WHERE room_nid = ? AND holder = ?)"
    " ORDER BY staged_nid LIMIT ?"
)
_DROP = "DELETE FROM staged_pdus WHERE room_nid = ? AND event_id = ?"
_ROOMS = "SELECT DISTINCT room_nid FROM staged_pdus"
_LEFT = f"{_ROOMS} WHERE room_nid NOT IN (SELECT room_nid FROM staged_rooms WHERE expires > ?)"
_SEIZE = (
    "INSERT INTO staged_rooms (room_nid, holder, expires) VALUES (?, ?, ?)"
    " ON CONFLICT (room_nid) DO UPDATE SET holder = excluded.holder, expires = excluded.expires"
)
_TAKE_OVER = f"{_SEIZE} WHERE staged_rooms.expires <= excluded.expires - {LEASE}"
_RENEW = "UPDATE staged_rooms SET expires = ? WHERE room_nid = ? AND holder = ?"
_LOCK = "UPDATE staged_rooms SET holder = holder WHERE room_nid = ? AND holder = ?"
"""Lets `_RELEASE` see what was staged while it waited for the row, which a statement by itself does not."""
_RELEASE = (
    "DELETE FROM staged_rooms WHERE room_nid = ? AND holder = ?"
    " AND NOT EXISTS (SELECT 1 FROM staged_pdus WHERE room_nid = ?)"
)


class ToStage(NamedTuple):
    """A PDU to be staged: canonical JSON, its signatures checked."""

    room_nid: int
    event_id: str
    pdu: bytes


class Staged(NamedTuple):
    """A staged PDU, and where and when it came from."""

    room_nid: int
    event_id: str
    staged_nid: int
    origin: str
    ts: int
    pdu: bytes


class Bounds(NamedTuple):
    """Bytes that one server may have staged: in all, and in one room."""

    origin: int
    room: int


def answer(tx: Transaction, origin: str, txn_id: str) -> bytes | None:
    """Give the answer to a transaction handled before."""
    row = tx.one(_ANSWER, (origin, txn_id))
    return None if row is None else bytes(row[0])


def put_answer(tx: Transaction, origin: str, txn_id: str, ts: int, given: bytes) -> None:
    """Keep the answer to a transaction; the first stays."""
    run_all(tx, (answer_rows(origin, txn_id, ts, given),))


def answer_rows(origin: str, txn_id: str, ts: int, given: bytes) -> Rows:
    """Give the row that keeps an answer, to be written beside what it answers for."""
    return Rows(_PUT_ANSWER, ((origin, txn_id, ts, given),))


def is_old(tx: Transaction, origin: str, txn_id: str, room_nid: int, event_ids: Sequence[str]) -> bool:
    """Tell whether a transaction was answered before, or a room has events of these IDs or knows of them.

    To know of an event is to have a redaction that aims at it, or an event that names it as a parent.
    """
    ids = (room_nid, list(event_ids))
    return tx.one(_IS_OLD, (origin, txn_id, *ids, *ids, *ids)) is not None


def expire(tx: Transaction, before: int) -> int:
    """Drop answers given before this time in milliseconds, and tell how many."""
    return tx.execute(_EXPIRE, (before,))


def stage(
    tx: Transaction, origin: str, ts: int, pdus: Sequence[ToStage], bounds: Bounds, holder: str
) -> bool:
    """Stage PDUs in order, for `holder` to place.

    False, and nothing is staged, if the server has too much here.
    """
    by_room: dict[int, int] = dict(tx.all(_BYTES_BY_ROOM, (origin,)))
    for pdu in pdus:
        by_room[pdu.room_nid] = int(by_room.get(pdu.room_nid, 0)) + len(pdu.pdu)
    if sum(by_room.values()) > bounds.origin or any(size > bounds.room for size in by_room.values()):
        return False
    first = take(tx, STAGED_NUMBERS, len(pdus))
    rows = [
        (pdu.room_nid, pdu.event_id, number, origin, ts, len(pdu.pdu), pdu.pdu)
        for number, pdu in enumerate(pdus, first)
    ]
    tx.many(_STAGE, rows)
    seize(tx, {pdu.room_nid for pdu in pdus}, holder, ts)
    return True


def after(tx: Transaction, room_nid: int, holder: str, staged_nid: int, limit: int) -> list[Staged]:
    """Give a room's staged PDUs after one, in the order of arrival; none if the room is not `holder`'s."""
    rows = tx.all(_AFTER, (room_nid, staged_nid, room_nid, holder, limit))
    return [Staged._make(row) for row in rows]


def drop(tx: Transaction, room_nid: int, holder: str, event_id: str) -> None:
    """Forget a PDU that is placed or given up, and with the last one the lease of `holder`."""
    tx.many(_DROP, ((room_nid, event_id),))
    tx.many(_LOCK, ((room_nid, holder),))
    tx.many(_RELEASE, ((room_nid, holder, room_nid),))


def rooms(tx: Transaction) -> list[int]:
    """Give the rooms in which anything is staged."""
    return [int(row[0]) for row in tx.all(_ROOMS)]


def left(tx: Transaction, now: int) -> list[int]:
    """Give those of them that no living process works on."""
    return [int(row[0]) for row in tx.all(_LEFT, (now,))]


def seize(tx: Transaction, room_nids: Collection[int], holder: str, now: int) -> None:
    """Let rooms be `holder`'s, whoever had them."""
    tx.many(_SEIZE, [(room_nid, holder, now + LEASE) for room_nid in sorted(room_nids)])


def take_over(tx: Transaction, room_nids: Collection[int], holder: str, now: int) -> None:
    """Let rooms be `holder`'s, unless another was faster."""
    tx.many(_TAKE_OVER, [(room_nid, holder, now + LEASE) for room_nid in sorted(room_nids)])


def renew(tx: Transaction, room_nid: int, holder: str, now: int) -> None:
    """Let a room stay `holder`'s, if it is."""
    tx.execute(_RENEW, (now + LEASE, room_nid, holder))
