"""Events as rows: one wide row an event, always found within its room.

The row is a named tuple in the order of the table's columns, so that it is written and read without
being copied field by field. What a row means (its parsed event) is known to the services above.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

from storage.database import Transaction, parts_of
from storage.plans import Often
from storage.rows import Rows, Statement


class Status(IntEnum):
    """What the authorization checks said of an event."""

    ACCEPTED = 0
    SOFT_FAILED = 1
    REJECTED = 2
    OUTLIER = 3


class EventRow(NamedTuple):
    """A row of `events`; see the migration for the columns."""

    room_nid: int
    event_nid: int
    event_id: str
    status: int
    partial: int
    depth: int
    type: str
    state_key: str | None
    sender_nid: int
    ts: int
    root_before: bytes | None
    chain: int | None
    number: int | None
    clock: bytes | None
    event_class: int
    thread: str | None
    rel_type: str | None
    relates_to: str | None
    redacted_by: int | None
    pdu: bytes


class ClockRow(NamedTuple):
    """The auth clock of a state event, and the highest number on its chain."""

    event_nid: int
    chain: int
    number: int
    clock: bytes
    chain_tail: int


_COLUMNS = (
    "room_nid, event_nid, event_id, status, partial, depth, type, state_key, sender_nid, ts, root_before,"
    " chain, number, clock, class, thread, rel_type, relates_to, redacted_by, pdu"
)
_MARKS = ", ".join("?" * len(EventRow._fields))
_BY_NID = f"SELECT {_COLUMNS} FROM events WHERE room_nid = ? AND event_nid IN ?"
_BY_ID = f"SELECT {_COLUMNS} FROM events WHERE room_nid = ? AND event_id IN ?"
_TEXTS = "SELECT event_id, pdu, redacted_by FROM events WHERE room_nid = ? AND event_nid IN ?"
_REACHES = "SELECT DISTINCT clock FROM events WHERE room_nid = ? AND event_nid IN ? AND clock IS NOT NULL"
_NIDS = "SELECT event_id, event_nid FROM events WHERE room_nid = ? AND event_id IN ?"
_IDS = "SELECT event_nid, event_id FROM events WHERE room_nid = ? AND event_nid IN ?"
_ROOM_OF = "SELECT room_nid FROM events WHERE event_id = ?"
_CLOCKS = (
    "SELECT e.event_nid, e.chain, e.number, e.clock,"
    " (SELECT max(t.number) FROM events AS t WHERE t.room_nid = e.room_nid AND t.chain = e.chain)"
    " FROM events AS e WHERE e.room_nid = ? AND e.event_nid IN ? AND e.chain IS NOT NULL"
)
_REDACTIONS_OF = """
    SELECT target_id, redaction_nid FROM redactions
    WHERE room_nid = ? AND target_id IN ? ORDER BY redaction_nid
"""

INSERT = Statement(Often(f"INSERT INTO events ({_COLUMNS}) VALUES ({_MARKS})"))
"""Write an event that is new to the room; a second row of the same event ID breaks the batch."""

INSERT_IF_NEW = Statement(f"INSERT INTO events ({_COLUMNS}) VALUES ({_MARKS}) ON CONFLICT DO NOTHING")
"""Write an event that another worker may be writing too (outliers, history)."""

PLACE = Statement(
    Often(
        f"INSERT INTO events ({_COLUMNS}) VALUES ({_MARKS}) ON CONFLICT (room_nid, event_nid) DO UPDATE SET"
        " status = excluded.status, depth = excluded.depth, root_before = excluded.root_before,"
        " chain = coalesce(events.chain, excluded.chain), number = coalesce(events.number, excluded.number),"
        " clock = coalesce(events.clock, excluded.clock), thread = excluded.thread,"
        " redacted_by = coalesce(events.redacted_by, excluded.redacted_by)"
    )
)
"""Write an event that may be here as an outlier, under the same nid; then give it its placement."""

REDACT = Statement(
    "UPDATE events SET redacted_by = ? WHERE room_nid = ? AND event_nid = ? AND redacted_by IS NULL"
)
INSERT_REDACTION = Statement(
    "INSERT INTO redactions (room_nid, target_id, redaction_nid) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
)


def event_rows(*events: EventRow) -> Rows:
    """Give the rows of events that are new here."""
    return Rows(INSERT, events)


def placed_rows(*events: EventRow) -> Rows:
    """Give the rows of events that may be here as outliers."""
    return Rows(PLACE, events)


def redaction_rows(room_nid: int, target_id: str, redaction_nid: int) -> Rows:
    """Remember which event a redaction aims at, whether or not that event is here."""
    return Rows(INSERT_REDACTION, ((room_nid, target_id, redaction_nid),))


def redacted_by_rows(room_nid: int, target_nid: int, redaction_nid: int) -> Rows:
    """Mark an event as redacted; the first redaction that applies stays."""
    return Rows(REDACT, ((redaction_nid, room_nid, target_nid),))


def by_nid(tx: Transaction, room_nid: int, event_nids: Sequence[int]) -> list[EventRow]:
    """Read events of one room; unknown ones are absent, the order is any."""
    parts = parts_of(event_nids)
    return [EventRow._make(row) for part in parts for row in tx.all(_BY_NID, (room_nid, part))]


def by_id(tx: Transaction, room_nid: int, event_ids: Sequence[str]) -> list[EventRow]:
    """Read events of one room by event ID; unknown ones are absent, the order is any."""
    return [EventRow._make(row) for part in parts_of(event_ids) for row in tx.all(_BY_ID, (room_nid, part))]


def texts(tx: Transaction, room_nid: int, event_nids: Sequence[int]) -> list[tuple[str, bytes, int | None]]:
    """Give (event ID, PDU, nid of the redaction that applies) of events of one room, in any order."""
    return [row[:3] for part in parts_of(event_nids) for row in tx.all(_TEXTS, (room_nid, part))]


def nids(tx: Transaction, room_nid: int, event_ids: Sequence[str]) -> dict[str, int]:
    """Give the nids of those events that the room has."""
    return dict(row for part in parts_of(event_ids) for row in tx.all(_NIDS, (room_nid, part)))


def ids(tx: Transaction, room_nid: int, event_nids: Sequence[int]) -> dict[int, str]:
    """Give the event IDs of nids of one room."""
    return dict(row for part in parts_of(event_nids) for row in tx.all(_IDS, (room_nid, part)))


def rooms_of(tx: Transaction, event_id: str) -> list[int]:
    """Give the rooms that have an event of this ID; this probes all partitions."""
    return [int(row[0]) for row in tx.all(_ROOM_OF, (event_id,))]


def reaches(tx: Transaction, room_nid: int, event_nids: Sequence[int]) -> list[bytes]:
    """Give the auth chains of state events of one room, as packed in their clocks, each once."""
    return [row[0] for row in tx.all(_REACHES, (room_nid, list(event_nids)))] if event_nids else []


def clocks(tx: Transaction, room_nid: int, event_nids: Sequence[int]) -> list[ClockRow]:
    """Read the auth clocks of state events of one room, with the tail of each one's chain."""
    if not event_nids:
        return []
    return [ClockRow._make(row) for row in tx.all(_CLOCKS, (room_nid, list(event_nids)))]


def redactions_of(tx: Transaction, room_nid: int, event_ids: Sequence[str]) -> list[tuple[str, int]]:
    """Give (target, redaction nid) for redactions that aim at these events, oldest first."""
    if not event_ids:
        return []
    return [(row[0], row[1]) for row in tx.all(_REDACTIONS_OF, (room_nid, list(event_ids)))]
