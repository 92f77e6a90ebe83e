"""The newest stretch of the feed in memory, indexed by room and by user. Pure data; follows nothing.

Positions are contiguous, so an entry's place is arithmetic. A newer receipt of the same row hides the
older one: the row tells the latest anyhow.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from homeserver.events.stored import StoredEvent
from storage.feed import Entry, Kind

ENTRY_BYTES = 700
"""What an entry costs in memory without its payload, roughly, with its places in the indexes."""


class Ring:
    """Entries `first` to `last`, without holes, within a budget in bytes."""

    def __init__(self, position: int, budget: int) -> None:
        """Start empty after `position`."""
        self.last = position
        self._budget = budget
        self._bytes = 0
        self._entries: deque[Entry] = deque()
        self._rooms: dict[int, deque[Entry]] = {}
        self._users: dict[int, deque[Entry]] = {}
        self._receipts: dict[tuple[int | None, int | None, int | None], int] = {}

    @property
    def after(self) -> int:
        """Give the position before the first entry that is here."""
        return self.last - len(self._entries)

    @property
    def size(self) -> int:
        """Tell the bytes in use, roughly."""
        return self._bytes

    def append(self, entry: Entry) -> None:
        """Add the next entry; the oldest go when the budget is exceeded."""
        assert entry.pos == self.last + 1, "the feed has no holes"
        self.last = entry.pos
        self._entries.append(entry)
        self._bytes += _size(entry)
        if entry.room_nid is not None:
            self._rooms.setdefault(entry.room_nid, deque()).append(entry)
        if entry.user_nid is not None:
            self._users.setdefault(entry.user_nid, deque()).append(entry)
        if entry.kind == Kind.RECEIPT:
            self._receipts[entry.room_nid, entry.user_nid, entry.ref] = entry.pos
        while self._bytes > self._budget:
            self._drop_oldest()

    def since(self, pos: int) -> list[Entry] | None:
        """Give all entries after `pos`; None if the ring does not reach back so far."""
        return self._newer(self._entries, pos)

    def room_since(self, room_nid: int, pos: int) -> list[Entry] | None:
        """Give a room's entries after `pos`; None if the ring does not reach back so far."""
        return self._newer(self._rooms.get(room_nid, ()), pos)

    def user_since(self, user_nid: int, pos: int) -> list[Entry] | None:
        """Give a user's entries after `pos`; None if the ring does not reach back so far."""
        return self._newer(self._users.get(user_nid, ()), pos)

    def _newer(self, entries: deque[Entry] | tuple[()], pos: int) -> list[Entry] | None:
        if pos < self.after:
            return None
        found = list(self._backwards(entries, pos))
        found.reverse()
        return found

    def _backwards(self, entries: deque[Entry] | tuple[()], pos: int) -> Iterator[Entry]:
        for entry in reversed(entries):
            if entry.pos <= pos:
                return
            if entry.kind != Kind.RECEIPT or self._is_latest(entry):
                yield entry

    def _is_latest(self, receipt: Entry) -> bool:
        return self._receipts[receipt.room_nid, receipt.user_nid, receipt.ref] == receipt.pos

    def _drop_oldest(self) -> None:
        entry = self._entries.popleft()
        self._bytes -= _size(entry)
        if entry.room_nid is not None:
            _drop_first(self._rooms, entry.room_nid)
        if entry.user_nid is not None:
            _drop_first(self._users, entry.user_nid)
        if entry.kind == Kind.RECEIPT and self._is_latest(entry):
            del self._receipts[entry.room_nid, entry.user_nid, entry.ref]


def _size(entry: Entry) -> int:
    """Tell what an entry costs with its event, though the cache of events may hold that as well."""
    return ENTRY_BYTES + (entry.payload.size if isinstance(entry.payload, StoredEvent) else 0)


def _drop_first(index: dict[int, deque[Entry]], name: int) -> None:
    entries = index[name]
    entries.popleft()
    if not entries:
        del index[name]
