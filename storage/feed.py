"""The feed: everything a client can see, in commit order, positions without holes.

The narrow table alone; wide rows (events, receipts, …) are in their own stores and are named by `ref`.
Positions are `max + 1` onwards, assigned by the last statement before COMMIT under a lock, so a reader
that saw position n has seen all before it, and `pos == tail + 1` proves that nothing is missing.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

import msgspec
from attrs import frozen

from storage.database import Dialect, Row, Transaction
from storage.plans import Often

CHANNEL = "plait_feed"
"""The NOTIFY channel on which PostgreSQL tells that the feed moved; the payload names the writer, and may go
on with a word of `feed_writers`."""

_LOCK = 0x706C616974  # any number will do, as long as all workers agree

_COLUMNS = "pos, kind, flags, room_nid, user_nid, ref, root, head"
_TAIL = "SELECT coalesce((SELECT pos FROM feed ORDER BY pos DESC LIMIT 1), 0)"
_LOCKED_TAIL = f"SELECT pg_advisory_xact_lock({_LOCK}); {_TAIL}, pg_current_xact_id()::text"
_NOTIFYING_TAIL = (
    f"SELECT pg_advisory_xact_lock({_LOCK}), pg_notify('{CHANNEL}', ?); {_TAIL}, pg_current_xact_id()::text"
)
_STATUS = f"""
    SELECT pg_advisory_xact_lock({_LOCK});
    SELECT CASE WHEN ?::xid8 < pg_snapshot_xmax(pg_current_snapshot()) THEN pg_xact_status(?::xid8) END
"""
_APPEND = Often(f"INSERT INTO feed ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)")
_BETWEEN = f"SELECT {_COLUMNS} FROM feed WHERE pos > ? AND pos <= ? ORDER BY pos LIMIT ?"
_ROOM_BETWEEN = (
    f"SELECT {_COLUMNS} FROM feed WHERE room_nid = ? AND pos > ? AND pos <= ? ORDER BY pos LIMIT ?"
)
_USER_BETWEEN = (
    f"SELECT {_COLUMNS} FROM feed WHERE user_nid = ? AND pos > ? AND pos <= ? ORDER BY pos LIMIT ?"
)


class Kind(IntEnum):
    """What an entry tells. From 16 on, entries are also looked up by kind."""

    EVENT = 1
    STATE = 2
    """The resolved state of the room changed without a new event."""
    INVITE = 3
    """An invite, knock or leave of one user in a room not known here."""
    RECEIPT = 4
    ACCOUNT_DATA = 5
    TO_DEVICE = 6
    SESSION = 7
    FORGET = 8
    DELIVERED = 9
    """What `user_nid` said in the room has come further; ref = the mark's number in `deliveries`."""
    CHANGED = 10
    """An event of the room, `ref`, is something else now: redacted by history, or an outlier with a place.

    For caches alone: nobody is told, nothing is sent. `head_seq` moves with it.
    """
    DEVICE_KEYS = 11
    """One-time or fallback keys of the user's devices were added or handed out."""
    DEVICE_LIST = 16
    PROFILE = 17
    UNREAD = 18
    OUTBOUND_EDU = 19
    """An EDU waits for another server; ref = its number in `outbound_edus`, payload = the server's name."""


class Flag(IntEnum):
    """What else a reader must know without opening the wide row; joined and tested as plain integers.

    An `IntFlag` is some ten times as dear to test, which is done several times for each entry.
    """

    NONE = 0
    FEDERATE = 1
    """The event was built here: it is to be sent to other servers."""
    MEMBERSHIP = 2
    """`user_nid` is the user whose membership the event changes."""
    REDACTION = 4
    """The event is a redaction that applies."""


_ONE_EXTREMITY = struct.Struct(">3q")


class HeadMark(msgspec.Struct, frozen=True):
    """Where a room stands after an entry: `head_seq`, greatest depth, forward extremities (event nids)."""

    seq: int
    depth: int
    extremities: tuple[int, ...]

    def pack(self) -> bytes:
        """Give seq, depth and extremities, 8 bytes each, big-endian."""
        return struct.pack(f">{2 + len(self.extremities)}q", self.seq, self.depth, *self.extremities)

    @classmethod
    def unpack(cls, data: bytes) -> HeadMark:
        """Read what `pack` wrote."""
        if len(data) == _ONE_EXTREMITY.size:
            seq, depth, only = _ONE_EXTREMITY.unpack(data)
            return cls(seq, depth, (only,))
        seq, depth, *extremities = struct.unpack(f">{len(data) // 8}q", data)
        return cls(seq, depth, tuple(extremities))


class Entry(msgspec.Struct, frozen=True):
    """One place in the feed. `payload` is in memory only: the wide thing, if this process committed it.

    A first sync reads a thousand: a `msgspec.Struct` is made in a fifth of the time that attrs takes.
    """

    pos: int
    kind: int
    flags: int = 0
    room_nid: int | None = None
    user_nid: int | None = None
    ref: int | None = None
    root: bytes | None = None
    head: HeadMark | None = None
    payload: object | None = None


def is_change(entry: Entry) -> bool:
    """Tell whether an entry makes something else of an event that may be remembered."""
    return entry.kind == Kind.CHANGED or (entry.kind == Kind.EVENT and bool(entry.flags & Flag.REDACTION))


@frozen
class NewEntry:
    """An entry that has no position yet; fields as in `Entry`."""

    kind: int
    flags: int = 0
    room_nid: int | None = None
    user_nid: int | None = None
    ref: int | None = None
    root: bytes | None = None
    head: HeadMark | None = None
    payload: object | None = None

    def at(self, pos: int) -> Entry:
        """Give the entry at its position."""
        return Entry(
            pos,
            self.kind,
            self.flags,
            self.room_nid,
            self.user_nid,
            self.ref,
            self.root,
            self.head,
            self.payload,
        )

    def row(self, pos: int) -> Row:
        """Give the row at its position."""
        head = None if self.head is None else self.head.pack()
        return (pos, int(self.kind), int(self.flags), self.room_nid, self.user_nid, self.ref, self.root, head)


def _entry(row: Row) -> Entry:
    pos, kind, flags, room_nid, user_nid, ref, root, head = row
    return Entry(
        pos, kind, flags, room_nid, user_nid, ref, root, None if head is None else HeadMark.unpack(head)
    )


class Appended(NamedTuple):
    """Where entries were written."""

    first: int
    """The position of the first."""
    transaction: str | None
    """PostgreSQL's name for the transaction, by which it can be asked what became of it."""


def append(tx: Transaction, entries: Sequence[NewEntry], writer: str | None) -> Appended:
    """Write `entries` as the last statement of a transaction.

    On PostgreSQL this takes the feed's lock until COMMIT and notifies the other workers; `writer` names
    this process to them, None: there are none.
    """
    on_postgres = tx.dialect is Dialect.POSTGRES
    if not on_postgres:
        row = tx.one(_TAIL)
    else:
        row = tx.one(_LOCKED_TAIL) if writer is None else tx.one(_NOTIFYING_TAIL, (writer,))
    assert row is not None
    first = int(row[0]) + 1
    tx.many(_APPEND, [entry.row(pos) for pos, entry in enumerate(entries, first)])
    return Appended(first, row[1] if on_postgres else None)


def tail(tx: Transaction) -> int:
    """Give the last position, 0 for an empty feed."""
    row = tx.one(_TAIL)
    assert row is not None
    return int(row[0])


def is_committed(tx: Transaction, appended: Appended, entries: Sequence[NewEntry]) -> bool:
    """Tell whether the transaction that wrote `entries` was committed; for PostgreSQL, which may not say.

    Waits for whoever holds the feed's lock, so the answer is final. A server that took over from a lost one
    may know nothing of the transaction, or give its number to another: so the rows are looked at too.
    """
    row = tx.one(_STATUS, (appended.transaction, appended.transaction))
    assert row is not None
    if row[0] == "aborted":
        return False
    last = appended.first + len(entries) - 1
    found = tx.all(_BETWEEN, (appended.first - 1, last, len(entries)))
    return [tuple(each) for each in found] == [
        entry.row(pos) for pos, entry in enumerate(entries, appended.first)
    ]


def between(tx: Transaction, after: int, upto: int, limit: int) -> list[Entry]:
    """Read entries with `after < pos <= upto`, oldest first."""
    return [_entry(row) for row in tx.all(_BETWEEN, (after, upto, limit))]


def room_between(tx: Transaction, room_nid: int, after: int, upto: int, limit: int) -> list[Entry]:
    """Read a room's entries with `after < pos <= upto`, oldest first."""
    return [_entry(row) for row in tx.all(_ROOM_BETWEEN, (room_nid, after, upto, limit))]


def user_between(tx: Transaction, user_nid: int, after: int, upto: int, limit: int) -> list[Entry]:
    """Read a user's entries with `after < pos <= upto`, oldest first."""
    return [_entry(row) for row in tx.all(_USER_BETWEEN, (user_nid, after, upto, limit))]
