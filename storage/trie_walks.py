"""Walks over one tree of a state trie whose nodes are elsewhere.

A walk is a generator: it yields `NeedNodes` and is sent the nodes of those names, a whole level of the
tree at a time; so a driver needs one query for each level, whatever the number of keys. Names are asked for
in the order of the tree, in which a bulk build makes them: that reads a database's pages in order. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterable, Mapping, Sequence
from itertools import repeat
from typing import TypeVar

from attrs import define, field, frozen

from storage.trie_format import (
    BRANCH_BITS,
    EMPTY,
    FAN_OUT,
    Codec,
    NodeName,
    alike,
    child_of,
    children_of,
    is_branch,
    path_of,
    slots_of,
)

T = TypeVar("T")
V = TypeVar("V")

Nodes = Mapping[NodeName, bytes]

_NOTHING = b""
"""Stands for the node of `EMPTY`."""


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


def fetch_paths(
    have: dict[NodeName, bytes], top: NodeName, paths: Iterable[int]
) -> Walk[dict[int, NodeName]]:
    """Put all nodes on these paths into `have`, and give the leaf at the end of each path that has one."""
    ends: dict[int, NodeName] = {}
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
            else:
                for path in through:
                    ends[path] = name
        level = below
        depth += BRANCH_BITS
    return ends


def lookup(
    codec: Codec[V], have: dict[NodeName, bytes], top: NodeName, keys: Collection[bytes]
) -> Walk[dict[bytes, V]]:
    """Give the values of those keys that the tree has."""
    paths = {key: path_of(key) for key in keys}
    ends = yield from fetch_paths(have, top, paths.values())
    found: dict[bytes, V] = {}
    leaves: dict[NodeName, dict[bytes, V]] = {}
    for key, path in paths.items():
        if path in ends:
            name = ends[path]
            if name not in leaves:
                leaves[name] = codec.decode(have[name])
            if key in leaves[name]:
                found[key] = leaves[name][key]
    return found


def leaves_of(have: dict[NodeName, bytes], top: NodeName) -> Walk[list[bytes]]:
    """Give all leaves of the tree."""
    level = [top] if top != EMPTY else []
    leaves: list[bytes] = []
    while level:
        yield from fetch(have, level)
        below: list[NodeName] = []
        for name in level:
            data = have[name]
            if is_branch(data):
                below += children_of(data)
            else:
                leaves.append(data)
        level = [name for name in below if name != EMPTY]
    return leaves


@define
class Differing:
    """The leaves that one of two trees has and the other lacks: all their differences lie in these.

    `pairs` are leaves in the same place of both trees; what has no such partner is in `ours` or `theirs`.
    """

    pairs: list[tuple[bytes, bytes]] = field(factory=list)
    ours: dict[NodeName, bytes] = field(factory=dict)
    theirs: dict[NodeName, bytes] = field(factory=dict)

    def sides(self) -> tuple[list[bytes], list[bytes]]:
        """Give the leaves of each tree, paired or not."""
        return (
            [*self.ours.values(), *(left for left, _ in self.pairs)],
            [*self.theirs.values(), *(right for _, right in self.pairs)],
        )


def differing_leaves(have: dict[NodeName, bytes], one: NodeName, other: NodeName) -> Walk[Differing]:
    """Give the leaves in which two trees differ."""
    found = Differing()
    level = {(one, other, True): None} if one != other else {}
    while level:
        wanted = dict.fromkeys(name for left, right, _ in level for name in (left, right))
        wanted.pop(EMPTY, None)
        yield from fetch(have, wanted)
        below: dict[tuple[NodeName, NodeName, bool], None] = {}
        for left, right, same_place in level:
            mine, theirs = have.get(left, _NOTHING), have.get(right, _NOTHING)
            if _is_branch(mine) or _is_branch(theirs):
                below |= dict.fromkeys(three for three in _both(mine, theirs) if three[0] != three[1])
            elif same_place and mine and theirs:
                found.pairs.append((mine, theirs))
                continue
            if mine and not _is_branch(mine):
                found.ours[left] = mine
            if theirs and not _is_branch(theirs):
                found.theirs[right] = theirs
        level = below
    return found


def _is_branch(data: bytes) -> bool:
    return data != _NOTHING and is_branch(data)


def _both(mine: bytes, theirs: bytes) -> Iterable[tuple[NodeName, NodeName, bool]]:
    """Put what is below two nodes side by side, and tell if it spans the same slots; one is a branch."""
    if alike(mine, theirs):
        return zip(children_of(mine), children_of(theirs), repeat(True))
    return zip(_slots(mine), _slots(theirs), repeat(False))


def _slots(data: bytes) -> Sequence[NodeName]:
    """List what the slots of a branch lead to; those of a leaf, or of nothing, lead to nothing."""
    return slots_of(data) if _is_branch(data) else [EMPTY] * FAN_OUT


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
        found = yield NeedNodes(dict.fromkeys(name for need in needs.values() for name in need.names))
        for index in list(needs):
            try:
                needs[index] = walks[index].send(found)
            except StopIteration as stop:
                results[index] = stop.value
                del needs[index]
    return [results[index] for index in range(len(walks))]
