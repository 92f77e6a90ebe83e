"""The collector removes what no state needs, and nothing else, whatever writers do meanwhile."""

from __future__ import annotations

from collections.abc import Iterable

from twisted.internet.defer import Deferred, gatherResults

from protocol.identifiers import StateKey
from storage import state_trie, trie_collector
from storage.database import Database, Transaction
from storage.migrate import migrate
from storage.state_trie import EMPTY_ROOT, StateRoot
from storage.trie_collector import TrieCollector, mark, sweep
from storage.trie_format import NodeName
from storage.trie_nodes import run_in_transaction
from tests.storage.helpers import PostgresCase, SqliteCase, insert_nodes

ROOM = 3
SOME = ("m.room.member", "@u5:x")
_EVENT = (
    "INSERT INTO events"
    " (room_nid, event_nid, event_id, status, depth, type, sender_nid, ts, root_before, pdu)"
    " VALUES (?, ?, ?, 0, 1, 'm.room.message', 1, 0, ?, ?)"
)
_HEAD = (
    "INSERT INTO room_heads (room_nid, head_seq, extremities, root, depth) VALUES (?, 1, ?, ?, 1)"
    " ON CONFLICT (room_nid) DO UPDATE SET root = excluded.root, head_seq = room_heads.head_seq + 1"
)


def members(tx: Transaction, root: StateRoot) -> dict[str, int]:
    """Read all members of a root; raises MissingNode when it was wrongly collected."""
    return run_in_transaction(tx, ROOM, state_trie.members(root))


def head_of(tx: Transaction) -> tuple[int, StateRoot]:
    """Give head_seq and root, holding the room."""
    row = tx.one("SELECT head_seq, root FROM room_heads WHERE room_nid = ? FOR UPDATE", (ROOM,))
    assert row is not None
    return row[0], row[1]


def commit(tx: Transaction, event_nid: int, changes: dict[StateKey, int | None]) -> StateRoot:
    """Do what a commit does: lock the head, build on its root, store nodes, event and head."""
    row = tx.one("SELECT root FROM room_heads WHERE room_nid = ? FOR UPDATE", (ROOM,))
    before = row[0] if row else EMPTY_ROOT
    applied = run_in_transaction(tx, ROOM, state_trie.apply(ROOM, before, changes))
    insert_nodes(tx, ROOM, applied.nodes)
    tx.execute(_EVENT, (ROOM, event_nid, f"$e{event_nid}", before, b"{}"))
    tx.execute(_HEAD, (ROOM, b"", applied.root))
    return applied.root


def purge(tx: Transaction, event_nids: Iterable[int]) -> None:
    """Delete events, as retention does."""
    head_of(tx)
    tx.execute("DELETE FROM events WHERE room_nid = ? AND event_nid IN ?", (ROOM, list(event_nids)))


def nodes(tx: Transaction) -> set[NodeName]:
    """Give the names of all nodes of the room."""
    return {row[0] for row in tx.all("SELECT hash FROM state_nodes WHERE room_nid = ?", (ROOM,))}


def live_roots(tx: Transaction) -> set[StateRoot]:
    """Give all roots that are named somewhere."""
    events = tx.all("SELECT root_before FROM events WHERE room_nid = ?", (ROOM,))
    heads = tx.all("SELECT root FROM room_heads WHERE room_nid = ?", (ROOM,))
    return {row[0] for row in [*events, *heads]}


def check(tx: Transaction) -> int:
    """Read every live root to its last leaf and give their number."""
    roots = live_roots(tx)
    for root in roots:
        members(tx, root)
    return len(roots)


class CollectorContract:
    """Collecting on any engine."""

    database: Database
    collector: TrieCollector

    async def prepare(self) -> StateRoot:
        """Make a room of 300 members and give its root."""
        await migrate(self.database)
        self.collector = TrieCollector(self.database)
        changes: dict[StateKey, int | None] = {("m.room.member", f"@u{n}:x"): n for n in range(300)}
        return await self.database.write(commit, 1, changes)

    async def test_garbage_goes_and_the_rest_stays(self) -> None:
        """After a purge exactly the nodes of purged states go; other rooms keep theirs."""
        first = await self.prepare()
        before = await self.database.read(nodes)
        await self.database.write(insert_nodes, ROOM + 1, {NodeName(bytes([1] * 16)): b"x"})
        for nid in range(2, 12):
            await self.database.write(commit, nid, {SOME: nid})
        self.assertEqual(await self.collector.collect(ROOM), 0)
        await self.database.write(purge, range(3, 11))
        last = (await self.database.write(head_of))[1]
        deleted = await self.collector.collect(ROOM)
        self.assertGreater(deleted, 8)
        self.assertEqual(await self.database.read(check), 4)
        left = await self.database.read(nodes)
        self.assertTrue(before <= left)
        self.assertEqual((await self.database.read(members, last))["@u5:x"], 11)
        self.assertEqual((await self.database.read(members, first))["@u5:x"], 5)
        self.assertEqual(await self.collector.collect(ROOM), 0)
        others = await self.database.read(lambda tx: tx.one("SELECT count(*) FROM state_nodes"))
        self.assertEqual(others, (len(left) + 1,))

    async def test_a_room_without_a_head_is_left_alone(self) -> None:
        """A room that is not known here is not touched."""
        await self.prepare()
        await self.database.write(insert_nodes, 99, {NodeName(bytes(15) + b"1"): b"x"})
        self.assertEqual(await self.collector.collect(99), 0)

    async def test_a_node_made_live_again_stays(self) -> None:
        """A commit between mark and sweep that comes back to a dead state keeps its nodes."""
        await self.prepare()
        again = await self.database.write(commit, 2, {SOME: 77})
        await self.database.write(commit, 3, {SOME: 78})
        await self.database.write(commit, 4, {SOME: 79})
        await self.database.write(purge, [3])
        marks = await self.database.read(mark, ROOM)
        self.assertTrue(marks.candidates)
        self.assertEqual(await self.database.write(commit, 5, {SOME: 77}), again)
        refused = await self.database.write(sweep, marks, marks.candidates, insist=False)
        self.assertIsNone(refused)
        await self.database.write(sweep, marks, marks.candidates, insist=True)
        self.assertEqual((await self.database.read(members, again))["@u5:x"], 77)
        await self.database.read(check)

    async def test_a_sweep_makes_remembered_heads_lose(self) -> None:
        """Deleting nodes bumps head_seq, so no worker commits on nodes it only remembers."""
        await self.prepare()
        await self.database.write(commit, 2, {SOME: 77})
        await self.database.write(commit, 3, {SOME: 78})
        seq, _ = await self.database.write(head_of)
        await self.collector.collect(ROOM)
        self.assertEqual((await self.database.write(head_of))[0], seq)
        await self.database.write(purge, [3])
        self.assertGreater(await self.collector.collect(ROOM), 0)
        self.assertGreater((await self.database.write(head_of))[0], seq)

    async def test_beside_writers(self) -> None:
        """Writers that come and go between few states, a purger and two collectors lose no live node."""
        await self.prepare()
        self.patch(trie_collector, "SWEEP_NODES", 7)
        done = [0]

        async def write(number: int) -> None:
            for turn in range(25):
                nid = 1000 * number + turn
                await self.database.write(commit, nid, {SOME: turn % 3, ("m.room.name", ""): number})
                if turn % 4 == 3:
                    await self.database.write(purge, range(nid - 3, nid + 1))
            done[0] += 1

        async def collect() -> None:
            while done[0] < 3:
                await self.collector.collect(ROOM)
                await self.database.read(check)

        await gatherResults(
            [
                *(Deferred.fromCoroutine(write(number)) for number in (1, 2, 3)),
                *(Deferred.fromCoroutine(collect()) for _ in range(2)),
            ]
        )
        await self.collector.collect(ROOM)
        self.assertEqual(await self.database.read(check), len(await self.database.read(live_roots)))
        self.assertEqual((await self.database.read(mark, ROOM)).candidates, ())


class SqliteCollectorTests(CollectorContract, SqliteCase):
    """Collecting on SQLite."""


class PostgresCollectorTests(CollectorContract, PostgresCase):
    """Collecting on PostgreSQL."""
