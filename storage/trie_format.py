"""How nodes of a state trie look as bytes, and how they are named.

A tree maps keys to values. A key's *path* is a 128-bit hash of it. A tree of up to `LEAF_CAPACITY` entries
is one leaf; a larger one is a branch of `FAN_OUT` slots, chosen by the next `BRANCH_BITS` bits of the path.
Neighbouring slots whose entries fit in one leaf share that leaf (an aligned block of 2, 4, … slots), so
leaves stay half full at least whatever the size of the tree. The shape depends on the entries alone:
equal maps have equal names.

    branch   0, bitmap of the slots at which a child begins, 16 bytes a child
    numbers  1 or 2, depth, count, values (4 or 8 bytes each), keys
    refs     3, depth, count, lengths of the values, values, keys

All integers are little-endian; `depth` is the number of path bits that all entries of the leaf share by
their place, so equal leaves in different places differ; keys are UTF-8, sorted, joined by U+0000, which
they never contain. A node is named by the hash of its room and its bytes; the lowest bit of the
name's first byte tells a leaf of numbers, so a collector need not read those.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from itertools import accumulate, pairwise
from typing import Generic, NewType, TypeVar

from attrs import frozen

V = TypeVar("V")

NodeName = NewType("NodeName", bytes)
"""The 16-byte name of a node, meaningful within its room alone."""
NodeKey = tuple[int, NodeName]
"""A node anywhere: (room nid, name)."""

NAME_BYTES = 16
EMPTY = NodeName(bytes(NAME_BYTES))
"""Names the tree without entries, which has no node."""

LEAF_CAPACITY = 32
BRANCH_BITS = 4
FAN_OUT = 1 << BRANCH_BITS
PATH_BITS = 128

NAMED, EMBEDDED = 0, 1
"""The first byte of a reference: the name of a tree's top follows, or the tree's only node itself."""

_BRANCH, _NUMBERS_4, _NUMBERS_8, _REFS = range(4)
_KINDS_OF_NUMBERS = (_NUMBERS_4, _NUMBERS_8)
_BRANCH_HEAD = struct.Struct("<BH")
_LEAF_HEAD = struct.Struct("<BBH")
_LEAF_BIT = 1


def name_of(room: bytes, data: bytes) -> NodeName:
    """Name a node: the hash of its room (8 bytes) and its bytes, with the bit that tells its kind."""
    digest = blake2b(room + data, digest_size=NAME_BYTES).digest()
    if digest[0] & _LEAF_BIT == (data[0] in _KINDS_OF_NUMBERS):
        return NodeName(digest)
    return NodeName(bytes((digest[0] ^ _LEAF_BIT,)) + digest[1:])


def may_refer(name: NodeName) -> bool:
    """Tell whether the node of this name may refer to others."""
    return not name[0] & _LEAF_BIT


def path_of(key: bytes) -> int:
    """Give the path of a key, a number of `PATH_BITS` bits."""
    return int.from_bytes(blake2b(key, digest_size=PATH_BITS // 8).digest(), "big")


def is_branch(data: bytes) -> bool:
    """Tell a branch from a leaf."""
    return data[0] == _BRANCH


def encode_branch(starts: Sequence[int], children: Sequence[NodeName]) -> bytes:
    """Write a branch: the slot where each child begins, ascending from 0, and the children."""
    bitmap = 0
    for start in starts:
        bitmap |= 1 << start
    return _BRANCH_HEAD.pack(_BRANCH, bitmap) + b"".join(children)


def decode_branch(data: bytes) -> tuple[list[int], list[NodeName]]:
    """Read what `encode_branch` wrote."""
    bitmap = _BRANCH_HEAD.unpack_from(data)[1]
    return [slot for slot in range(FAN_OUT) if bitmap >> slot & 1], list(children_of(data))


def children_of(data: bytes) -> tuple[NodeName, ...]:
    """List the children of a branch; `EMPTY` for slots without entries."""
    return struct.unpack_from("16s" * (len(data) // NAME_BYTES), data, _BRANCH_HEAD.size)


def alike(one: bytes, other: bytes) -> bool:
    """Tell whether the children of two branches begin at the same slots."""
    return one[: _BRANCH_HEAD.size] == other[: _BRANCH_HEAD.size]


def slots_of(data: bytes) -> list[NodeName]:
    """List the child of each of the `FAN_OUT` slots."""
    bitmap = _BRANCH_HEAD.unpack_from(data)[1]
    children = children_of(data)
    index, slots = -1, []
    for slot in range(FAN_OUT):
        index += bitmap >> slot & 1
        slots.append(children[index])
    return slots


def slot_of(path: int, depth: int) -> int:
    """Give the slot of a branch at `depth` (in bits) that a path leads through."""
    return path >> PATH_BITS - BRANCH_BITS - depth & FAN_OUT - 1


def span_of(data: bytes, slot: int) -> tuple[int, int, int]:
    """Give the child of a slot of a branch: its place among the children, its first slot, and how many."""
    bitmap: int = _BRANCH_HEAD.unpack_from(data)[1]
    upto = bitmap & (2 << slot) - 1
    above = bitmap >> slot + 1
    start = upto.bit_length() - 1
    end = slot + (above & -above).bit_length() if above else FAN_OUT
    return upto.bit_count() - 1, start, end - start


def index_of(data: bytes, path: int, depth: int) -> int:
    """Give the place among the children of a branch at `depth` (in bits) of the one that a path leads to."""
    bitmap: int = _BRANCH_HEAD.unpack_from(data)[1]
    return (bitmap & (2 << slot_of(path, depth)) - 1).bit_count() - 1


def child_of(data: bytes, path: int, depth: int) -> NodeName:
    """Give the child of a branch at `depth` (in bits) that a path leads to."""
    return child_at(data, index_of(data, path, depth))


def child_at(data: bytes, index: int) -> NodeName:
    """Give one of the children of a branch."""
    at = _BRANCH_HEAD.size + NAME_BYTES * index
    return NodeName(data[at : at + NAME_BYTES])


def with_child(data: bytes, index: int, child: NodeName) -> bytes:
    """Give a branch with one of its children replaced."""
    at = _BRANCH_HEAD.size + NAME_BYTES * index
    return data[:at] + child + data[at + NAME_BYTES :]


def entries_in(data: bytes) -> int:
    """Count the entries of a leaf."""
    return data[2] | data[3] << 8


@frozen
class Codec(Generic[V]):
    """How a kind of leaf is written and read."""

    encode: Callable[[dict[bytes, V], int], bytes]
    decode: Callable[[bytes], dict[bytes, V]]
    put: Callable[[bytes, bytes, V], bytes]
    """Gives a leaf with one entry added or changed."""


def _encode_numbers(entries: dict[bytes, int], depth: int) -> bytes:
    keys = sorted(entries)
    values = [entries[key] for key in keys]
    count = len(keys)
    narrow = min(values) >= 0 and max(values) < 1 << 32
    kind, letter = (_NUMBERS_4, "I") if narrow else (_NUMBERS_8, "q")
    return struct.pack(f"<BBH{count}{letter}", kind, depth, count, *values) + b"\0".join(keys)


def _put_number(data: bytes, key: bytes, value: int) -> bytes:
    """Put a number in its place among the others, which are not read for that."""
    if data[0] != _NUMBERS_4 or not 0 <= value < 1 << 32:
        return _encode_numbers({**decode_numbers(data), key: value}, data[1])
    count = entries_in(data)
    end = _LEAF_HEAD.size + 4 * count
    keys = data[end:].split(b"\0")
    index = bisect_left(keys, key)
    at = _LEAF_HEAD.size + 4 * index
    packed = value.to_bytes(4, "little")
    if index < count and keys[index] == key:
        return data[:at] + packed + data[at + 4 :]
    keys.insert(index, key)
    head = _LEAF_HEAD.pack(_NUMBERS_4, data[1], count + 1)
    return b"".join((head, data[_LEAF_HEAD.size : at], packed, data[at:end], b"\0".join(keys)))


def decode_numbers(data: bytes) -> dict[bytes, int]:
    """Read a leaf of numbers."""
    values, keys = _parts_of_numbers(data)
    return dict(zip(keys.split(b"\0"), values, strict=True))


def find_numbers(data: bytes, keys: Collection[bytes]) -> dict[bytes, int]:
    """Find a few keys in a leaf of numbers, without reading the other numbers; absent ones are left out."""
    count = entries_in(data)
    letter, width = ("<I", 4) if data[0] == _NUMBERS_4 else ("<q", 8)
    names = data[_LEAF_HEAD.size + count * width :].split(b"\0")
    found: dict[bytes, int] = {}
    for key in keys:
        index = bisect_left(names, key)
        if index < count and names[index] == key:
            (found[key],) = struct.unpack_from(letter, data, _LEAF_HEAD.size + index * width)
    return found


def pairs_of_numbers(data: bytes) -> list[tuple[str, int]]:
    """Read the keys and values of a leaf of numbers, the keys as text."""
    values, keys = _parts_of_numbers(data)
    return list(zip(keys.decode().split("\0"), values, strict=True))


def _parts_of_numbers(data: bytes) -> tuple[tuple[int, ...], bytes]:
    """Cut a leaf of numbers into its values and its joined keys."""
    count = entries_in(data)
    letter, width = ("I", 4) if data[0] == _NUMBERS_4 else ("q", 8)
    values = struct.unpack_from(f"<{count}{letter}", data, _LEAF_HEAD.size)
    return values, data[_LEAF_HEAD.size + count * width :]


def _encode_refs(entries: dict[bytes, bytes], depth: int) -> bytes:
    keys = sorted(entries)
    values = [entries[key] for key in keys]
    head = struct.pack(f"<BBH{len(keys)}H", _REFS, depth, len(keys), *map(len, values))
    return head + b"".join(values) + b"\0".join(keys)


def _decode_refs(data: bytes) -> dict[bytes, bytes]:
    return dict(decode_refs(data))


def _put_ref(data: bytes, key: bytes, value: bytes) -> bytes:
    return _encode_refs({**decode_refs(data), key: value}, data[1])


@lru_cache(maxsize=256)
def decode_refs(data: bytes) -> Mapping[bytes, bytes]:
    """Read a leaf of references; cached, as every use of a room's state begins with the same one."""
    count = entries_in(data)
    lengths = struct.unpack_from(f"<{count}H", data, _LEAF_HEAD.size)
    bounds = list(accumulate(lengths, initial=_LEAF_HEAD.size + 2 * count))
    values = [data[start:end] for start, end in pairwise(bounds)]
    return dict(zip(data[bounds[-1] :].split(b"\0"), values, strict=True))


NUMBERS = Codec(_encode_numbers, decode_numbers, _put_number)
"""Leaves that map keys to 64-bit signed numbers."""

REFS = Codec(_encode_refs, _decode_refs, _put_ref)
"""Leaves that map keys to references, byte strings shorter than 64 KiB."""


def differences_of_numbers(one: bytes, other: bytes) -> list[tuple[bytes, int | None, int | None]]:
    """Compare two leaves of numbers: each key with its values in the one and in the other."""
    before, keys = _parts_of_numbers(one)
    after, other_keys = _parts_of_numbers(other)
    names = keys.split(b"\0")
    if keys == other_keys:
        return [
            (names[at], *pair)
            for at, pair in enumerate(zip(before, after, strict=True))
            if pair[0] != pair[1]
        ]
    mine = dict(zip(names, before, strict=True))
    theirs = dict(zip(other_keys.split(b"\0"), after, strict=True))
    changed = {key for key, _ in mine.items() ^ theirs.items()}
    return [(key, mine.get(key), theirs.get(key)) for key in changed]


def decode_all_numbers(leaves: Iterable[bytes]) -> tuple[bytes, list[int]]:
    """Read many leaves of numbers at once: all keys, joined by U+0000, and all values, in the same order."""
    narrow: list[bytes] = []
    wide: list[bytes] = []
    counts = [0, 0]
    keys: tuple[list[bytes], list[bytes]] = ([], [])
    for data in leaves:
        is_wide = data[0] == _NUMBERS_8
        count = data[2] | data[3] << 8
        end = _LEAF_HEAD.size + count * (8 if is_wide else 4)
        (wide if is_wide else narrow).append(data[_LEAF_HEAD.size : end])
        counts[is_wide] += count
        keys[is_wide].append(data[end:])
    values = [
        *struct.unpack(f"<{counts[0]}I", b"".join(narrow)),
        *struct.unpack(f"<{counts[1]}q", b"".join(wide)),
    ]
    return b"\0".join(keys[0] + keys[1]), values
