"""Where the nodes of state tries live: one table, and a cache of their bytes shared by all rooms.

`TrieReader` runs a walk (`storage.state_trie`) from the cache, without a hop to a thread when all nodes are
there; at the first node that is not, the rest of the walk goes to a database thread as a whole, where each
level of the trie is one query. `run_in_transaction` runs a walk in a transaction, from the database alone.

Nodes that a commit has yet to store are *held*: they are found like others, are never evicted, and count
outside the budget. Every key begins with the room: a root is of no use with another room.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Generic, TypeVar, cast

from attrs import define, field

from storage.database import Database, Dialect, Row, Transaction
from storage.statements import array_literal
from storage.trie_format import NAME_BYTES, NodeKey, NodeName
from storage.trie_walks import NeedNodes, Nodes, Walk

T = TypeVar("T")

NODES_A_QUERY = 5_000
ENTRY_OVERHEAD_BYTES = 200
"""What a cached node costs beside its bytes: key, name and the places in the table."""

INSERT_NODES = "INSERT INTO state_nodes (room_nid, hash, data) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
"""Takes `node_rows`; write nodes under the row lock of their room, with the row that names their root."""

_SELECT = "SELECT hash, data FROM state_nodes WHERE room_nid = ? AND hash IN ?"
_SELECT_ON_SQLITE = """
    WITH RECURSIVE wanted(at) AS (SELECT 1 UNION ALL SELECT at + 16 FROM wanted WHERE at + 16 < ?)
    SELECT hash, data FROM wanted CROSS JOIN state_nodes WHERE room_nid = ? AND hash = substr(?, at, 16)
"""
"""Takes all names joined, and looks rows up in their order. `IN` sorts thousands of names first, and then
reads the table crosswise: twice the time where a walk's order is that in which the nodes were made."""

_SELECT_OF_ROOMS = (
    "SELECT n.hash, int8send(n.room_nid) || n.data"
    " FROM unnest(?::bigint[], ?::bytea[]) AS wanted(room_nid, hash)"
    " JOIN state_nodes AS n ON n.room_nid = wanted.room_nid AND n.hash = wanted.hash"
)
"""The room comes before the bytes of its node, since a third column would make all of it text."""
_SELECT_OF_ROOMS_ON_SQLITE = (
    "WITH wanted(room_nid, hash) AS ( VALUES ?) SELECT n.room_nid, n.hash, n.data FROM wanted"
    " JOIN state_nodes AS n ON n.room_nid = wanted.room_nid AND n.hash = wanted.hash"
)


class MissingNode(Exception):
    """A node is not in its room: the root is of another room, or was given up and collected."""


def node_rows(room_nid: int, nodes: Mapping[NodeName, bytes]) -> list[Row]:
    """Give the rows of nodes for `INSERT_NODES`."""
    return [(room_nid, name, data) for name, data in nodes.items()]


def load_nodes(tx: Transaction, room_nid: int, names: Iterable[NodeName]) -> dict[NodeName, bytes]:
    """Load nodes by name; raises `MissingNode` when one is not in the room."""
    wanted = list(names)
    found: dict[NodeName, bytes] = {}
    for start in range(0, len(wanted), NODES_A_QUERY):
        found.update(_select(tx, room_nid, wanted[start : start + NODES_A_QUERY]))
    if len(found) < len(wanted):
        missing = [name for name in wanted if name not in found]
        if missing:
            raise MissingNode(f"{len(missing)} nodes are not in room {room_nid}, one is {missing[0].hex()}")
    return found


def load_nodes_of_rooms(tx: Transaction, wanted: Sequence[NodeKey]) -> dict[NodeKey, bytes]:
    """Load nodes by room and name; unknown ones are absent."""
    rooms = {room_nid for room_nid, _ in wanted}
    if len(rooms) == 1:
        (only,) = rooms
        names = [name for _, name in wanted]
        return {(only, name): data for name, data in load_nodes(tx, only, names).items()}
    found: dict[NodeKey, bytes] = {}
    for start in range(0, len(wanted), NODES_A_QUERY):
        some = wanted[start : start + NODES_A_QUERY]
        if tx.dialect is Dialect.SQLITE:
            found |= {
                (row[0], NodeName(row[1])): row[2] for row in tx.values(_SELECT_OF_ROOMS_ON_SQLITE, some)
            }
        else:
            columns = [array_literal(column) for column in zip(*some, strict=True)]
            for name, data in tx.pairs(_SELECT_OF_ROOMS, columns).items():
                found[int.from_bytes(data[:8], "big"), NodeName(name)] = data[8:]
    return found


def _select(tx: Transaction, room_nid: int, names: list[NodeName]) -> dict[NodeName, bytes]:
    """Give those of the nodes that are there."""
    if tx.dialect is Dialect.SQLITE:
        found = tx.pairs(_SELECT_ON_SQLITE, (NAME_BYTES * len(names), room_nid, b"".join(names)))
    else:
        found = tx.pairs(_SELECT, (room_nid, names))
    return cast(dict[NodeName, bytes], found)


def run_walk(walk: Walk[T], load: Callable[[Collection[NodeName]], Nodes]) -> T:
    """Run a walk to its end, getting nodes by `load`."""
    try:
        need = next(walk)
        while True:
            need = walk.send(load(need.names))
    except StopIteration as stop:
        result: T = stop.value
        return result


def run_in_transaction(tx: Transaction, room_nid: int, walk: Walk[T]) -> T:
    """Run a walk inside a transaction, from the database alone; raises `MissingNode`.

    Give it a walk made in the same work, never one from outside: a work may be run twice.
    """
    return run_walk(walk, lambda names: load_nodes(tx, room_nid, names))


class NodeCache:
    """Nodes in memory, least recently used first out, within a budget in bytes; and held nodes.

    Belongs to the reactor's thread; `peek` alone may be called from any.
    """

    def __init__(self, budget: int) -> None:
        """Keep nodes that cost up to `budget` bytes together."""
        self.budget = budget
        self.size = 0
        self._nodes: OrderedDict[NodeKey, bytes] = OrderedDict()
        self._held: dict[NodeKey, tuple[bytes, int]] = {}

    def __len__(self) -> int:
        """Count the nodes, held ones apart."""
        return len(self._nodes)

    def get(self, room_nid: int, names: Collection[NodeName]) -> dict[NodeName, bytes] | None:
        """Give all these nodes of a room, or None when one is not here."""
        found: dict[NodeName, bytes] = {}
        for name in names:
            data = self._use((room_nid, name))
            if data is None:
                return None
            found[name] = data
        return found

    def get_all(self, wanted: Collection[NodeKey]) -> dict[NodeKey, bytes] | None:
        """Give all these nodes of any rooms, or None when one is not here."""
        found: dict[NodeKey, bytes] = {}
        for key in wanted:
            data = self._use(key)
            if data is None:
                return None
            found[key] = data
        return found

    def _use(self, key: NodeKey) -> bytes | None:
        """Give a node and note its use."""
        data = self._nodes.get(key)
        if data is not None:
            self._nodes.move_to_end(key)
            return data
        held = self._held.get(key)
        return held[0] if held else None

    def peek(self, room_nid: int, name: NodeName) -> bytes | None:
        """Give a node without noting its use; safe on any thread, as each look-up is one step."""
        key = (room_nid, name)
        data = self._nodes.get(key)
        if data is None and (held := self._held.get(key)):
            return held[0]
        return data

    def add(self, room_nid: int, nodes: Mapping[NodeName, bytes]) -> None:
        """Keep nodes of a room that the database has, and drop the oldest past the budget."""
        self.add_all({(room_nid, name): data for name, data in nodes.items()})

    def add_all(self, nodes: Mapping[NodeKey, bytes]) -> None:
        """Keep nodes that the database has, of any rooms, and drop the oldest past the budget."""
        for key, data in nodes.items():
            if key not in self._nodes:
                self._nodes[key] = data
                self.size += len(data) + ENTRY_OVERHEAD_BYTES
        self.trim()

    def trim(self) -> None:
        """Drop the least recently used nodes past the budget; call it after lowering `budget`."""
        while self.size > self.budget and self._nodes:
            _, data = self._nodes.popitem(last=False)
            self.size -= len(data) + ENTRY_OVERHEAD_BYTES

    def hold(self, room_nid: int, nodes: Mapping[NodeName, bytes]) -> None:
        """Keep nodes that are not stored yet until `release` is called as often."""
        for name, data in nodes.items():
            _, count = self._held.get((room_nid, name), (data, 0))
            self._held[room_nid, name] = (data, count + 1)

    def release(self, room_nid: int, nodes: Mapping[NodeName, bytes], *, stored: bool) -> None:
        """End a `hold`: `stored` nodes stay as ordinary ones, those of a failed commit go."""
        if stored:
            self.add(room_nid, nodes)
        for name in nodes:
            data, count = self._held.pop((room_nid, name))
            if count > 1:
                self._held[room_nid, name] = (data, count - 1)

    def forget_room(self, room_nid: int) -> None:
        """Drop all nodes of a room, such as one that was purged; held ones stay."""
        for key in [key for key in self._nodes if key[0] == room_nid]:
            self.size -= len(self._nodes.pop(key)) + ENTRY_OVERHEAD_BYTES


@define(eq=False)
class BorrowedNodes:
    """A cache as a database thread may use it: nothing in it moves, and what it lacked is in `loaded`."""

    _cache: NodeCache
    loaded: dict[NodeKey, bytes] = field(factory=dict, init=False)

    def get_all(self, wanted: Collection[NodeKey]) -> dict[NodeKey, bytes] | None:
        """Give all these nodes, or None when one is not here."""
        found: dict[NodeKey, bytes] = {}
        for key in wanted:
            data = self.loaded.get(key) or self._cache.peek(*key)
            if data is None:
                return None
            found[key] = data
        return found

    def peek(self, room_nid: int, name: NodeName) -> bytes | None:
        """Give a node."""
        return self.loaded.get((room_nid, name)) or self._cache.peek(room_nid, name)

    def add_all(self, nodes: Mapping[NodeKey, bytes]) -> None:
        """Keep nodes that the database has."""
        self.loaded.update(nodes)


@define(eq=False)
class _RestOfWalk(Generic[T]):
    """A walk on its way to a database thread; may be taken up again after a lost connection."""

    walk: Walk[T]
    need: NeedNodes
    room_nid: int
    cache: NodeCache
    loaded: dict[NodeName, bytes] = field(factory=dict)

    def finish(self, tx: Transaction) -> T:
        """Run the walk to its end, keeping what the cache lacked in `loaded`."""
        try:
            while True:
                self.need = self.walk.send(self._get(tx, self.need.names))
        except StopIteration as stop:
            result: T = stop.value
            return result

    def _get(self, tx: Transaction, names: Collection[NodeName]) -> Nodes:
        found: dict[NodeName, bytes] = {}
        missing: list[NodeName] = []
        for name in names:
            data = self.cache.peek(self.room_nid, name)
            if data is None:
                missing.append(name)
            else:
                found[name] = data
        if missing:
            loaded = load_nodes(tx, self.room_nid, missing)
            self.loaded |= loaded
            found |= loaded
        return found


@define(eq=False)
class TrieReader:
    """Runs walks over the cache and the database."""

    database: Database
    cache: NodeCache

    async def run(self, room_nid: int, walk: Walk[T]) -> T:
        """Run a walk over the tries of one room; raises `MissingNode` for a root that is not of it."""
        try:
            need = next(walk)
            while (found := self.cache.get(room_nid, need.names)) is not None:
                need = walk.send(found)
        except StopIteration as stop:
            result: T = stop.value
            return result
        rest = _RestOfWalk(walk, need, room_nid, self.cache)
        result = await self.database.read(rest.finish)
        self.cache.add(room_nid, rest.loaded)
        return result
