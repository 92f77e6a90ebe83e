"""What is handed to the persister, and what comes back.

A `Write` is one indivisible piece of a group commit: wide rows, feed entries, and at most one room's head.
Whatever bears a position in the feed is a `Write`: events, receipts, account data, to-device messages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from typing import Protocol

from attrs import frozen

from protocol.errors import MatrixError
from protocol.identifiers import EventID
from storage.database import DatabaseGone, Transaction
from storage.feed import Entry, NewEntry
from storage.heads import HeadRow, HeadUpdate
from storage.rows import Rows
from storage.transactions import Claim, TransactionKey

__all__ = [
    "Build",
    "Committed",
    "DatabaseGone",
    "HeadMoved",
    "LockedWrite",
    "Poisoned",
    "TakenBack",
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
    unless: Callable[[Transaction], bool] | None = None
    """Asked in the transaction before anything of the room is written: if it is so, the write leaves."""


class Build(Protocol):
    """Makes writes to one room while the room is locked.

    It runs on a database thread, perhaps more than once (a batch may be tried again), and uses nothing
    that the reactor changes.
    """

    @property
    def claims(self) -> Sequence[Claim]:
        """Give the transaction IDs it needs, claimed before the room is locked; events are not known yet."""
        ...

    def build(
        self, tx: Transaction, head: HeadRow | None, taken: Set[TransactionKey]
    ) -> Sequence[Write | Exception]:
        """Give for each piece the write that goes in (each on the one before), or why it does not.

        `head` is None if the room has no head; `taken` are the claims that were free.
        """
        ...


class LockedWrite(Protocol):
    """Writes that are built only when the persister's turn comes to them: the second try of a loser."""

    @property
    def room_nid(self) -> int:
        """Give the one room it writes to."""
        ...

    def begin(self) -> Build:
        """Collect what is to be built; called on the reactor, once, when a batch takes it in."""
        ...


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


class TakenBack(Exception):
    """What the write was not to be made for (`Write.unless`) is so."""


class TransactionRepeated(Exception):
    """The transaction ID was used before; `event_id` is the first answer (None: not an event)."""

    def __init__(self, event_id: EventID | None) -> None:
        """Name the first answer."""
        super().__init__(event_id)
        self.event_id = event_id


class Poisoned(MatrixError):
    """The database refuses the rows of this write, whatever stands beside it in the batch."""

    status = 500
