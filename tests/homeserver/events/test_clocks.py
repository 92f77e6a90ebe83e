"""Tests of auth clocks against walks over made-up auth chains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from homeserver.events.clocks import AuthClock, assign, contains, difference, union

Graph = list[tuple[list[int], bool]]
"""For each event: the events it names (by place), and whether it replaces the last of them."""


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Make auth events: each names up to four earlier ones."""
    graph: Graph = []
    for nid in range(draw(st.integers(1, 25))):
        named = draw(st.lists(st.integers(0, nid - 1), max_size=4, unique=True)) if nid else []
        graph.append((named, draw(st.booleans())))
    return graph


def clocks_of(graph: Graph) -> list[AuthClock]:
    """Place all events, as the core does."""
    clocks: list[AuthClock] = []
    tails: dict[int, int] = {}
    for place, (named, replaces) in enumerate(graph):
        replaced = clocks[named[-1]] if named and replaces else None
        tail = tails[replaced.chain] if replaced else 0
        clock = assign(1000 + place, [clocks[other] for other in named], replaced, tail)
        tails[clock.chain] = clock.number
        clocks.append(clock)
    return clocks


def chain_of(graph: Graph, start: Sequence[int]) -> set[int]:
    """Walk the auth chains of some events, themselves included."""
    found: set[int] = set()
    waiting = list(start)
    while waiting:
        place = waiting.pop()
        if place not in found:
            found.add(place)
            waiting += graph[place][0]
    return found


def members(clocks: Sequence[AuthClock], reach: Mapping[int, int]) -> set[int]:
    """Give the events that a reach has."""
    return {place for place, clock in enumerate(clocks) if contains(reach, clock.chain, clock.number)}


class ClockTests(SynchronousTestCase):
    """Arithmetic must tell what a walk would."""

    @given(graphs(), st.data())
    def test_the_union_is_the_auth_chain(self, graph: Graph, data: st.DataObject) -> None:
        """The events within the union of some clocks are exactly their auth chains."""
        clocks = clocks_of(graph)
        start = data.draw(st.lists(st.integers(0, len(graph) - 1), min_size=1, max_size=4))
        reach = union([clocks[place] for place in start])
        self.assertEqual(members(clocks, reach), chain_of(graph, start))

    @given(graphs(), st.data())
    def test_the_difference_is_that_of_the_chains(self, graph: Graph, data: st.DataObject) -> None:
        """The spans of a difference hold what is in some auth chains and not in all."""
        clocks = clocks_of(graph)
        one_set = st.lists(st.integers(0, len(graph) - 1), min_size=1, max_size=3)
        sets = data.draw(st.lists(one_set, min_size=1, max_size=3))
        spans = difference([union([clocks[place] for place in each]) for each in sets])
        found = {
            place
            for place, clock in enumerate(clocks)
            if any(s.chain == clock.chain and s.after < clock.number <= s.upto for s in spans)
        }
        chains = [chain_of(graph, each) for each in sets]
        self.assertEqual(found, set.union(*chains) - set.intersection(*chains))

    @given(graphs())
    def test_no_two_events_share_a_place(self, graph: Graph) -> None:
        """Chain and number name one event."""
        clocks = clocks_of(graph)
        self.assertEqual(len({(clock.chain, clock.number) for clock in clocks}), len(clocks))

    @given(st.dictionaries(st.integers(0, 1 << 62), st.integers(1, 1 << 40), max_size=20))
    def test_packing_keeps_everything(self, reach: dict[int, int]) -> None:
        """What is unpacked is what was packed."""
        clock = AuthClock(7, 3, reach)
        self.assertEqual(AuthClock.unpack(7, 3, clock.pack()), clock)
