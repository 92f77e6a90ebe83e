"""Tests of the feed's tail over a real database, with another writer beside this one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from homeserver.feed.tail import Feed
from storage import feed
from storage.database import Database
from storage.feed import Entry, HeadMark, Kind, NewEntry
from storage.migrate import migrate
from tests.storage.helpers import PostgresCase, SqliteCase

BEGAN = 1_700_000_000_000


class TailTests:
    """What must hold on every engine."""

    database: Database
    assertEqual: Callable[..., None]

    async def begin(self) -> Feed:
        """Make the tables and a tail that notes what it tells."""
        await migrate(self.database)
        self.told: list[int] = []
        tail = Feed(self.database, 1 << 20)
        await tail.start()
        tail.add_session_listener(self.note)
        return tail

    def note(self, entries: Sequence[Entry]) -> None:
        """Note the positions of a stretch."""
        self.told += [entry.pos for entry in entries]

    async def write(self, *refs: int) -> list[Entry]:
        """Commit entries, as any worker would, and give them as this process knows them."""
        new = [
            NewEntry(Kind.EVENT, 0, 1, 2, ref, b"r" * 16, HeadMark(1, 2, (3, 4)), payload="own")
            for ref in refs
        ]
        first = (await self.database.write(feed.append, new, "someone")).first
        return [entry.at(pos) for pos, entry in enumerate(new, first)]

    async def test_own_entries_are_told_at_once(self) -> None:
        """Entries that follow on the last are told without a look at the database."""
        tail = await self.begin()
        await tail.deliver(await self.write(10, 11), BEGAN)
        self.assertEqual((self.told, tail.whole_at), ([1, 2], BEGAN))

    async def test_a_hole_is_filled_first(self) -> None:
        """What others committed before an own entry is told before it; the own one keeps its payload."""
        tail = await self.begin()
        await self.write(10, 11)
        own = await self.write(12)
        await tail.deliver(own, BEGAN)
        self.assertEqual((self.told, tail.whole_at), ([1, 2, 3], 0))
        since = tail.since(0)
        assert since is not None
        self.assertEqual([entry.payload for entry in since], [None, None, "own"])

    async def test_ring_and_table_agree(self) -> None:
        """An entry read back is the entry that was written, but for its payload."""
        tail = await self.begin()
        await tail.deliver(await self.write(10, 11), BEGAN)
        read = await tail.load(0, 2)
        kept = tail.since(0)
        assert kept is not None
        self.assertEqual([entry.ref for entry in read], [10, 11])
        for one, other in zip(read, kept, strict=True):
            self.assertEqual(
                (one.pos, one.kind, one.flags, one.room_nid, one.user_nid, one.ref, one.root, one.head),
                (
                    other.pos,
                    other.kind,
                    other.flags,
                    other.room_nid,
                    other.user_nid,
                    other.ref,
                    other.root,
                    other.head,
                ),
            )

    async def test_a_late_start_begins_at_the_end(self) -> None:
        """A tail tells nothing from before its start, and says that it does not reach back."""
        await self.begin()
        await self.write(10)
        late = Feed(self.database, 1 << 20)
        await late.start()
        self.assertEqual(late.position, 1)
        self.assertEqual(late.since(0), None)
        self.assertEqual([entry.ref for entry in await late.load(0, 1, room_nid=1)], [10])
        self.assertEqual([entry.ref for entry in await late.load(0, 1, user_nid=2)], [10])

    async def test_a_failing_listener_harms_nobody(self) -> None:
        """When one listener fails, the others still hear."""
        tail = await self.begin()

        def fail(_: Sequence[Entry]) -> None:
            raise ValueError("no")

        tail.add_cache(fail)
        await tail.deliver(await self.write(10), BEGAN)
        self.assertEqual(self.told, [1])
        self.flushLoggedErrors(ValueError)

    flushLoggedErrors: Callable[..., list[object]]


class SqliteTailTests(TailTests, SqliteCase):
    """On SQLite."""


class PostgresTailTests(TailTests, PostgresCase):
    """On PostgreSQL."""
