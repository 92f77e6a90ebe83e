"""The state trie against a plain dict: same entries, canonical roots, exact differences, few nodes."""

from __future__ import annotations

import random
from collections.abc import Collection
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from protocol.identifiers import StateKey
from storage import state_trie, trie_format, trie_update
from storage.state_trie import EMPTY_ROOT, StateRoot
from storage.trie_format import NodeName
from storage.trie_nodes import run_walk
from storage.trie_walks import Nodes, Walk

State = dict[StateKey, int]
TYPES = st.sampled_from(["m.room.member", "m.room.create", "", "\0", "é"])
KEYS = st.tuples(
    TYPES, st.sampled_from([f"@u{n}:x" for n in range(200)] + ["", "\0", "\0\x1a", "\U0001f600"])
)
NIDS = st.one_of(st.integers(0, 2**33), st.integers(-(2**63), 2**63 - 1))
CHANGES = st.dictionaries(KEYS, st.one_of(st.none(), NIDS), max_size=150)


class MemoryTrie:
    """The nodes of one room in a dict, with counts of what walks ask for."""

    def __init__(self, room_nid: int = 7) -> None:
        self.room_nid = room_nid
        self.nodes: dict[NodeName, bytes] = {}
        self.rounds = 0

    def run(self, walk: Walk):  # type: ignore[no-untyped-def,type-arg]
        """Run a walk."""
        return run_walk(walk, self._load)

    def _load(self, names: Collection[NodeName]) -> Nodes:
        self.rounds += 1
        return {name: self.nodes[name] for name in names}

    def apply(self, root: StateRoot, changes: dict[StateKey, int | None]) -> StateRoot:
        """Change a state, keeping the new nodes."""
        applied = self.run(state_trie.apply(self.room_nid, root, changes))
        self.nodes |= applied.nodes
        seen: set[NodeName] = set()
        self.run(state_trie.reachable([applied.root], seen))
        assert seen.issuperset(applied.nodes), "a node was made that nothing refers to"
        return applied.root


def changed(state: State, changes: dict[StateKey, int | None]) -> State:
    """Do to a dict what `apply` does to a trie."""
    merged = {**state, **changes}
    return {key: nid for key, nid in merged.items() if nid is not None}


def difference(one: State, other: State) -> dict[StateKey, tuple[int | None, int | None]]:
    """Compare two dicts."""
    return {
        key: (one.get(key), other.get(key))
        for key in one.keys() | other.keys()
        if one.get(key) != other.get(key)
    }


class ModelTests(SynchronousTestCase):
    """A trie does what a dict does."""

    @settings(max_examples=150, deadline=None)
    @given(st.lists(CHANGES, min_size=1, max_size=4), st.integers(1, 6))
    def test_like_a_dict(self, steps: list[dict[StateKey, int | None]], capacity: int) -> None:
        """Any changes give the entries, look-ups and differences of a dict, also with tiny leaves."""
        with (
            mock.patch.object(trie_update, "LEAF_CAPACITY", capacity),
            mock.patch.object(state_trie, "EMBEDDED_BYTES", 40 * capacity),
        ):
            self.check(steps)

    def check(self, steps: list[dict[StateKey, int | None]]) -> None:
        """Compare with a dict after each step, and each step with each earlier one."""
        trie, root, state = MemoryTrie(), EMPTY_ROOT, {}
        past = [(root, state)]
        for changes in steps:
            root, state = trie.apply(root, changes), changed(state, changes)
            past.append((root, state))
            self.assertEqual(trie.run(state_trie.all_entries(root)), state)
            self.assertEqual(trie.apply(EMPTY_ROOT, dict(state)), root)
            wanted = [*state, ("absent", ""), ("m.room.member", "absent")]
            self.assertEqual(trie.run(state_trie.find(root, wanted)), state)
            for old_root, old_state in past:
                expected = difference(old_state, state)
                self.assertEqual(trie.run(state_trie.diff(old_root, root)), expected)
                self.assertEqual(old_root == root, old_state == state)
        members = {key: nid for (kind, key), nid in state.items() if kind == "m.room.member"}
        self.assertEqual(trie.run(state_trie.members(root)), members)
        others = {key: nid for key, nid in state.items() if key[0] != "m.room.member"}
        self.assertEqual(trie.run(state_trie.all_except_type(root, "m.room.member")), others)

    @settings(max_examples=60, deadline=None)
    @given(st.dictionaries(KEYS, NIDS, max_size=120), st.randoms(use_true_random=False))
    def test_the_order_of_changes_does_not_matter(self, state: State, dice: random.Random) -> None:
        """One at a time in any order, with detours, leads to the root of the bulk build."""
        trie, root = MemoryTrie(), EMPTY_ROOT
        expected = trie.apply(EMPTY_ROOT, dict(state))
        keys = list(state)
        dice.shuffle(keys)
        for key in keys:
            root = trie.apply(
                root, {key: state[key], ("detour", key[1]): 1, ("m.room.member", "z" + key[1]): 2}
            )
        for key in keys:
            root = trie.apply(root, {("detour", key[1]): None, ("m.room.member", "z" + key[1]): None})
        self.assertEqual(root, expected)

    def test_colliding_paths(self) -> None:
        """Keys whose paths agree in all or nearly all bits are kept apart by the key itself."""
        with (
            mock.patch.object(state_trie, "path_of", lambda key: len(key) % 2),
            mock.patch.object(trie_update, "path_of", lambda key: len(key) % 2),
            mock.patch("storage.trie_walks.path_of", lambda key: len(key) % 2),
        ):
            trie, keys = MemoryTrie(), [("m.room.member", "u" * n) for n in range(100)]
            self.check([{key: n for n, key in enumerate(keys)}, dict.fromkeys(keys[:60])])
            self.assertNotEqual(trie.apply(EMPTY_ROOT, {keys[0]: 1}), EMPTY_ROOT)


class CostTests(SynchronousTestCase):
    """What matters for speed, counted rather than timed."""

    def setUp(self) -> None:
        """Build a room of 20,000 members."""
        self.trie = MemoryTrie()
        self.state: State = {("m.room.member", f"@user{n}:example.org"): n for n in range(20_000)}
        self.state |= {(f"m.room.{n}", ""): 30_000 + n for n in range(20)}
        self.root = self.trie.apply(EMPTY_ROOT, dict(self.state))
        self.trie.rounds = 0

    def test_a_change_makes_few_bytes(self) -> None:
        """One member's change makes at most seven nodes of 3 KB together."""
        key = ("m.room.member", "@user77:example.org")
        applied = self.trie.run(state_trie.apply(7, self.root, {key: 99}))
        self.assertLessEqual(len(applied.nodes), 7)
        self.assertLess(sum(map(len, applied.nodes.values())), 3_000)
        self.assertFalse(set(applied.nodes) & set(self.trie.nodes))

    def test_setting_what_is_set_makes_nothing(self) -> None:
        """A change to the value that is there gives the same root and no nodes."""
        key = ("m.room.member", "@user77:example.org")
        applied = self.trie.run(state_trie.apply(7, self.root, {key: self.state[key]}))
        self.assertEqual((applied.root, dict(applied.nodes)), (self.root, {}))

    def test_leaves_are_well_filled(self) -> None:
        """On average a leaf holds more than half of its capacity."""
        leaves = [name for name in self.trie.nodes if not trie_format.may_refer(name)]
        self.assertGreater(20_000 / len(leaves), trie_format.LEAF_CAPACITY / 2)

    def test_non_member_state_is_one_node(self) -> None:
        """All state but the members is read in one round, one node."""
        self.trie.nodes = {self.root: self.trie.nodes[self.root]}
        found = self.trie.run(state_trie.all_except_type(self.root, "m.room.member"))
        self.assertEqual(len(found), 20)
        self.assertEqual(self.trie.rounds, 1)

    def test_reading_takes_a_round_for_each_level(self) -> None:
        """Look-ups, all members and differences of any size take at most six rounds."""
        keys = list(self.state)[::50]
        other = self.trie.apply(self.root, dict.fromkeys(keys, -1))
        for walk in (
            state_trie.members(self.root),
            state_trie.find(self.root, keys),
            state_trie.diff(self.root, other),
            state_trie.apply(7, self.root, dict.fromkeys(keys, -1)),
        ):
            self.trie.rounds = 0
            self.trie.run(walk)
            self.assertLessEqual(self.trie.rounds, 6)

    def test_nodes_are_asked_for_as_they_were_made(self) -> None:
        """All members are asked for in the order in which a bulk build stores their leaves."""
        asked: list[NodeName] = []

        def load(names: Collection[NodeName]) -> Nodes:
            asked.extend(names)
            return {name: self.trie.nodes[name] for name in names}

        run_walk(state_trie.members(self.root), load)
        leaves = [name for name in self.trie.nodes if not trie_format.may_refer(name)]
        self.assertEqual([name for name in asked if not trie_format.may_refer(name)], leaves)

    def test_a_difference_reads_little(self) -> None:
        """Two states that differ in one member are compared by reading two paths."""
        other = self.trie.apply(self.root, {("m.room.member", "@new:x"): 5})
        read: list[NodeName] = []
        nodes = self.trie.nodes

        def load(names: Collection[NodeName]) -> Nodes:
            read.extend(names)
            return {name: nodes[name] for name in names}

        found = run_walk(state_trie.diff(self.root, other), load)
        self.assertEqual(found, {("m.room.member", "@new:x"): (None, 5)})
        self.assertLessEqual(len(read), 14)

    def test_reachable_is_what_was_made(self) -> None:
        """From its root a fresh build reaches all of its nodes and no others."""
        seen: set[NodeName] = set()
        self.trie.run(state_trie.reachable([self.root, EMPTY_ROOT], seen))
        self.assertEqual(seen, set(self.trie.nodes))


class RoomTests(SynchronousTestCase):
    """A root is of use with its room alone."""

    def test_equal_states_of_two_rooms_share_nothing(self) -> None:
        """Two rooms with equal entries have no node name in common (security: S13)."""
        state: dict[StateKey, int | None] = {("m.room.member", f"@u{n}:x"): n for n in range(500)}
        one, other = MemoryTrie(1), MemoryTrie(2)
        self.assertNotEqual(one.apply(EMPTY_ROOT, state), other.apply(EMPTY_ROOT, state))
        self.assertFalse(one.nodes.keys() & other.nodes.keys())


class RegionTests(SynchronousTestCase):
    """A bulk of changes in several calls."""

    def test_region_by_region_is_as_good_as_at_once(self) -> None:
        """The root is the same, and hardly more nodes are made (security: D7)."""
        state: State = {("m.room.member", f"@user{number}:x"): number for number in range(2_000)}
        state |= {("m.room.create", ""): 1, ("m.room.topic", ""): 2}
        whole, parts = MemoryTrie(), MemoryTrie()
        root = whole.run(state_trie.apply(7, EMPTY_ROOT, dict(state))).root
        made = whole.run(state_trie.apply(7, EMPTY_ROOT, dict(state))).nodes
        regions: dict[int, dict[StateKey, int | None]] = {}
        for key, nid in state.items():
            regions.setdefault(state_trie.region(key), {})[key] = nid
        last = EMPTY_ROOT
        for number in sorted(regions):
            applied = parts.run(state_trie.apply(7, last, regions[number]))
            parts.nodes |= applied.nodes
            last = applied.root
        self.assertEqual(last, root)
        self.assertTrue(set(made) <= set(parts.nodes))
        self.assertEqual({*regions} - {*range(256)}, set())
