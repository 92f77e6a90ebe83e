"""A room's stretch of the feed: its newest entries within bounds, from the ring or from the database.

Both sources give the same value for the same bounds; all that follows works on it alone, which is why
the fast and the slow path cannot differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from attrs import field, frozen

from storage.feed import Entry, Kind, NewEntry
from storage.spans import Bounds

_CHANGES = (Kind.EVENT, Kind.STATE)
_EVENTS = (Kind.EVENT, Kind.INVITE)


@frozen(eq=False)
class RoomSpan:
    """The newest events and state changes of a room within bounds, oldest first."""

    room_nid: int
    after: int
    upto: int
    entries: tuple[Entry, ...]
    complete: bool
    """Whether these are all; else older ones within the bounds were left out."""
    receipts: frozenset[int] = frozenset()
    events: tuple[Entry, ...] = field(init=False)
    straight: bool = field(init=False)
    """Whether each entry follows from the one before it: no forks, no state change without an event."""

    @events.default
    def _events(self) -> tuple[Entry, ...]:
        """Leave out state changes without an event."""
        return tuple(entry for entry in self.entries if entry.kind in _EVENTS)

    @straight.default
    def _straight(self) -> bool:
        """See whether every event was the room's only extremity after it."""
        return all(is_straight(entry) for entry in self.entries)

    @property
    def key(self) -> tuple[int, int, int, bool]:
        """Give what names the stretch: sessions with the same key are shown the same events."""
        entries = self.entries
        return (self.room_nid, entries[0].pos, entries[-1].pos, self.complete) if entries else (0, 0, 0, True)


def is_straight(entry: Entry | NewEntry) -> bool:
    """Tell whether an entry is an event on which alone the room goes on."""
    return entry.kind == Kind.EVENT and entry.head is not None and entry.head.extremities == (entry.ref,)


def of_one(room_nid: int, after: int, entry: Entry) -> RoomSpan:
    """Make the span of the reader's own entry alone; in a room this server is not in, it is an invite's."""
    return RoomSpan(room_nid, after, entry.pos, (entry,), True)


def cut(bounds: Bounds, newest_first: Sequence[Entry], receipts: Iterable[int] = ()) -> RoomSpan:
    """Make a span of entries read with one more than `bounds.n`, newest first."""
    kept = newest_first[: bounds.n]
    return RoomSpan(
        bounds.room_nid,
        bounds.after,
        bounds.upto,
        tuple(reversed(kept)),
        len(newest_first) <= bounds.n,
        frozenset(receipts),
    )


def cut_ring(bounds: Bounds, entries: Sequence[Entry]) -> RoomSpan:
    """Make the same span of a room's entries in the ring, which reaches back to `bounds.after`."""
    within = [entry for entry in entries if bounds.after < entry.pos <= bounds.upto]
    changes = [entry for entry in reversed(within) if entry.kind in _CHANGES]
    receipts = {entry.ref for entry in within if entry.kind == Kind.RECEIPT and entry.ref is not None}
    return cut(bounds, changes, receipts)
