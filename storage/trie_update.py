"""Apply changes to one tree of a state trie, making only the nodes that differ.

Pure: works on the nodes it is given and says which further ones it needs. Those on the paths of the
changed keys must be given at once; taking keys away may need neighbours as well, since two leaves that
fit in one are joined.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

from attrs import define, field

from storage.trie_format import (
    BRANCH_BITS,
    EMPTY,
    FAN_OUT,
    LEAF_CAPACITY,
    PATH_BITS,
    Codec,
    NodeName,
    child_at,
    decode_branch,
    encode_branch,
    entries_in,
    index_of,
    is_branch,
    name_of,
    path_of,
    slot_of,
    span_of,
    with_child,
)

V = TypeVar("V")
Item = tuple[int, bytes, V]
"""An entry with its path: (path, key, value)."""

Child = NodeName | dict[bytes, V]
"""A child of a branch: a node, or the entries of a leaf that is not written yet."""


@define
class TreeUpdate(Generic[V]):
    """One run of changes over one tree.

    `room` is the room's number as 8 bytes, `nodes` holds what was loaded. `made` gathers the nodes made;
    `missing` the names of nodes without which the answer is not final: load them and run afresh.
    """

    codec: Codec[V]
    room: bytes
    nodes: Mapping[NodeName, bytes]
    made: dict[NodeName, bytes] = field(factory=dict)
    missing: set[NodeName] = field(factory=set)

    def run(self, top: NodeName, changes: Sequence[tuple[int, bytes, V | None]]) -> NodeName:
        """Give the name of the tree at `top` after `changes`, each (path, key, new value or None)."""
        if len(changes) == 1:
            path, key, value = changes[0]
            if value is not None and (name := self._put(top, path, key, value)) is not None:
                return name
        tree = self._changed(top, 0, changes)
        if not isinstance(tree, dict):
            return tree
        if len(tree) <= LEAF_CAPACITY:
            return self._leaf(tree, 0)
        known = {key: path for path, key, _ in changes}
        return self._grown(sorted_items(tree, known), 0)

    def _put(self, top: NodeName, path: int, key: bytes, value: V) -> NodeName | None:
        """Set one entry where that leaves the shape of the tree as it is; None where it may not."""
        way: list[tuple[bytes, int]] = []
        data = b""
        while top != EMPTY and is_branch(data := self.nodes[top]):
            index = index_of(data, path, len(way) * BRANCH_BITS)
            way.append((data, index))
            top = child_at(data, index)
        if top == EMPTY or entries_in(data) >= LEAF_CAPACITY:
            return None
        name = self._node(self.codec.put(data, key, value))
        for branch, index in reversed(way):
            name = self._node(with_child(branch, index, name))
        return name

    def _changed(self, top: NodeName, depth: int, changes: Sequence[tuple[int, bytes, V | None]]) -> Child[V]:
        """Give a branch, or the entries of what is now a leaf or has outgrown one."""
        entries: dict[bytes, V] = {}
        if top != EMPTY:
            data = self.nodes[top]
            if is_branch(data):
                return self._changed_branch(data, depth, changes)
            entries = self.codec.decode(data)
        for _, key, value in changes:
            if value is None:
                entries.pop(key, None)
            else:
                entries[key] = value
        return entries

    def _changed_branch(
        self, data: bytes, depth: int, changes: Sequence[tuple[int, bytes, V | None]]
    ) -> Child[V]:
        """Change the children that `changes` lead to; cut those that outgrew a leaf, join what shrank."""
        starts, names = decode_branch(data)
        children: list[Child[V]] = list(names)
        groups: dict[int, list[tuple[int, bytes, V | None]]] = {}
        shrinks = False
        for change in changes:
            groups.setdefault(span_of(data, slot_of(change[0], depth))[0], []).append(change)
            shrinks = shrinks or change[2] is None
        for index in sorted(groups, reverse=True):
            start, size = starts[index], _size(starts, index)
            below = depth + _bits(size)
            child = self._changed(names[index], below, groups[index])
            if isinstance(child, dict) and len(child) > LEAF_CAPACITY and below < PATH_BITS:
                pieces = self._spread(sorted_items(child, {}), start, size, depth)
                starts[index : index + 1] = [piece[0] for piece in pieces]
                children[index : index + 1] = [piece[1] for piece in pieces]
            else:
                children[index] = child
        if shrinks:
            self._join(starts, children)
            if len(children) == 1:
                return children[0]
        return self._branch(starts, children, depth)

    def _join(self, starts: list[int], children: list[Child[V]]) -> None:
        """Join each rewritten leaf with its neighbour while both fit in one."""
        rewritten = [start for start, child in zip(starts, children, strict=True) if isinstance(child, dict)]
        while rewritten:
            index = bisect_left(starts, start := rewritten.pop())
            if index == len(starts) or starts[index] != start or (size := _size(starts, index)) == FAN_OUT:
                continue
            other = bisect_left(starts, start ^ size)
            if other == len(starts) or starts[other] != start ^ size or _size(starts, other) != size:
                continue
            mine, theirs = self._entries(children[index]), self._entries(children[other])
            if mine is None or theirs is None or len(mine) + len(theirs) > LEAF_CAPACITY:
                continue
            first = min(index, other)
            children[first : first + 2] = [mine | theirs]
            del starts[first + 1]
            rewritten.append(starts[first])

    def _entries(self, child: Child[V]) -> dict[bytes, V] | None:
        """Give a leaf's entries; None for a branch or a node that is not loaded."""
        if isinstance(child, dict):
            return child
        if child == EMPTY:
            return {}
        data = self.made[child] if child in self.made else self.nodes.get(child)
        if data is None:
            self.missing.add(child)
            return None
        return None if is_branch(data) else self.codec.decode(data)

    def _spread(
        self, items: Sequence[Item[V]], start: int, size: int, depth: int
    ) -> list[tuple[int, Child[V]]]:
        """Lay sorted items over a block of slots of a branch at `depth`, in as few leaves as can be."""
        if len(items) <= LEAF_CAPACITY:
            return [(start, {key: value for _, key, value in items})]
        if size == 1:
            return [(start, self._grown(items, depth + BRANCH_BITS))]
        half = size // 2
        above = items[0][0] >> PATH_BITS - depth
        middle = ((above << BRANCH_BITS) + start + half) << PATH_BITS - depth - BRANCH_BITS
        cut = bisect_left(items, middle, key=_path)
        return [
            *self._spread(items[:cut], start, half, depth),
            *self._spread(items[cut:], start + half, half, depth),
        ]

    def _grown(self, items: Sequence[Item[V]], depth: int) -> NodeName:
        """Make a branch at `depth` of sorted items that are too many for a leaf."""
        if depth >= PATH_BITS:
            return self._leaf({key: value for _, key, value in items}, depth)
        pieces = self._spread(items, 0, FAN_OUT, depth)
        return self._branch([piece[0] for piece in pieces], [piece[1] for piece in pieces], depth)

    def _branch(self, starts: Sequence[int], children: Sequence[Child[V]], depth: int) -> NodeName:
        """Write a branch and those of its leaves that are not written yet."""
        names = [
            self._leaf(child, depth + _bits(_size(starts, index))) if isinstance(child, dict) else child
            for index, child in enumerate(children)
        ]
        return self._node(encode_branch(starts, names))

    def _leaf(self, entries: dict[bytes, V], depth: int) -> NodeName:
        return self._node(self.codec.encode(entries, depth)) if entries else EMPTY

    def _node(self, data: bytes) -> NodeName:
        name = name_of(self.room, data)
        if name not in self.nodes:
            self.made[name] = data
        return name


def sorted_items(entries: Mapping[bytes, V], known: Mapping[bytes, int]) -> list[Item[V]]:
    """Give entries with their paths, in the order of the paths; `known` holds paths already computed."""
    items = [(known[key] if key in known else path_of(key), key, value) for key, value in entries.items()]
    items.sort(key=_path)
    return items


def _path(item: Item[V]) -> int:
    return item[0]


def _size(starts: Sequence[int], index: int) -> int:
    """Give the number of slots of a child."""
    return (starts[index + 1] if index + 1 < len(starts) else FAN_OUT) - starts[index]


def _bits(size: int) -> int:
    """Give the number of path bits that a block of `size` slots stands for."""
    return BRANCH_BITS - size.bit_length() + 1
