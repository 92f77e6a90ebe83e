"""The heads of rooms: where each room stands, guarded by a counter.

`head_seq` counts the commits to a room. A writer names the value it built on; if another was faster, the
row does not match and the writer has lost. The row's lock is the lock of the room.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

from attrs import frozen

from storage.database import Row, Transaction
from storage.feed import HeadMark
from storage.plans import Often

_CREATE = (
    "INSERT INTO room_heads (room_nid, head_seq, extremities, root, depth) VALUES ?"
    " ON CONFLICT DO NOTHING RETURNING room_nid"
)
_COMPARE_AND_SET = """
    WITH new(room_nid, expected, head_seq, extremities, root, depth) AS ( VALUES ?),
    held AS MATERIALIZED (
        SELECT room_nid FROM room_heads
        WHERE room_nid IN (SELECT room_nid FROM new)
        ORDER BY room_nid FOR UPDATE
    )
    UPDATE room_heads
    SET head_seq = new.head_seq, extremities = new.extremities, root = new.root, depth = new.depth
    FROM new, held
    WHERE room_heads.room_nid = new.room_nid AND held.room_nid = new.room_nid
        AND room_heads.head_seq = new.expected
    RETURNING room_heads.room_nid
"""
_COMPARE_AND_SET_ONE = Often(
    "UPDATE room_heads SET head_seq = ?, extremities = ?, root = ?, depth = ?"
    " WHERE room_nid = ? AND head_seq = ? RETURNING room_nid"
)
"""The same for a single room, which needs no order: a tenth of the time to plan."""
_COLUMNS = "room_nid, head_seq, extremities, root, depth"
_GET = f"SELECT {_COLUMNS} FROM room_heads WHERE room_nid IN ?"
_LOCK = f"SELECT {_COLUMNS} FROM room_heads WHERE room_nid IN ? ORDER BY room_nid FOR UPDATE"


@frozen
class HeadRow:
    """A room's head as the database has it."""

    room_nid: int
    mark: HeadMark
    root: bytes


@frozen
class HeadUpdate:
    """A head to be written, if the room's `head_seq` still is `expected` (None: the room has no head yet)."""

    room_nid: int
    expected: int | None
    mark: HeadMark
    root: bytes


def _packed(nids: Sequence[int]) -> bytes:
    return struct.pack(f">{len(nids)}q", *sorted(nids))


def _head(row: Row) -> HeadRow:
    room_nid, seq, extremities, root, depth = row
    nids = struct.unpack(f">{len(extremities) // 8}q", extremities)
    return HeadRow(room_nid, HeadMark(seq, depth, nids), root)


def _new_columns(update: HeadUpdate) -> Row:
    mark = update.mark
    return (mark.seq, _packed(mark.extremities), update.root, mark.depth)


def compare_and_set(tx: Transaction, updates: Iterable[HeadUpdate]) -> set[int]:
    """Write the heads that are still as expected, locking rooms in ascending order; give the winners.

    At most one update a room. Raises nothing for the losers: they are absent from the answer.
    """
    ordered = sorted(updates, key=lambda update: update.room_nid)
    won: set[int] = set()
    fresh = [(new.room_nid, *_new_columns(new)) for new in ordered if new.expected is None]
    if fresh:
        won.update(row[0] for row in tx.values(_CREATE, fresh))
    moved = [new for new in ordered if new.expected is not None]
    if len(moved) == 1:
        args = (*_new_columns(moved[0]), moved[0].room_nid, moved[0].expected)
        won.update(row[0] for row in tx.all(_COMPARE_AND_SET_ONE, args))
    elif moved:
        rows = [(new.room_nid, new.expected, *_new_columns(new)) for new in moved]
        won.update(row[0] for row in tx.values(_COMPARE_AND_SET, rows))
    return won


def get(tx: Transaction, room_nids: Sequence[int]) -> dict[int, HeadRow]:
    """Read the heads of rooms this server takes part in; others are absent."""
    return {row[0]: _head(row) for row in tx.all(_GET, (list(room_nids),))} if room_nids else {}


def lock(tx: Transaction, room_nids: Iterable[int]) -> dict[int, HeadRow]:
    """Read heads and hold their rooms until the transaction ends, taking rooms in ascending order."""
    wanted = sorted(set(room_nids))
    return {row[0]: _head(row) for row in tx.all(_LOCK, (wanted,))} if wanted else {}
