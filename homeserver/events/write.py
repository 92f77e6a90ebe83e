"""What is handed to the persister, and what comes back.

A `Write` is one indivisible piece of a group commit: wide rows, feed entries, and at most one room's head.
Whatever bears a position in the feed is a `Write`: events, receipts, account data, to-device messages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import frozen

from protocol.errors import MatrixError
from protocol.identifiers import EventID
from storage.database import DatabaseGone, Transaction
from storage.feed import Entry, NewEntry
from storage.heads import HeadRow, HeadUpdate
from storage.rows import Rows
from storage.transactions import Claim

__all__ = [
    "Committed",
    "DatabaseGone",
    "HeadMoved",
    "LockedWrite",
    "Poisoned",
    "TransactionRepeated",
    "Write",
]


@frozen(eq=False)
class Write:
    """All that one event, receipt or the like brings into the database."""

    rows: tuple[Rows, ...] = ()
    entries: tuple[NewEntry, ...] = ()
    head: HeadUpdate | None = None
    """The room's head after it, guarded by the `head_seq` it was built on."""
    txn: Claim | None = None
    size: int = 0
    """Bytes of the wide rows, roughly: batches are bounded by it."""


@frozen(eq=False)
class LockedWrite:
    """Writes to one room that are built while the room's head is locked: the second try of a loser.

    `build` runs on a database thread; it may use the transaction and its own arguments alone. Each
    outcome is a write that goes in, or the error of a piece that no longer passes.
    """

    room_nid: int
    build: Callable[[Transaction, HeadRow], Sequence[Write | Exception]]
    count: int = 1


@frozen(eq=False)
class Committed:
    """A write is on disk: its feed entries, with their positions."""

    entries: tuple[Entry, ...]

    @property
    def pos(self) -> int:
        """Give the last position of the write, 0 if it has none."""
        return self.entries[-1].pos if self.entries else 0


class HeadMoved(Exception):
    """Another writer was faster, or an earlier write of the room left the batch: build it anew."""


class TransactionRepeated(Exception):
    """The transaction ID was used before; `event_id` is the first answer (None: not an event)."""

    def __init__(self, event_id: EventID | None) -> None:
        """Name the first answer."""
        super().__init__(event_id)
        self.event_id = event_id


class Poisoned(MatrixError):
    """The database refuses the rows of this write, whatever stands beside it in the batch."""

    status = 500
