"""Look-ups in many states of many rooms at once, all their tries a level at a time. Pure.

What `storage.state_trie` does for one state, for readers who need a little of very many: a first sync reads
the state of each of its rooms, a page of history what stood before each of its events. Work is shared by
node, not done again for each state: most states asked about have most of their nodes in common.

An `Asking` yields the nodes it needs, by room and name, and is sent a mapping that has them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TypeVar

from attrs import frozen

from protocol.identifiers import StateKey
from storage.state_trie import StateRoot
from storage.text import escape, unescape
from storage.trie_format import (
    BRANCH_BITS,
    EMBEDDED,
    EMPTY,
    NodeKey,
    NodeName,
    child_of,
    children_of,
    decode_refs,
    find_numbers,
    is_branch,
    pairs_of_numbers,
    path_of,
)

T = TypeVar("T")
V = TypeVar("V")

Asking = Generator[Collection[NodeKey], Mapping[NodeKey, bytes], T]


@frozen
class Sought:
    """Entries sought in one state of a room."""

    room_nid: int
    root: StateRoot
    keys: Sequence[StateKey]


@frozen
class Whole:
    """A whole state of a room, or all of it but one type."""

    room_nid: int
    root: StateRoot
    without: str | None = None


_Place = tuple[int, NodeName, bytes]
"""Where a key is looked for: room nid, top of the tree, key."""


def find_in_states(asked: Sequence[Sought]) -> Asking[list[dict[StateKey, int]]]:
    """Give, for each state asked about, the event nids of those keys that it has.

    What several states have in common is looked up once: a tree of one type, or the tree's only node.
    """
    have: dict[NodeKey, bytes] = {}
    tops = [(each.room_nid, each.root, _encode(kind)) for each in asked for kind, _ in each.keys]
    refs = yield from _values(_refs, have, dict.fromkeys(tops))
    small: dict[_Place, int | None] = {}
    trees: dict[_Place, None] = {}
    seekers: list[tuple[int, StateKey, _Place]] = []
    at = iter(tops)
    for index, each in enumerate(asked):
        for key in each.keys:
            ref = refs.get(next(at))
            if ref is None:
                continue
            place = (each.room_nid, NodeName(ref[1:]), _encode(key[1]))
            seekers.append((index, key, place))
            if ref[0] != EMBEDDED:
                trees[place] = None
            elif place not in small:
                small[place] = find_numbers(place[1], (place[2],)).get(place[2])
    found: list[dict[StateKey, int]] = [{} for _ in asked]
    nids = small | (yield from _values(find_numbers, have, trees))
    for index, key, place in seekers:
        nid = nids.get(place)
        if nid is not None:
            found[index][key] = nid
    return found


def read_states(asked: Sequence[Whole]) -> Asking[list[dict[StateKey, int]]]:
    """Give all entries of each state asked about."""
    have: dict[NodeKey, bytes] = {}
    tops = yield from _leaves(have, [(each.room_nid, each.root) for each in asked])
    found: list[dict[StateKey, int]] = [{} for _ in asked]
    trees: list[tuple[int, str]] = []
    deeper: list[NodeKey] = []
    for index, (each, leaves) in enumerate(zip(asked, tops, strict=True)):
        entries = found[index]
        for leaf in leaves:
            for raw_kind, ref in decode_refs(leaf).items():
                kind = _decode(raw_kind)
                if kind == each.without:
                    continue
                if ref[0] == EMBEDDED:
                    _add(entries, kind, ref[1:])
                else:
                    trees.append((index, kind))
                    deeper.append((each.room_nid, NodeName(ref[1:])))
    large = yield from _leaves(have, deeper)
    for (index, kind), leaves in zip(trees, large, strict=True):
        for leaf in leaves:
            _add(found[index], kind, leaf)
    return found


def _add(entries: dict[StateKey, int], kind: str, leaf: bytes) -> None:
    """Put the entries of a leaf into a state."""
    for key, nid in pairs_of_numbers(leaf):
        entries[kind, unescape(key)] = nid


def _values(
    find: Callable[[bytes, Collection[bytes]], Mapping[bytes, V]],
    have: dict[NodeKey, bytes],
    places: Iterable[_Place],
) -> Asking[dict[_Place, V]]:
    """Give what each tree has under its key; places without anything are absent. `find` reads leaves."""
    found: dict[_Place, V] = {}
    level: dict[NodeKey, list[_Place]] = {}
    for place in places:
        if place[1] != EMPTY:
            level.setdefault((place[0], place[1]), []).append(place)
    depth = 0
    while level:
        yield from _fetch(have, level)
        below: dict[NodeKey, list[_Place]] = {}
        for node, through in level.items():
            data = have[node]
            if is_branch(data):
                for place in through:
                    child = child_of(data, _path(place[2]), depth)
                    if child != EMPTY:
                        below.setdefault((node[0], child), []).append(place)
            else:
                leaf = find(data, {place[2] for place in through})
                for place in through:
                    if place[2] in leaf:
                        found[place] = leaf[place[2]]
        level = below
        depth += BRANCH_BITS
    return found


def _refs(leaf: bytes, _keys: Collection[bytes]) -> Mapping[bytes, bytes]:
    """Read a leaf of references whole: it is remembered."""
    return decode_refs(leaf)


def _leaves(have: dict[NodeKey, bytes], tops: Sequence[NodeKey]) -> Asking[list[list[bytes]]]:
    """Give all leaves of each tree."""
    found: list[list[bytes]] = [[] for _ in tops]
    level: dict[NodeKey, list[int]] = {}
    for index, top in enumerate(tops):
        if top[1] != EMPTY:
            level.setdefault(top, []).append(index)
    while level:
        yield from _fetch(have, level)
        below: dict[NodeKey, list[int]] = {}
        for node, trees in level.items():
            data = have[node]
            if is_branch(data):
                for child in children_of(data):
                    if child != EMPTY:
                        below.setdefault((node[0], child), []).extend(trees)
            else:
                for index in trees:
                    found[index].append(data)
        level = below
    return found


def _fetch(have: dict[NodeKey, bytes], wanted: Iterable[NodeKey]) -> Asking[None]:
    """Put nodes into `have`, asking for those that are not there."""
    missing = [node for node in wanted if node not in have]
    if missing:
        have |= yield missing


@lru_cache(maxsize=4096)
def _encode(text: str) -> bytes:
    """Write a type or state key as tries have it."""
    return escape(text).encode()


@lru_cache(maxsize=1024)
def _decode(kind: bytes) -> str:
    """Read a type; cached, since rooms have few and the same."""
    return unescape(kind.decode())


@lru_cache(maxsize=4096)
def _path(key: bytes) -> int:
    """Give the path of a key; cached, since one reader is looked up in many states."""
    return path_of(key)
