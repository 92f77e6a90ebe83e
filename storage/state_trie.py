"""The state of a room at an event, as the root of a persistent, content-addressed trie. Pure.

A root names a tree from event types to references; a reference leads to the tree of that type, from
state keys to event nids (64-bit numbers). A tree whose only node is small stands in its reference, so the
whole state of an ordinary room without its members is one node, and "all members" or "all but members"
are one walk each. Changing an entry makes one node for each level; two states are compared by name in
the size of their difference. Equal states of a room have equal roots.

All functions are walks (`storage.trie_walks`): generators that ask for nodes, run by a driver
(`storage.trie_nodes`). A root is of use with the nodes of its own room alone: node names are hashed with the
room's number, so equal states of two rooms have nothing in common.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from attrs import frozen

from protocol.identifiers import StateKey
from storage.text import escape, unescape
from storage.trie_format import (
    EMBEDDED,
    EMPTY,
    NAMED,
    NUMBERS,
    PATH_BITS,
    REFS,
    NodeName,
    children_of,
    decode_all_numbers,
    decode_numbers,
    differences_of_numbers,
    is_branch,
    may_refer,
    name_of,
    path_of,
)
from storage.trie_update import TreeUpdate
from storage.trie_walks import (
    Differing,
    NeedNodes,
    Walk,
    differing_leaves,
    fetch,
    fetch_paths,
    leaves_of,
    lookup,
    together,
)

StateRoot = NodeName
"""Names the state of a room; 16 bytes, stored in the rows of events, heads and feed."""

EMPTY_ROOT: StateRoot = EMPTY
"""The state without entries, the same in every room."""

EMBEDDED_BYTES = 256
"""A tree of one node of up to so many bytes stands in its reference."""

_NAMED, _EMBEDDED = bytes((NAMED,)), bytes((EMBEDDED,))
_NODES_AT_ONCE = 5_000
_LEAVES_AT_ONCE = 64
_MEMBER = "m.room.member"

Difference = dict[StateKey, tuple[int | None, int | None]]
"""What differs between two states: the event nid in the one and in the other, None where it has none."""

_Have = dict[NodeName, bytes]


@frozen
class Applied:
    """What a change made: the new root, and the nodes to be stored before anyone may use it."""

    root: StateRoot
    nodes: Mapping[NodeName, bytes]


def apply(room_nid: int, root: StateRoot, changes: Mapping[StateKey, int | None]) -> Walk[Applied]:
    """Set entries of a state to event nids, or take them away (None). Bulk build: begin with `EMPTY_ROOT`."""
    room = room_nid.to_bytes(8, "big", signed=True)
    by_type = _by_type(changes)
    have: _Have = {}
    refs = yield from lookup(REFS, have, root, by_type)
    tops = {kind: _open(room, refs.get(kind), have) for kind in by_type}
    paths = {kind: [(path_of(key), key, nid) for key, nid in by_type[kind].items()] for kind in by_type}
    yield from together(
        [fetch_paths(have, tops[kind], [change[0] for change in paths[kind]]) for kind in by_type]
    )
    while True:
        made: _Have = {}
        missing: set[NodeName] = set()
        new_refs: list[tuple[int, bytes, bytes | None]] = []
        for kind in by_type:
            tree = TreeUpdate(NUMBERS, room, have)
            top = tree.run(tops[kind], paths[kind])
            new_refs.append((path_of(kind), kind, _close(top, tree.made, have)))
            made |= tree.made
            missing |= tree.missing
        types = TreeUpdate(REFS, room, have)
        new_root = types.run(root, new_refs)
        missing |= types.missing
        if not missing:
            return Applied(new_root, made | types.made)
        yield from fetch(have, missing)


def region(key: StateKey) -> int:
    """Tell in which of 256 regions of the trie of its type a key lies: those of one lie in few nodes.

    A bulk of changes may so be made in several calls of `apply`, at hardly more than the cost of one.
    """
    return path_of(_encode(key[1])) >> PATH_BITS - 8


def find(root: StateRoot, keys: Iterable[StateKey]) -> Walk[dict[StateKey, int]]:
    """Give the event nids of those keys that the state has."""
    have: _Have = {}
    by_type: dict[bytes, dict[bytes, StateKey]] = {}
    for key in keys:
        by_type.setdefault(_encode(key[0]), {})[_encode(key[1])] = key
    refs = yield from lookup(REFS, have, root, by_type)
    kinds = list(refs)
    trees = [lookup(NUMBERS, have, _open_local(refs[kind], have), by_type[kind]) for kind in kinds]
    found = yield from together(trees)
    return {
        by_type[kind][key]: nid
        for kind, values in zip(kinds, found, strict=True)
        for key, nid in values.items()
    }


def diff(one: StateRoot, other: StateRoot) -> Walk[Difference]:
    """Give what differs between two states of a room, in the order (one, other)."""
    have: _Have = {}
    tops = yield from differing_leaves(have, one, other)
    before, after = map(_all_refs, tops.sides())
    kinds = [kind for kind in before.keys() | after.keys() if before.get(kind) != after.get(kind)]
    trees = yield from together(
        [
            differing_leaves(have, _open_local(before.get(kind), have), _open_local(after.get(kind), have))
            for kind in kinds
        ]
    )
    difference: Difference = {}
    for kind, tree in zip(kinds, trees, strict=True):
        name = _decode(kind)
        for key, before_nid, after_nid in _differences(tree):
            difference[name, _decode(key)] = (before_nid, after_nid)
    return difference


def entries_of_type(root: StateRoot, event_type: str) -> Walk[dict[str, int]]:
    """Give all entries of one type, from state key to event nid."""
    have: _Have = {}
    kind = _encode(event_type)
    refs = yield from lookup(REFS, have, root, [kind])
    leaves = yield from leaves_of(have, _open_local(refs.get(kind), have))
    return _decoded(leaves)


def members(root: StateRoot) -> Walk[dict[str, int]]:
    """Give the event nids of all member events, by user ID."""
    return entries_of_type(root, _MEMBER)


def all_except_type(root: StateRoot, event_type: str | None) -> Walk[dict[StateKey, int]]:
    """Give all entries but those of one type, whose nodes are not touched; None leaves out nothing."""
    have: _Have = {}
    type_leaves = yield from leaves_of(have, root)
    refs = _all_refs(type_leaves)
    if event_type is not None:
        refs.pop(_encode(event_type), None)
    kinds = list(refs)
    trees = yield from together([leaves_of(have, _open_local(refs[kind], have)) for kind in kinds])
    entries: dict[StateKey, int] = {}
    for kind, leaves in zip(kinds, trees, strict=True):
        name = _decode(kind)
        for key, nid in _decoded(leaves).items():
            entries[name, key] = nid
    return entries


def all_entries(root: StateRoot) -> Walk[dict[StateKey, int]]:
    """Give all entries of a state."""
    return all_except_type(root, None)


def references(data: bytes) -> list[NodeName]:
    """List the nodes that a node refers to, for the collector."""
    if is_branch(data):
        return [child for child in children_of(data) if child != EMPTY]
    refs = REFS.decode(data).values()
    return [NodeName(ref[1:]) for ref in refs if ref[:1] == _NAMED]


def reachable(roots: Iterable[StateRoot], seen: set[NodeName]) -> Walk[None]:
    """Add to `seen` every node that `roots` lead to, not going again through those in it."""
    level = {root for root in roots if root not in seen and root != EMPTY}
    while level:
        seen |= level
        inner = [name for name in level if may_refer(name)]
        level = set()
        for start in range(0, len(inner), _NODES_AT_ONCE):
            part = inner[start : start + _NODES_AT_ONCE]
            nodes = yield NeedNodes(part)
            for name in part:
                level.update(references(nodes[name]))
        level -= seen


def _by_type(changes: Mapping[StateKey, int | None]) -> dict[bytes, dict[bytes, int | None]]:
    by_type: dict[bytes, dict[bytes, int | None]] = {}
    for (kind, key), nid in changes.items():
        by_type.setdefault(_encode(kind), {})[_encode(key)] = nid
    return by_type


def _encode(text: str) -> bytes:
    return escape(text).encode()


def _decode(data: bytes) -> str:
    return unescape(data.decode())


def _open_local(ref: bytes | None, have: _Have) -> NodeName:
    """Give the top of a reference's tree; an embedded node is put into `have` under a name of this walk."""
    return _open(b"", ref, have)


def _open(room: bytes, ref: bytes | None, have: _Have) -> NodeName:
    if ref is None:
        return EMPTY
    if ref[:1] == _NAMED:
        return NodeName(ref[1:])
    name = name_of(room, ref[1:])
    have[name] = ref[1:]
    return name


def _close(top: NodeName, made: _Have, have: _Have) -> bytes | None:
    """Give the reference to a tree, taking its only node out of `made` when it is embedded."""
    if top == EMPTY:
        return None
    data = made[top] if top in made else have[top]
    if len(data) > EMBEDDED_BYTES or is_branch(data):
        return _NAMED + top
    made.pop(top, None)
    return _EMBEDDED + data


def _all_refs(leaves: Iterable[bytes]) -> dict[bytes, bytes]:
    refs: dict[bytes, bytes] = {}
    for leaf in leaves:
        refs |= REFS.decode(leaf)
    return refs


def _differences(tree: Differing) -> Iterator[tuple[bytes, int | None, int | None]]:
    """Compare the leaves in which two trees of numbers differ."""
    for left, right in tree.pairs:
        yield from differences_of_numbers(left, right)
    ours, theirs = (_numbers(leaves) for leaves in (tree.ours.values(), tree.theirs.values()))
    for key in ours.keys() | theirs.keys():
        if ours.get(key) != theirs.get(key):
            yield key, ours.get(key), theirs.get(key)


def _numbers(leaves: Iterable[bytes]) -> dict[bytes, int]:
    entries: dict[bytes, int] = {}
    for leaf in leaves:
        entries |= decode_numbers(leaf)
    return entries


def _decoded(leaves: Sequence[bytes]) -> dict[str, int]:
    """Read leaves, some at a time: in few calls, and keys are hashed while the processor caches them."""
    entries: dict[str, int] = {}
    for start in range(0, len(leaves), _LEAVES_AT_ONCE):
        keys, values = decode_all_numbers(leaves[start : start + _LEAVES_AT_ONCE])
        names = keys.decode().split("\0")
        if b"\x1a" in keys:
            names = [unescape(name) for name in names]
        entries.update(zip(names, values, strict=True))
    return entries
