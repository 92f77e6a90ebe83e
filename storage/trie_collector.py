"""Remove the nodes of a room's state tries that no state leads to any more.

Nodes become garbage when the last event, feed entry or head that names their root goes: by retention, by
purging history, by a redone resolution. A room is collected in two phases:

1. *Mark*, in one read transaction: all live roots, all nodes they lead to, and so the candidates: nodes
   that are there and unmarked.
2. *Sweep*, some thousand candidates a transaction, under the lock of the room's row in `room_heads`, which
   every commit to the room takes before it stores nodes. If the room has moved since it was marked, the
   roots that are new are marked first: a later commit may have made a candidate live again. `head_seq`
   is bumped with each sweep, so a worker that remembers a deleted node and builds on it loses its
   compare-and-set.

Only rooms with a head are collected; purging a whole room deletes its nodes by itself.
"""

from __future__ import annotations

from collections.abc import Iterable

from attrs import evolve, frozen

from storage.database import Database, Transaction
from storage.state_trie import StateRoot, reachable
from storage.trie_format import NodeName
from storage.trie_nodes import run_in_transaction

SWEEP_NODES = 5_000
"""How many candidates one transaction deletes: it holds the room meanwhile."""

UNLOCKED_TRIES = 3
"""How often new roots of a busy room are marked without its lock, before it is done under the lock."""

_LIVE_ROOTS = """
    SELECT root_before FROM events WHERE room_nid = ? AND root_before IS NOT NULL
    UNION SELECT root FROM feed WHERE room_nid = ? AND root IS NOT NULL
    UNION SELECT root FROM room_heads WHERE room_nid = ?
"""
_NODES = "SELECT hash FROM state_nodes WHERE room_nid = ?"
_DELETE = "DELETE FROM state_nodes WHERE room_nid = ? AND hash IN ?"
_HEAD_SEQ = "SELECT head_seq FROM room_heads WHERE room_nid = ?"
_LOCK = "SELECT head_seq FROM room_heads WHERE room_nid = ? FOR UPDATE"
_BUMP = "UPDATE room_heads SET head_seq = head_seq + 1 WHERE room_nid = ?"


@frozen(eq=False)
class Marks:
    """What is known of a room: as of `head_seq`, these `roots` are live and lead to the `live` nodes."""

    room_nid: int
    head_seq: int
    roots: frozenset[StateRoot]
    live: frozenset[NodeName]
    candidates: tuple[NodeName, ...] = ()


@frozen(eq=False)
class Swept:
    """What a sweep did: the marks brought up to date, and the number of nodes deleted."""

    marks: Marks
    deleted: int


def mark(tx: Transaction, room_nid: int) -> Marks | None:
    """Mark a room from one snapshot; None when it has no head."""
    row = tx.one(_HEAD_SEQ, (room_nid,))
    if row is None:
        return None
    marks = _mark_new(tx, Marks(room_nid, int(row[0]), frozenset(), frozenset()), int(row[0]))
    names = (NodeName(name) for (name,) in tx.all(_NODES, (room_nid,)))
    return evolve(marks, candidates=tuple(name for name in names if name not in marks.live))


def mark_again(tx: Transaction, marks: Marks) -> Marks:
    """Bring marks up to date from a newer snapshot; the candidates stay."""
    row = tx.one(_HEAD_SEQ, (marks.room_nid,))
    return marks if row is None or row[0] == marks.head_seq else _mark_new(tx, marks, int(row[0]))


def sweep(tx: Transaction, marks: Marks, chunk: Iterable[NodeName], *, insist: bool) -> Swept | None:
    """Delete those of `chunk` that are garbage still, holding the room.

    None when the room has moved since `marks` and `insist` does not say to mark it under the lock.
    """
    row = tx.one(_LOCK, (marks.room_nid,))
    if row is None:
        return Swept(marks, 0)
    if row[0] != marks.head_seq:
        if not insist:
            return None
        marks = _mark_new(tx, marks, int(row[0]))
    garbage = [name for name in chunk if name not in marks.live]
    if not garbage:
        return Swept(marks, 0)
    deleted = tx.execute(_DELETE, (marks.room_nid, garbage))
    tx.execute(_BUMP, (marks.room_nid,))
    return Swept(evolve(marks, head_seq=marks.head_seq + 1), deleted)


def _mark_new(tx: Transaction, marks: Marks, head_seq: int) -> Marks:
    """Add the roots that are live now and were not, and what they lead to."""
    room_nid = marks.room_nid
    roots = frozenset(row[0] for row in tx.all(_LIVE_ROOTS, (room_nid, room_nid, room_nid)))
    live = set(marks.live)
    run_in_transaction(tx, room_nid, reachable(roots - marks.roots, live))
    return evolve(marks, head_seq=head_seq, roots=marks.roots | roots, live=frozenset(live))


@frozen
class TrieCollector:
    """Collects one room at a time, beside its writers."""

    database: Database

    async def collect(self, room_nid: int) -> int:
        """Delete the garbage of a room and give the number of nodes deleted."""
        marks = await self.database.read(mark, room_nid)
        if marks is None:
            return 0
        candidates, deleted = marks.candidates, 0
        for start in range(0, len(candidates), SWEEP_NODES):
            swept = await self._sweep(marks, candidates[start : start + SWEEP_NODES])
            marks, deleted = swept.marks, deleted + swept.deleted
        return deleted

    async def _sweep(self, marks: Marks, chunk: tuple[NodeName, ...]) -> Swept:
        """Sweep one chunk, marking new roots without the lock as long as that gets anywhere."""
        tries = 0
        while True:
            swept = await self.database.write(sweep, marks, chunk, insist=tries == UNLOCKED_TRIES)
            if swept is not None:
                return swept
            tries += 1
            marks = await self.database.read(mark_again, marks)
