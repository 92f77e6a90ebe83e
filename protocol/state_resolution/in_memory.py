"""Resolve states that are all in memory: for rooms being imported, and for tests.

Not for the states of big rooms: auth chains are walked here.

Source: rooms/fragments/v2-state-res.md, "Definitions".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from attrs import define, field

from protocol.events import Event
from protocol.identifiers import EventID, StateKey
from protocol.room_versions import RoomVersion
from protocol.state_resolution.known import authorities_of
from protocol.state_resolution.requests import (
    Answer,
    Conflict,
    NeedAuthDifference,
    NeedEvents,
    NeedSubgraph,
    NeedUnconflicted,
    Request,
)
from protocol.state_resolution.resolving import resolve

StateSet = Mapping[StateKey, EventID]


def resolve_in_memory(
    version: RoomVersion, state_sets: Sequence[StateSet], events_by_id: Mapping[EventID, Event]
) -> dict[StateKey, EventID]:
    """Give the whole state that state sets resolve to; `events_by_id` has no rejected events."""
    room = _Room.of(state_sets, events_by_id)
    state = dict(room.unconflicted)
    if not room.conflict.candidates:
        return state
    steps = resolve(version, room.conflict)
    try:
        request = next(steps)
        while True:
            request = steps.send(room.answer(request))
    except StopIteration as stop:
        winners: Mapping[StateKey, EventID | None] = stop.value
    state.update((key, winner) for key, winner in winners.items() if winner is not None)
    return state


@define(eq=False)
class _Room:
    """What requests are answered from."""

    state_sets: Sequence[StateSet]
    events: Mapping[EventID, Event]
    conflict: Conflict
    unconflicted: StateSet
    _chains: dict[EventID, frozenset[EventID]] = field(factory=dict, init=False)

    @classmethod
    def of(cls, state_sets: Sequence[StateSet], events: Mapping[EventID, Event]) -> _Room:
        """Tell apart what all state sets have and what they do not agree on."""
        candidates, unconflicted = {}, {}
        for key in frozenset[StateKey]().union(*state_sets):
            found = {each.get(key) for each in state_sets}
            ids = frozenset(each for each in found if each is not None)
            if len(found) == 1:
                unconflicted[key] = next(iter(ids))
            else:
                candidates[key] = ids
        return cls(state_sets, events, Conflict(candidates), unconflicted)

    def answer(self, request: Request) -> Answer:
        """Answer one request of the algorithm."""
        if isinstance(request, NeedEvents):
            return {each: self.events[each] for each in request.ids if each in self.events}
        if isinstance(request, NeedUnconflicted):
            return {key: self.unconflicted[key] for key in request.keys if key in self.unconflicted}
        if isinstance(request, NeedAuthDifference):
            return self._auth_difference()
        return self._subgraph(request)

    def _auth_difference(self) -> frozenset[EventID]:
        chains = [self._reach(each.values()) for each in self.state_sets]
        return frozenset().union(*chains) - chains[0].intersection(*chains)

    def _subgraph(self, request: NeedSubgraph) -> frozenset[EventID]:
        above = self._reach(request.ids)
        return frozenset(each for each in above if not request.ids.isdisjoint(self._reach([each])))

    def _reach(self, ids: Iterable[EventID]) -> frozenset[EventID]:
        """Give events with their auth chains."""
        return frozenset().union(*(self._chain(each) for each in ids))

    def _chain(self, event_id: EventID) -> frozenset[EventID]:
        """Give one event with its auth chain."""
        found = self._chains.get(event_id)
        if found is None:
            reached: set[EventID] = set()
            waiting = [event_id]
            while waiting:
                each = waiting.pop()
                if each not in reached:
                    reached.add(each)
                    waiting += authorities_of(self.events[each]) if each in self.events else ()
            found = self._chains[event_id] = frozenset(reached)
        return found
