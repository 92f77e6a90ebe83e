"""Walks over one tree of a state trie whose nodes are elsewhere.

A walk is a generator: it yields `NeedNodes` and is sent the nodes of those names, a whole level of the
tree at a time; so a driver needs one query for each level, whatever the number of keys. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterable, Mapping, Sequence
from typing import TypeVar

from attrs import frozen

from storage.trie_format import (
    BRANCH_BITS,
    EMPTY,
    Codec,
    NodeName,
    child_of,
    children_of,
    is_branch,
    path_of,
    slots_of,
)

T = TypeVar("T")
V = TypeVar("V")

Nodes = Mapping[NodeName, bytes]


@frozen
class NeedNodes:
    """Ask for nodes by name; the walk goes on when it is sent a mapping that has all of them."""

    names: Collection[NodeName]


Walk = Generator[NeedNodes, Nodes, T]


def fetch(have: dict[NodeName, bytes], names: Iterable[NodeName]) -> Walk[None]:
    """Put the nodes of these names into `have`, asking for those that are not there."""
    missing = [name for name in names if name not in have]
    if missing:
        found = yield NeedNodes(missing)
        for name in missing:
            have[name] = found[name]


def fetch_paths(have: dict[NodeName, bytes], top: NodeName, paths: Iterable[int]) -> Walk[None]:
    """Put all nodes on these paths into `have`."""
    level = {top: list(paths)} if top != EMPTY else {}
    depth = 0
    while level:
        yield from fetch(have, level)
        below: dict[NodeName, list[int]] = {}
        for name, through in level.items():
            data = have[name]
            if is_branch(data):
                for path in through:
                    child = child_of(data, path, depth)
                    if child != EMPTY:
                        below.setdefault(child, []).append(path)
        level = below
        depth += BRANCH_BITS


def lookup(
    codec: Codec[V], have: dict[NodeName, bytes], top: NodeName, keys: Collection[bytes]
) -> Walk[dict[bytes, V]]:
    """Give the values of those keys that the tree has."""
    paths = {key: path_of(key) for key in keys}
    yield from fetch_paths(have, top, paths.values())
    found: dict[bytes, V] = {}
    leaves: dict[NodeName, dict[bytes, V]] = {}
    for key, path in paths.items():
        name = _leaf_on(have, top, path)
        if name != EMPTY:
            if name not in leaves:
                leaves[name] = codec.decode(have[name])
            if key in leaves[name]:
                found[key] = leaves[name][key]
    return found


def _leaf_on(have: Nodes, top: NodeName, path: int) -> NodeName:
    """Follow a path through loaded nodes to its leaf, or `EMPTY`."""
    depth = 0
    while top != EMPTY and is_branch(have[top]):
        top = child_of(have[top], path, depth)
        depth += BRANCH_BITS
    return top


def leaves_of(have: dict[NodeName, bytes], top: NodeName) -> Walk[list[bytes]]:
    """Give all leaves of the tree."""
    level = [top] if top != EMPTY else []
    leaves: list[bytes] = []
    while level:
        yield from fetch(have, level)
        below: set[NodeName] = set()
        for name in level:
            data = have[name]
            if is_branch(data):
                below.update(children_of(data))
            else:
                leaves.append(data)
        below.discard(EMPTY)
        level = list(below)
    return leaves


def differing_leaves(
    have: dict[NodeName, bytes], one: NodeName, other: NodeName
) -> Walk[tuple[list[bytes], list[bytes]]]:
    """Give the leaves of each tree that the other lacks: all their differences lie in these."""
    ours: dict[NodeName, bytes] = {}
    theirs: dict[NodeName, bytes] = {}
    level = {(one, other)} if one != other else set()
    while level:
        yield from fetch(have, {name for pair in level for name in pair} - {EMPTY})
        below: set[tuple[NodeName, NodeName]] = set()
        for left, right in level:
            left_slots = _slots_or_keep(have, left, ours)
            right_slots = _slots_or_keep(have, right, theirs)
            if left_slots and right_slots:
                below.update(zip(left_slots, right_slots, strict=True))
            elif left_slots:
                below.update((slot, EMPTY) for slot in left_slots)
            elif right_slots:
                below.update((EMPTY, slot) for slot in right_slots)
        level = {pair for pair in below if pair[0] != pair[1]}
    return list(ours.values()), list(theirs.values())


def _slots_or_keep(have: Nodes, name: NodeName, leaves: dict[NodeName, bytes]) -> list[NodeName]:
    """Give a branch's slots; a leaf is put into `leaves` and has none."""
    if name == EMPTY:
        return []
    data = have[name]
    if is_branch(data):
        return slots_of(data)
    leaves[name] = data
    return []


def together(walks: Sequence[Walk[T]]) -> Walk[list[T]]:
    """Run walks in step, asking for what all of them need at once, and give their results in order."""
    if len(walks) == 1:
        return [(yield from walks[0])]
    results: dict[int, T] = {}
    needs: dict[int, NeedNodes] = {}
    for index, walk in enumerate(walks):
        try:
            needs[index] = next(walk)
        except StopIteration as stop:
            results[index] = stop.value
    while needs:
        found = yield NeedNodes({name for need in needs.values() for name in need.names})
        for index in list(needs):
            try:
                needs[index] = walks[index].send(found)
            except StopIteration as stop:
                results[index] = stop.value
                del needs[index]
    return [results[index] for index in range(len(walks))]
