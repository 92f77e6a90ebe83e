"""Events as clients read them: few columns, read in bulk across rooms.

Every look-up is bound to rooms. `accepted` reads give only events that may be shown; reads by nid give
whatever was named, since state may rest on outliers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from protocol.identifiers import EventID
from storage.database import Dialect, Transaction, parts_of
from storage.plans import Often
from storage.statements import array_literal
from storage.text import escape
from storage.transactions import TransactionKey


class ClientEventRow(NamedTuple):
    """The columns of `events` that rendering for clients needs."""

    room_nid: int
    event_nid: int
    event_id: EventID
    depth: int
    ts: int
    root_before: bytes | None
    redacted_by: int | None
    thread: str | None
    rel_type: str | None
    relates_to: str | None
    pdu: bytes | str
    """Canonical JSON, in the form that the engine gives soonest."""


_COLUMNS = (
    "e.room_nid, e.event_nid, e.event_id, e.depth, e.ts, e.root_before, e.redacted_by,"
    " e.thread, e.rel_type, e.relates_to, UTF8(e.pdu)"
)
CLIENT_COLUMNS = _COLUMNS
"""The columns of `ClientEventRow`, of the table `events AS e`."""
_BY_NID = (
    "WITH wanted(room_nid, event_nid) AS ( VALUES ?)"
    f" SELECT {_COLUMNS} FROM wanted JOIN events AS e"
    " ON e.room_nid = wanted.room_nid AND e.event_nid = wanted.event_nid"
)
_BY_NID_IN_ROOM = Often(f"SELECT {_COLUMNS} FROM events AS e WHERE e.room_nid = ? AND e.event_nid IN ?")
# PostgreSQL chooses the partition once a room, not once an event; OFFSET keeps it from joining all it has.
_BY_NID_IN_ROOMS = (
    f"SELECT {_COLUMNS} FROM ( VALUES ?) AS w(room_nid, nids) CROSS JOIN LATERAL (SELECT * FROM events AS a"
    " WHERE a.room_nid = w.room_nid AND a.event_nid = ANY (w.nids::bigint[]) OFFSET 0) AS e"
)
_BY_ID = f"SELECT {_COLUMNS} FROM events AS e WHERE e.room_nid = ? AND e.status = 0 AND e.event_id IN ?"
_PLACES_BEFORE = Often(
    "SELECT e.depth, e.event_nid FROM events AS e WHERE e.room_nid = ? AND e.status = 0"
    " AND (e.depth, e.event_nid) < (?, ?) ORDER BY e.depth DESC, e.event_nid DESC LIMIT ?"
)
_PLACES_AFTER = Often(
    "SELECT e.depth, e.event_nid FROM events AS e WHERE e.room_nid = ? AND e.status = 0"
    " AND (e.depth, e.event_nid) > (?, ?) ORDER BY e.depth, e.event_nid LIMIT ?"
)
_LATER = (
    f"SELECT {_COLUMNS} FROM events AS e WHERE e.room_nid = ? AND e.status = 0"
    " AND (e.depth, e.event_nid) > (?, ?) ORDER BY e.depth, e.event_nid LIMIT ?"
)
_RELATED = (
    f"SELECT {_COLUMNS} FROM events AS e WHERE e.room_nid = ? AND e.relates_to IN ? AND e.status = 0"
    " AND e.redacted_by IS NULL ORDER BY e.depth, e.event_nid LIMIT ?"
)
_NEAREST_AFTER = (
    f"SELECT {_COLUMNS} FROM events AS e WHERE e.room_nid = ? AND e.status = 0 AND e.ts >= ?"
    " ORDER BY e.ts, e.depth, e.event_nid LIMIT ?"
)
_NEAREST_BEFORE = (
    f"SELECT {_COLUMNS} FROM events AS e WHERE e.room_nid = ? AND e.status = 0 AND e.ts <= ?"
    " ORDER BY e.ts DESC, e.depth DESC, e.event_nid DESC LIMIT ?"
)
_VERSIONS = "SELECT room_nid, version FROM rooms WHERE room_nid IN ?"
_IDS = "SELECT room_nid, room_id FROM rooms WHERE room_nid IN ?"

_TRANSACTIONS = (
    "WITH wanted(room_nid, event_nid) AS ( VALUES ?)"
    " SELECT t.room_nid, t.event_nid, t.user_nid, t.device_id, t.key FROM wanted JOIN transactions AS t"
    " ON t.room_nid = wanted.room_nid AND t.event_nid = wanted.event_nid"
)
_TRANSACTIONS_IN_ROOM = Often(
    "SELECT room_nid, event_nid, user_nid, device_id, key FROM transactions"
    " WHERE room_nid = ? AND event_nid IN ?"
)

Place = tuple[int, int]
"""A place in history: (depth, event nid)."""


def by_nids(tx: Transaction, wanted: Sequence[tuple[int, int]]) -> list[ClientEventRow]:
    """Read events by (room nid, event nid), whatever their status; unknown ones are absent."""
    rooms: dict[int, list[int]] = {}
    for room_nid, nid in wanted:
        rooms.setdefault(room_nid, []).append(nid)
    if len(rooms) == 1:
        ((room_nid, nids),) = rooms.items()
        rows = [row for part in parts_of(nids) for row in tx.all(_BY_NID_IN_ROOM, (room_nid, part))]
    elif tx.dialect is Dialect.POSTGRES:
        rows = tx.values(_BY_NID_IN_ROOMS, [(room, array_literal(nids)) for room, nids in rooms.items()])
    else:
        rows = tx.values(_BY_NID, wanted)
    return list(map(ClientEventRow._make, rows))


def by_ids(tx: Transaction, room_nid: int, event_ids: Sequence[str]) -> list[ClientEventRow]:
    """Read accepted events of one room by event ID."""
    if not event_ids:
        return []
    return [ClientEventRow._make(row) for row in tx.all(_BY_ID, (room_nid, list(event_ids)))]


def places_before(tx: Transaction, room_nid: int, before: Place, limit: int) -> list[Place]:
    """Give the places of accepted events before a place, newest first."""
    return [(row[0], row[1]) for row in tx.all(_PLACES_BEFORE, (room_nid, *before, limit))]


def places_after(tx: Transaction, room_nid: int, after: Place, limit: int) -> list[Place]:
    """Give the places of accepted events after a place, oldest first."""
    return [(row[0], row[1]) for row in tx.all(_PLACES_AFTER, (room_nid, *after, limit))]


def later(tx: Transaction, room_nid: int, after: Place, limit: int) -> list[ClientEventRow]:
    """Read accepted events after a place, oldest first."""
    return [ClientEventRow._make(row) for row in tx.all(_LATER, (room_nid, *after, limit))]


def related(tx: Transaction, room_nid: int, parents: Sequence[str], limit: int) -> list[ClientEventRow]:
    """Read accepted events that relate to any of `parents` and are not redacted, oldest first."""
    if not parents:
        return []
    return [ClientEventRow._make(row) for row in tx.all(_RELATED, (room_nid, list(parents), limit))]


def nearest(tx: Transaction, room_nid: int, ts: int, *, later: bool, limit: int) -> list[ClientEventRow]:
    """Read accepted events from a time on, in that direction, the nearest first."""
    sql = _NEAREST_AFTER if later else _NEAREST_BEFORE
    return [ClientEventRow._make(row) for row in tx.all(sql, (room_nid, ts, limit))]


def versions(tx: Transaction, room_nids: Sequence[int]) -> dict[int, str]:
    """Give the versions of rooms."""
    return {row[0]: row[1] for row in tx.all(_VERSIONS, (list(room_nids),))} if room_nids else {}


def room_ids(tx: Transaction, room_nids: Sequence[int]) -> dict[int, str]:
    """Give the IDs of rooms."""
    return {row[0]: row[1] for row in tx.all(_IDS, (list(room_nids),))} if room_nids else {}


def transaction_ids(
    tx: Transaction, user_nid: int, device_id: str, wanted: Sequence[tuple[int, int]]
) -> dict[tuple[int, int], str]:
    """Give the transaction IDs of events that this device sent, by (room nid, event nid)."""
    if len({room for room, _ in wanted}) == 1:
        found = tx.all(_TRANSACTIONS_IN_ROOM, (wanted[0][0], [nid for _, nid in wanted]))
    else:
        found = tx.values(_TRANSACTIONS, wanted) if wanted else []
    sent_by = (user_nid, escape(device_id))
    return {
        (row[0], row[1]): TransactionKey(row[2], row[3], row[4]).txn_id
        for row in found
        if (row[2], row[3]) == sent_by
    }
