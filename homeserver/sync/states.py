"""State look-ups in many rooms at once: walks over tries run in step, one query for each level of all.

As `storage.trie_nodes.TrieReader`, but across rooms: without a hop to a thread when all nodes are in
the cache, else with one hop for all walks together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from attrs import define, field

from storage.database import Database, Transaction
from storage.trie_format import NodeName
from storage.trie_nodes import NODES_A_QUERY, MissingNode, NodeCache
from storage.trie_walks import NeedNodes, Walk

T = TypeVar("T")

_SELECT = (
    "WITH wanted(room_nid, hash) AS ( VALUES ?) SELECT n.room_nid, n.hash, n.data FROM wanted"
    " JOIN state_nodes AS n ON n.room_nid = wanted.room_nid AND n.hash = wanted.hash"
)

_Key = tuple[int, NodeName]


@define(eq=False)
class _Blocked:
    """Walks that need nodes the cache lacks, on their way to a database thread."""

    cache: NodeCache
    walks: dict[int, tuple[int, Walk[Any], NeedNodes]]
    """By place in the request: room nid, walk, and what it waits for."""
    results: dict[int, Any] = field(factory=dict)
    loaded: dict[_Key, bytes] = field(factory=dict)

    def finish(self, tx: Transaction) -> None:
        """Run all walks to their ends, a level of all of them at a time."""
        while self.walks:
            self._load(tx)
            for index, (room_nid, walk, need) in list(self.walks.items()):
                try:
                    nodes = {name: self._node(room_nid, name) for name in need.names}
                    self.walks[index] = (room_nid, walk, walk.send(nodes))
                except StopIteration as stop:
                    self.results[index] = stop.value
                    del self.walks[index]

    def _node(self, room_nid: int, name: NodeName) -> bytes:
        data = self.loaded.get((room_nid, name)) or self.cache.peek(room_nid, name)
        if data is None:
            raise MissingNode(f"node {name.hex()} is not in room {room_nid}")
        return data

    def _load(self, tx: Transaction) -> None:
        """Load what any walk waits for and nobody has."""
        missing = {
            (room_nid, name)
            for room_nid, _, need in self.walks.values()
            for name in need.names
            if (room_nid, name) not in self.loaded and self.cache.peek(room_nid, name) is None
        }
        wanted = list(missing)
        for start in range(0, len(wanted), NODES_A_QUERY):
            for room_nid, name, data in tx.values(_SELECT, wanted[start : start + NODES_A_QUERY]):
                self.loaded[room_nid, NodeName(bytes(name))] = bytes(data)


@define(eq=False)
class States:
    """Runs walks over the tries of any rooms."""

    _database: Database
    _cache: NodeCache

    async def run(self, walks: Sequence[tuple[int, Walk[T]]]) -> list[T]:
        """Run walks, each with its room's nid, and give their results in order; raises `MissingNode`."""
        results: dict[int, Any] = {}
        blocked: dict[int, tuple[int, Walk[Any], NeedNodes]] = {}
        for index, (room_nid, walk) in enumerate(walks):
            try:
                need = next(walk)
                while (found := self._cache.get(room_nid, need.names)) is not None:
                    need = walk.send(found)
                blocked[index] = (room_nid, walk, need)
            except StopIteration as stop:
                results[index] = stop.value
        if blocked:
            rest = _Blocked(self._cache, blocked)
            await self._database.read(rest.finish)
            results |= rest.results
            by_room: dict[int, dict[NodeName, bytes]] = {}
            for (room_nid, name), data in rest.loaded.items():
                by_room.setdefault(room_nid, {})[name] = data
            for room_nid, nodes in by_room.items():
                self._cache.add(room_nid, nodes)
        return [results[index] for index in range(len(walks))]
