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
    NodeName,
    child_of,
    children_of,
    decode_numbers,
    decode_refs,
    is_branch,
    pairs_of_numbers,
    path_of,
)

T = TypeVar("T")
V = TypeVar("V")

NodeKey = tuple[int, NodeName]
"""A node anywhere: (room nid, name)."""

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
    """Give, for each state asked about, the event nids of those keys that it has."""
    have: dict[NodeKey, bytes] = {}
    places: list[_Place] = []
    for each in asked:
        places += [(each.room_nid, each.root, _encode(kind)) for kind, _ in each.keys]
    refs = yield from _values(decode_refs, have, places)
    found: list[dict[StateKey, int]] = [{} for _ in asked]
    seekers: list[tuple[int, StateKey]] = []
    deeper: list[_Place] = []
    at = 0
    for index, each in enumerate(asked):
        for key in each.keys:
            ref = refs[at]
            at += 1
            if ref is None:
                continue
            name = _encode(key[1])
            if ref[0] == EMBEDDED:
                nid = decode_numbers(ref[1:]).get(name)
                if nid is not None:
                    found[index][key] = nid
            else:
                seekers.append((index, key))
                deeper.append((each.room_nid, NodeName(ref[1:]), name))
    nids = yield from _values(decode_numbers, have, deeper)
    for (index, key), nid in zip(seekers, nids, strict=True):
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
    decode: Callable[[bytes], Mapping[bytes, V]], have: dict[NodeKey, bytes], places: Sequence[_Place]
) -> Asking[list[V | None]]:
    """Give what each tree has under its key, None for nothing."""
    found: list[V | None] = [None] * len(places)
    level: dict[NodeKey, list[int]] = {}
    for index, (room_nid, top, _) in enumerate(places):
        if top != EMPTY:
            level.setdefault((room_nid, top), []).append(index)
    depth = 0
    while level:
        yield from _fetch(have, level)
        below: dict[NodeKey, list[int]] = {}
        for node, through in level.items():
            data = have[node]
            if is_branch(data):
                for index in through:
                    child = child_of(data, _path(places[index][2]), depth)
                    if child != EMPTY:
                        below.setdefault((node[0], child), []).append(index)
            else:
                leaf = decode(data)
                for index in through:
                    found[index] = leaf.get(places[index][2])
        level = below
        depth += BRANCH_BITS
    return found


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
