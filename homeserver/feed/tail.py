"""The feed's tail in this process: every entry in order, first to the caches, then to the sessions.

Entries come from this process's own commits and, where other workers write too, from the database: a hole
before an own entry, a notification or a timer makes the tail catch up. Caches follow here and nowhere
else, so that what a session sees is never older than the entry that woke it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.logger import Logger

from homeserver.feed.ring import Ring
from homeserver.single_flight import SingleFlight
from storage import feed
from storage.database import Database
from storage.feed import Entry

log = Logger()

Listener = Callable[[Sequence[Entry]], None]

ENTRIES_A_READ = 1_000
_END = (1 << 63) - 1


class Feed:
    """Follow the feed, keep its newest stretch, and tell listeners."""

    def __init__(self, database: Database, budget: int) -> None:
        """Read from `database`; keep up to `budget` bytes of entries. `start` comes first."""
        self._database = database
        self._ring = Ring(0, budget)
        self._budget = budget
        self._caches: list[Listener] = []
        self._sessions: list[Listener] = []
        self._own: dict[int, Entry] = {}
        self._reading: SingleFlight[None, None] = SingleFlight()
        self.whole_at = 0
        """When (ms) an own commit last proved that the tail had everything."""

    @property
    def position(self) -> int:
        """Give the position up to which this process has seen everything."""
        return self._ring.last

    @property
    def reach(self) -> int:
        """Give the position back to which `since` gives all entries."""
        return self._ring.after

    async def start(self) -> None:
        """Begin at the feed's present end."""
        self._ring = Ring(await self._database.read(feed.tail), self._budget)

    def add_cache(self, listener: Listener) -> None:
        """Tell `listener` of every stretch of entries, before any session hears of it."""
        self._caches.append(listener)

    def add_session_listener(self, listener: Listener) -> None:
        """Tell `listener` of every stretch of entries, after all caches have followed."""
        self._sessions.append(listener)

    def since(self, pos: int) -> list[Entry] | None:
        """Give all entries after `pos`; None: read them with `load`."""
        return self._ring.since(pos)

    def room_since(self, room_nid: int, pos: int) -> list[Entry] | None:
        """Give a room's entries after `pos`; None: read them with `load`."""
        return self._ring.room_since(room_nid, pos)

    def user_since(self, user_nid: int, pos: int) -> list[Entry] | None:
        """Give a user's entries after `pos`; None: read them with `load`."""
        return self._ring.user_since(user_nid, pos)

    async def load(
        self,
        after: int,
        upto: int,
        *,
        room_nid: int | None = None,
        user_nid: int | None = None,
        limit: int = ENTRIES_A_READ,
    ) -> list[Entry]:
        """Read entries with `after < pos <= upto` from the database: of one room, of one user, or all."""
        if room_nid is not None:
            return await self._database.read(feed.room_between, room_nid, after, upto, limit)
        if user_nid is not None:
            return await self._database.read(feed.user_between, user_nid, after, upto, limit)
        return await self._database.read(feed.between, after, upto, limit)

    async def deliver(self, entries: Sequence[Entry], began: int) -> None:
        """Take in entries that this process has committed, after whatever others committed before them.

        Those that follow on the last prove that nothing was missing when their transaction began (ms).
        """
        if entries[0].pos == self.position + 1:
            self.whole_at = began
            self._tell(entries)
            return
        self._own.update((entry.pos, entry) for entry in entries)
        try:
            while self.position < entries[-1].pos:
                await self.catch_up()
        finally:
            for entry in entries:
                self._own.pop(entry.pos, None)

    async def catch_up(self) -> None:
        """Take in what others have committed; several calls at a time share one reading."""
        await self._reading.run(None, self._read_on)

    async def _read_on(self) -> None:
        """Read until a stretch comes that is not full."""
        while True:
            found = await self.load(self.position, _END)
            fresh = [self._own.get(entry.pos, entry) for entry in found if entry.pos > self.position]
            if fresh:
                self._tell(fresh)
            if len(found) < ENTRIES_A_READ:
                return

    def _tell(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            self._ring.append(entry)
        for listener in (*self._caches, *self._sessions):
            try:
                listener(entries)
            except Exception:
                log.failure("A listener of the feed failed")
