"""Nodes in the table and the cache: reads, holds, budget, and the wall between rooms."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from protocol.identifiers import StateKey
from storage import state_trie
from storage.database import Database, DatabaseGone
from storage.migrate import migrate
from storage.state_trie import EMPTY_ROOT, StateRoot
from storage.trie_format import NodeName
from storage.trie_nodes import (
    ENTRY_OVERHEAD_BYTES,
    MissingNode,
    NodeCache,
    TrieReader,
    load_nodes_of_rooms,
    run_in_transaction,
)
from tests.storage.helpers import PostgresCase, SqliteCase, insert_nodes

ROOM = 11
STATE: dict[StateKey, int | None] = {("m.room.member", f"@u{n}:x"): n for n in range(3000)} | {
    ("m.room.create", ""): 9000,
    ("m.room.odd\0", "\0"): 9001,
}


class CountingDatabase:
    """Counts the reads that reach a database, and may fail the first."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.reads = 0

    async def read(self, work, *args, **kwargs):  # type: ignore[no-untyped-def]
        """Count and pass on."""
        self.reads += 1
        return await self.database.read(work, *args, **kwargs)


class TrieReaderContract:
    """Reading tries from any engine."""

    database: Database
    reader: TrieReader
    counting: CountingDatabase

    async def store(self, room_nid: int, state: dict[StateKey, int | None]) -> StateRoot:
        """Build a state and put its nodes into the table."""
        applied = await self.reader.run(room_nid, state_trie.apply(room_nid, EMPTY_ROOT, state))
        await self.database.write(insert_nodes, room_nid, applied.nodes)
        await self.database.write(insert_nodes, room_nid, applied.nodes)
        return applied.root

    async def prepare(self) -> StateRoot:
        """Make the schema and a room."""
        await migrate(self.database)
        self.counting = CountingDatabase(self.database)
        self.reader = TrieReader(self.counting, NodeCache(1 << 20))  # type: ignore[arg-type]
        return await self.store(ROOM, STATE)

    async def test_reads_cost_one_hop_and_then_none(self) -> None:
        """A cold walk takes one read of the database for all its levels, a warm one none."""
        root = await self.prepare()
        self.counting.reads = 0
        self.assertEqual(await self.reader.run(ROOM, state_trie.all_entries(root)), STATE)
        self.assertEqual(self.counting.reads, 1)
        found = await self.reader.run(ROOM, state_trie.find(root, [("m.room.member", "@u5:x")]))
        self.assertEqual(found, {("m.room.member", "@u5:x"): 5})
        self.assertEqual(self.counting.reads, 1)

    async def test_in_a_transaction(self) -> None:
        """The same walks run inside a transaction."""
        root = await self.prepare()
        found = await self.database.read(
            lambda tx: run_in_transaction(tx, ROOM, state_trie.all_except_type(root, "m.room.member"))
        )
        self.assertEqual(found, {("m.room.create", ""): 9000, ("m.room.odd\0", "\0"): 9001})

    async def test_a_root_is_of_use_with_its_room_alone(self) -> None:
        """A root used with another room is refused, though that room has equal state (security: S13)."""
        root = await self.prepare()
        other = await self.store(ROOM + 1, STATE)
        self.assertNotEqual(root, other)
        for room, wrong in ((ROOM + 1, root), (ROOM, other), (ROOM + 2, root)):
            for reader in (self.reader, TrieReader(self.database, NodeCache(1 << 20))):
                with self.assertRaises(MissingNode):
                    await reader.run(room, state_trie.members(wrong))

    async def test_nodes_of_many_rooms_are_read_at_once(self) -> None:
        """Nodes of several rooms come at once; those asked of another room than theirs do not."""
        await self.prepare()
        roots = {room_nid: await self.store(room_nid, STATE) for room_nid in (1, 2, 3)}
        wanted = [(room_nid, NodeName(root)) for room_nid, root in roots.items()]
        strayed = (1, NodeName(roots[2]))
        found = await self.database.read(load_nodes_of_rooms, [*wanted, strayed])
        self.assertEqual(found.keys(), set(wanted))
        for node in wanted:
            alone = await self.database.read(load_nodes_of_rooms, [node])
            self.assertEqual(alone, {node: found[node]})

    async def test_held_nodes_are_found_before_they_are_stored(self) -> None:
        """A state built on one that is not committed yet is readable, and gone when the commit fails."""
        root = await self.prepare()
        key = ("m.room.member", "@new:x")
        first = await self.reader.run(ROOM, state_trie.apply(ROOM, root, {key: 1}))
        self.reader.cache.budget = 0
        self.reader.cache.hold(ROOM, first.nodes)
        second = await self.reader.run(ROOM, state_trie.apply(ROOM, first.root, {key: 2}))
        self.reader.cache.hold(ROOM, second.nodes)
        self.assertEqual(await self.reader.run(ROOM, state_trie.find(second.root, [key])), {key: 2})
        self.assertEqual(await self.reader.run(ROOM, state_trie.diff(first.root, second.root)), {key: (1, 2)})
        self.reader.cache.release(ROOM, second.nodes, stored=False)
        self.reader.cache.release(ROOM, first.nodes, stored=False)
        with self.assertRaises(MissingNode):
            await self.reader.run(ROOM, state_trie.find(second.root, [key]))

    async def test_a_work_that_is_run_again_goes_on(self) -> None:
        """When the engine runs the rest of a walk again after a loss, the answer is right."""
        root = await self.prepare()
        calls = []

        class Flaky(CountingDatabase):
            async def read(self, work, *args, **kwargs):  # type: ignore[no-untyped-def]
                def twice(tx):  # type: ignore[no-untyped-def]
                    class Breaking:
                        dialect = tx.dialect

                        def pairs(self, sql, args):  # type: ignore[no-untyped-def]
                            calls.append(sql)
                            if len(calls) == 2:
                                raise DatabaseGone
                            return tx.pairs(sql, args)

                    try:
                        return work(Breaking())
                    except DatabaseGone:
                        return work(tx)

                return await self.database.read(twice)

        reader = TrieReader(Flaky(self.database), NodeCache(1 << 20))  # type: ignore[arg-type]
        members = await reader.run(ROOM, state_trie.members(root))
        self.assertEqual(members, {f"@u{n}:x": n for n in range(3000)})
        self.assertEqual(len(calls), 2)


class SqliteTrieReaderTests(TrieReaderContract, SqliteCase):
    """Tries on SQLite."""


class PostgresTrieReaderTests(TrieReaderContract, PostgresCase):
    """Tries on PostgreSQL."""


def name(number: int) -> NodeName:
    """Make a node name."""
    return NodeName(number.to_bytes(16, "big"))


class NodeCacheTests(SynchronousTestCase):
    """The cache in memory."""

    def test_the_least_recently_used_go_first(self) -> None:
        """Past the budget in bytes the nodes used longest ago are dropped."""
        cost = 100 + ENTRY_OVERHEAD_BYTES
        cache = NodeCache(3 * cost)
        for number in range(3):
            cache.add(1, {name(number): bytes(100)})
        cache.get(1, [name(0)])
        cache.add(1, {name(3): bytes(100)})
        self.assertIsNone(cache.get(1, [name(1)]))
        self.assertEqual(set(cache.get(1, [name(0), name(2), name(3)]) or ()), {name(0), name(2), name(3)})
        self.assertEqual((cache.size, len(cache)), (3 * cost, 3))
        cache.budget = cost
        cache.trim()
        self.assertEqual(len(cache), 1)

    def test_rooms_are_apart(self) -> None:
        """A node of one room is not found in another, even by the same name (security: S13)."""
        cache = NodeCache(1000)
        cache.add(1, {name(5): b"one"})
        self.assertIsNone(cache.get(2, [name(5)]))
        self.assertIsNone(cache.peek(2, name(5)))
        cache.add(2, {name(5): b"two"})
        self.assertEqual(cache.get(1, [name(5)]), {name(5): b"one"})
        cache.forget_room(1)
        self.assertIsNone(cache.peek(1, name(5)))
        self.assertEqual(cache.peek(2, name(5)), b"two")
        self.assertEqual(cache.size, 3 + ENTRY_OVERHEAD_BYTES)

    def test_holds_are_counted(self) -> None:
        """A node held twice stays until it is released twice; a stored one stays as an ordinary node."""
        cache = NodeCache(1000)
        nodes = {name(1): b"data"}
        cache.hold(1, nodes)
        cache.hold(1, nodes)
        cache.release(1, nodes, stored=False)
        self.assertEqual(cache.peek(1, name(1)), b"data")
        self.assertEqual(len(cache), 0)
        cache.release(1, nodes, stored=True)
        self.assertEqual(cache.get(1, [name(1)]), nodes)
        self.assertEqual(len(cache), 1)
