"""Tests of what is kept of other servers, on both engines."""

from __future__ import annotations

from typing import Any

from attrs import evolve

from protocol.identifiers import KeyID, ServerName
from storage.catch_up import CatchUpStore, Owed
from storage.database import Database, Transaction
from storage.destinations import DestinationStore, Failing
from storage.federation_shards import SHARDS, ShardStore, shard_of
from storage.feed import Flag, Kind, NewEntry, append
from storage.migrate import migrate
from storage.outbound_edus import Extra, OutboundEduStore, QueuedEdu, queue_rows
from storage.rows import run_all
from storage.server_keys import ServerKeyStore, StoredKey
from tests.storage.helpers import PostgresCase, SqliteCase

ONE = ServerName("one.example")
TWO = ServerName("two.example")
KEY = StoredKey(ONE, KeyID("ed25519:1"), b"k" * 32, 1000, False, 5, b"{}")


class FederationStoreTests:
    """The contract of the stores."""

    database: Database
    assertEqual: Any

    async def test_a_key_id_never_changes_its_key(self) -> None:
        """A later document extends a key's life; another key under the same ID is not kept (security: K5)."""
        await migrate(self.database)
        store = ServerKeyStore(self.database)
        other = evolve(KEY, server=TWO)
        await store.keep([KEY, other])
        await store.keep(
            [evolve(KEY, valid_until=2000, document=b"new"), evolve(other, public_key=b"x" * 32)]
        )
        await store.keep([evolve(KEY, valid_until=1500, document=b"old")])
        found = {key.server: key for key in await store.of_servers([ONE, TWO])}
        self.assertEqual(found, {ONE: evolve(KEY, valid_until=2000, document=b"new"), TWO: other})
        self.assertEqual(await store.of_servers([]), [])

    async def test_an_expired_key_stays_expired(self) -> None:
        """What a server gave up, no document of another time brings back (security: K1)."""
        await migrate(self.database)
        store = ServerKeyStore(self.database)
        await store.keep([KEY])
        expired = evolve(KEY, valid_until=700, expired=True)
        await store.keep([expired])
        await store.keep([evolve(KEY, valid_until=9999)])
        self.assertEqual(await store.of_servers([ONE]), [expired])

    async def test_back_off_and_position_are_apart(self) -> None:
        """Writing the one leaves the other."""
        await migrate(self.database)
        store = DestinationStore(self.database)
        self.assertEqual(await store.failing(ONE), None)
        await store.set_failing(ONE, Failing(1, 2, 3))
        await store.set_position(ONE, 7)
        await store.set_position(TWO, 8)
        self.assertEqual(await store.failing(ONE), Failing(1, 2, 3))
        self.assertEqual(await store.behind(), {ONE: 7, TWO: 8})
        await store.set_failing(ONE, None)
        await store.set_position(TWO, None)
        self.assertEqual((await store.failing(ONE), await store.behind()), (None, {ONE: 7}))

    async def test_shards_are_shared_and_change_hands(self) -> None:
        """Equal shares, no shard twice, and those of the dead are taken when their lease ends."""
        await migrate(self.database)
        store = ShardStore(self.database)
        self.assertEqual(len(await store.renew("a", 0, 10, {})), SHARDS)
        self.assertEqual(await store.renew("b", 1, 11, {}), {})
        first = await store.renew("a", 2, 12, {})
        second = await store.renew("b", 3, 13, {})
        self.assertEqual((len(first), len(second), set(first) & set(second)), (8, 8, set()))
        moved = await store.renew("a", 3, 12, dict.fromkeys(first, 50))
        self.assertEqual(moved, dict.fromkeys(first, 50))
        last, *others = second
        await store.renew("b", 4, 14, {**dict.fromkeys([*first, *others], 99), last: 7})
        taken = await store.renew("b", 12, 22, {})
        self.assertEqual(taken, {**dict.fromkeys(first, 50), **dict.fromkeys(others, 99), last: 7})
        await store.release("b", {last: 8})
        left = await store.renew("c", 13, 23, {last: 5})
        self.assertEqual(left, {**taken, last: 8})
        self.assertEqual(shard_of(ONE), shard_of(ServerName("one.example")))

    async def test_edus_wait_in_order(self) -> None:
        """By time, then number; they are forgotten by number."""
        await migrate(self.database)
        store = OutboundEduStore(self.database)
        rows = queue_rows([(2, ONE, 5, b"b"), (1, ONE, 6, b"c"), (3, ONE, 4, b"a"), (4, TWO, 1, b"x")])
        await self.database.write(run_all, [rows])
        self.assertEqual(await store.next(ONE, 2), [QueuedEdu(3, b"a"), QueuedEdu(2, b"b")])
        self.assertEqual(sorted(await store.waiting()), [ONE, TWO])
        self.assertEqual(await store.servers_of([4]), [TWO])
        await store.trim(ONE)
        await store.delivered([3, 2])
        self.assertEqual(await store.next(ONE, 9), [QueuedEdu(1, b"c")])

    async def test_extras(self) -> None:
        """Between two positions; once each."""
        await migrate(self.database)
        store = OutboundEduStore(self.database)
        for pos in (5, 6, 7, 6):
            await store.add_extra(ONE, Extra(pos, 1, pos * 10))
        self.assertEqual(await store.extras(ONE, 5, 7, 9), [Extra(6, 1, 60), Extra(7, 1, 70)])
        await store.drop_extras(ONE, 6)
        self.assertEqual(await store.extras(ONE, 0, 9, 9), [Extra(7, 1, 70)])

    async def test_what_a_server_is_owed(self) -> None:
        """Events built here, in rooms it is in or was last in after the position; the newest of each room."""
        await migrate(self.database)

        def fill(tx: Transaction) -> None:
            rooms = [(1, ONE, 1, None), (2, ONE, 0, 22), (3, ONE, 0, 5), (1, TWO, 1, None)]
            tx.many(
                "INSERT INTO room_servers (room_nid, server, members, left_nid) VALUES (?, ?, ?, ?)", rooms
            )
            entries = [
                NewEntry(Kind.EVENT, Flag.FEDERATE | Flag.MEMBERSHIP, room, None, nid)
                for room, nid in ((1, 11), (2, 21), (3, 31), (1, 9), (2, 22))
            ]
            append(tx, [*entries, NewEntry(Kind.EVENT, Flag.NONE, 1, None, 13)], "test")
            append(tx, [NewEntry(Kind.EVENT, Flag.FEDERATE, room, None, 99) for room in (2, 3)], "test")

        await self.database.write(fill)
        store = CatchUpStore(self.database)
        self.assertEqual(
            await store.owed(ONE, 0, 6, 9), [Owed(1, 1, 11), Owed(2, 2, 21), Owed(4, 1, 9), Owed(5, 2, 22)]
        )
        self.assertEqual(await store.owed(ONE, 1, 4, 9), [Owed(2, 2, 21), Owed(4, 1, 9)])
        self.assertEqual(await store.owed(ONE, 0, 9, 1), [Owed(1, 1, 11)])
        self.assertEqual(await store.newest(ONE, 0, 9), [Owed(4, 1, 9), Owed(5, 2, 22)])
        self.assertEqual(await store.newest(ONE, 5, 9), [])
        self.assertEqual(sorted(await store.servers_owed(3, 6)), [ONE, TWO])
        self.assertEqual(await store.servers_owed(8, 9), [])


class SqliteFederationStoreTests(FederationStoreTests, SqliteCase):
    """On SQLite."""


class PostgresFederationStoreTests(FederationStoreTests, PostgresCase):
    """On PostgreSQL."""
