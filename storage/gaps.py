"""Backward gaps: events that others name as parents and that are not held.

A gap is where history may go on; whoever fills it deletes it. Written with the events that make it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from storage.database import Transaction
from storage.plans import Often
from storage.rows import Rows, Statement

INSERT = Statement(
    "INSERT INTO gaps (room_nid, missing_id, child_nid, depth) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
)
DELETE = Statement("DELETE FROM gaps WHERE room_nid = ? AND missing_id = ?")

_NAMED = "SELECT DISTINCT missing_id FROM gaps WHERE room_nid = ? AND missing_id IN ?"
_DEPTHS = "SELECT missing_id, min(depth) FROM gaps WHERE room_nid = ? AND missing_id IN ? GROUP BY missing_id"
_NEAR = Often(
    "SELECT missing_id, max(depth) FROM gaps WHERE room_nid = ? AND depth <= ?"
    " GROUP BY missing_id ORDER BY max(depth) DESC LIMIT ?"
)
_CHILDREN = "SELECT DISTINCT child_nid FROM gaps WHERE room_nid = ? AND missing_id IN ?"


class Gap(NamedTuple):
    """A missing event, and the depth of the deepest event that names it."""

    missing_id: str
    depth: int


def gap_rows(room_nid: int, missing_ids: Sequence[str], child_nid: int, depth: int) -> Rows:
    """Give the rows of an event whose parents are missing."""
    return Rows(INSERT, tuple((room_nid, missing_id, child_nid, depth) for missing_id in missing_ids))


def filled_rows(room_nid: int, event_ids: Sequence[str]) -> Rows:
    """Give the rows that say that events are missing no more."""
    return Rows(DELETE, tuple((room_nid, event_id) for event_id in event_ids))


def named(tx: Transaction, room_nid: int, event_ids: Sequence[str]) -> set[str]:
    """Give those events that are parents of events held."""
    return {row[0] for row in tx.all(_NAMED, (room_nid, list(event_ids)))} if event_ids else set()


def depths(tx: Transaction, room_nid: int, event_ids: Sequence[str]) -> dict[str, int]:
    """Give for missing events the least depth of those that name them."""
    return dict(tx.all(_DEPTHS, (room_nid, list(event_ids)))) if event_ids else {}


def children(tx: Transaction, room_nid: int, event_ids: Sequence[str]) -> set[int]:
    """Give the nids of events that name some of the missing ones."""
    return {row[0] for row in tx.all(_CHILDREN, (room_nid, list(event_ids)))} if event_ids else set()


def near(tx: Transaction, room_nid: int, depth: int, limit: int) -> list[Gap]:
    """Give the gaps next below a depth, the nearest first."""
    return [Gap._make(row) for row in tx.all(_NEAR, (room_nid, depth, limit))]
