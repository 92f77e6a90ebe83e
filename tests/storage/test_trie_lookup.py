"""Look-ups in many states at once against look-ups one at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from storage import state_trie, trie_update
from storage.state_trie import EMPTY_ROOT, StateRoot
from storage.trie_lookup import Asking, NodeKey, Sought, Whole, find_in_states, read_states
from tests.storage.test_state_trie import CHANGES, KEYS, MemoryTrie, State, changed

T = TypeVar("T")


class Rooms:
    """The tries of two rooms, and how often an asking came for nodes."""

    def __init__(self) -> None:
        self.tries = {room_nid: MemoryTrie(room_nid) for room_nid in (3, 4)}
        self.states: list[tuple[int, StateRoot, State]] = [(3, EMPTY_ROOT, {})]
        self.rounds = 0

    def grow(self, steps: list[dict[tuple[str, str], int | None]]) -> None:
        """Let both rooms go through the same changes, keeping each state on the way."""
        for room_nid, trie in self.tries.items():
            root, state = EMPTY_ROOT, State()
            for changes in steps:
                root, state = trie.apply(root, changes), changed(state, changes)
                self.states.append((room_nid, root, state))

    def run(self, asking: Asking[T]) -> T:
        """Run an asking."""
        nodes: Mapping[NodeKey, bytes] | None = None
        while True:
            try:
                wanted = next(asking) if nodes is None else asking.send(nodes)
            except StopIteration as stop:
                result: T = stop.value
                return result
            self.rounds += 1
            nodes = {(room_nid, name): self.tries[room_nid].nodes[name] for room_nid, name in wanted}


class LookupTests(SynchronousTestCase):
    """Many states of many rooms give what each gives alone."""

    @settings(max_examples=100, deadline=None)
    @given(st.lists(CHANGES, min_size=1, max_size=3), st.lists(KEYS, max_size=20), st.integers(1, 6))
    def test_like_one_at_a_time(
        self, steps: list[dict[tuple[str, str], int | None]], keys: list[tuple[str, str]], capacity: int
    ) -> None:
        """All states, known and unknown keys, large and tiny trees: each gets its own entries."""
        with (
            mock.patch.object(trie_update, "LEAF_CAPACITY", capacity),
            mock.patch.object(state_trie, "EMBEDDED_BYTES", 40 * capacity),
        ):
            rooms = Rooms()
            rooms.grow(steps)
        asked = [Sought(room_nid, root, [*state, *keys]) for room_nid, root, state in rooms.states]
        expected = [state | {key: state[key] for key in keys if key in state} for _, _, state in rooms.states]
        self.assertEqual(rooms.run(find_in_states(asked)), expected)
        wholes = [Whole(room_nid, root) for room_nid, root, _ in rooms.states]
        self.assertEqual(rooms.run(read_states(wholes)), [state for _, _, state in rooms.states])
        rest = [Whole(room_nid, root, without="m.room.member") for room_nid, root, _ in rooms.states]
        self.assertEqual(
            rooms.run(read_states(rest)),
            [
                {key: nid for key, nid in state.items() if key[0] != "m.room.member"}
                for _, _, state in rooms.states
            ],
        )

    def test_one_round_a_level(self) -> None:
        """However many states are asked about, nodes are fetched a level at a time."""
        rooms = Rooms()
        members: dict[tuple[str, str], int | None] = {("m.room.member", f"@u{n}:x"): n for n in range(300)}
        rooms.grow([members, {("m.room.name", ""): 1000}, {("m.room.member", "@u5:x"): 1001}])
        key = ("m.room.member", "@u5:x")
        found = rooms.run(find_in_states([Sought(room, root, [key]) for room, root, _ in rooms.states]))
        self.assertEqual([state.get(key) for state in found], [None, 5, 5, 1001, 5, 5, 1001])
        self.assertEqual(rooms.rounds, 3)
