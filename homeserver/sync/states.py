"""State look-ups in many rooms at once, one query for each level of all their tries.

As `storage.trie_nodes.TrieReader`, but across rooms: without a hop to a thread when all nodes are in
the cache, else with one hop for all look-ups together.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Generic, TypeVar

from attrs import define, field

from protocol.identifiers import StateKey
from storage.database import Database, Transaction
from storage.trie_format import NodeKey
from storage.trie_lookup import Asking, Sought, Whole, find_in_states, read_states
from storage.trie_nodes import BorrowedNodes, MissingNode, NodeCache, load_nodes_of_rooms
from storage.trie_walks import NeedNodes, Walk

T = TypeVar("T")


@define(eq=False)
class _RestOfAsking(Generic[T]):
    """An asking on its way to a database thread; may be taken up again after a lost connection."""

    asking: Asking[T]
    wanted: Collection[NodeKey]
    cache: NodeCache | BorrowedNodes
    loaded: dict[NodeKey, bytes] = field(factory=dict)

    def finish(self, tx: Transaction) -> T:
        """Run the asking to its end, keeping what the cache lacked in `loaded`; raises `MissingNode`."""
        try:
            while True:
                self.wanted = self.asking.send(self._get(tx))
        except StopIteration as stop:
            result: T = stop.value
            return result

    def _get(self, tx: Transaction) -> Mapping[NodeKey, bytes]:
        found: dict[NodeKey, bytes] = {}
        missing: list[NodeKey] = []
        for node in self.wanted:
            data = self.cache.peek(*node)
            if data is None:
                missing.append(node)
            else:
                found[node] = data
        loaded = load_nodes_of_rooms(tx, missing)
        self.loaded |= loaded
        found |= loaded
        if len(found) < len(self.wanted):
            room_nid, name = next(node for node in self.wanted if node not in found)
            raise MissingNode(f"node {name.hex()} is not in room {room_nid}")
        return found


@define(eq=False)
class States:
    """Looks entries up in the states of any rooms."""

    _database: Database
    _cache: NodeCache | BorrowedNodes

    async def find(self, asked: Sequence[Sought]) -> list[dict[StateKey, int]]:
        """Give the event nids of those keys that each state has; raises `MissingNode`."""
        return await self._answer(find_in_states(asked)) if asked else []

    async def read(self, asked: Sequence[Whole]) -> list[dict[StateKey, int]]:
        """Give all entries of each state asked about; raises `MissingNode`."""
        return await self._answer(read_states(asked)) if asked else []

    async def run(self, walks: Sequence[tuple[int, Walk[T]]]) -> list[T]:
        """Run walks, each with its room's nid, and give their results in order; raises `MissingNode`."""
        return await self._answer(_in_step(walks)) if walks else []

    async def _answer(self, asking: Asking[T]) -> T:
        """Run an asking from the cache; from the first node that is not there, on a thread."""
        try:
            wanted = next(asking)
            while (found := self._cache.get_all(wanted)) is not None:
                wanted = asking.send(found)
        except StopIteration as stop:
            result: T = stop.value
            return result
        rest = _RestOfAsking(asking, wanted, self._cache)
        result = await self._database.read(rest.finish)
        self._cache.add_all(rest.loaded)
        return result


def _in_step(walks: Sequence[tuple[int, Walk[T]]]) -> Asking[list[T]]:
    """Run walks in step, asking for what all of them need at once."""
    results: dict[int, Any] = {}
    needs: dict[int, NeedNodes] = {}
    for index, (_, walk) in enumerate(walks):
        try:
            needs[index] = next(walk)
        except StopIteration as stop:
            results[index] = stop.value
    while needs:
        found = yield {(walks[index][0], name) for index, need in needs.items() for name in need.names}
        for index, need in list(needs.items()):
            room_nid, walk = walks[index]
            try:
                needs[index] = walk.send({name: found[room_nid, name] for name in need.names})
            except StopIteration as stop:
                results[index] = stop.value
                del needs[index]
    return [results[index] for index in range(len(walks))]
