"""State resolution of room versions 2 to 11, and as changed for version 12.

Source: rooms/fragments/v2-state-res.md; rooms/v12.md, "State resolution".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

from protocol.auth_rules import POWER_LEVELS, AuthError, auth_keys_for, check_auth
from protocol.events import Event
from protocol.identifiers import EventID, StateKey
from protocol.state_resolution.known import EVENTS_A_PAUSE, PAUSE, Known
from protocol.state_resolution.mainline import mainline_ordered
from protocol.state_resolution.power_order import is_power_event, power_ordered, with_authorities
from protocol.state_resolution.requests import (
    Conflict,
    NeedAuthDifference,
    NeedSubgraph,
    NeedUnconflicted,
    Steps,
)

State = dict[StateKey, Event]


def resolve_v2(conflict: Conflict) -> Steps[dict[StateKey, EventID | None]]:
    """Resolve by the algorithm of version 2: the iterative auth checks start from what is agreed on."""
    known = Known()
    difference = cast(frozenset[EventID], (yield NeedAuthDifference()))
    conflicted = yield from _fetch_conflicted(conflict.events | difference, known)
    agreed = yield from _unconflicted(_needed_keys(conflicted) - conflict.candidates.keys())
    yield from known.fetch(agreed.values())
    events = {key: known.get(event_id) for key, event_id in agreed.items()}
    state = {key: event for key, event in events.items() if event is not None}
    yield from _apply_all(conflicted, state, known)
    return _winners(conflict, state, agreed)


def resolve_v2_1(conflict: Conflict) -> Steps[dict[StateKey, EventID | None]]:
    """Resolve by the algorithm of version 12, from an empty state, so that no old state wins unopposed.

    The full conflicted set also has what lies between conflicted events (security: S6).
    """
    known = Known()
    difference = cast(frozenset[EventID], (yield NeedAuthDifference()))
    subgraph = cast(frozenset[EventID], (yield NeedSubgraph(conflict.events)))
    conflicted = yield from _fetch_conflicted(conflict.events | difference | subgraph, known)
    state: State = {}
    yield from _apply_all(conflicted, state, known)
    agreed = yield from _unconflicted(state.keys() - conflict.candidates.keys())
    return _winners(conflict, state, agreed)


def _fetch_conflicted(ids: frozenset[EventID], known: Known) -> Steps[dict[EventID, Event]]:
    """Get to know the full conflicted set and what it rests on; what is absent drops out of it."""
    yield from known.fetch_with_authorities(ids)
    return {event.event_id: event for event in known.present(ids) if event.is_state}


def _needed_keys(events: Mapping[EventID, Event]) -> frozenset[StateKey]:
    """Give the keys that judging and ordering events may ask of a state, and the events' own."""
    keys = {POWER_LEVELS}
    for event in events.values():
        keys.add(event.key)
        keys |= _auth_keys(event)
    return frozenset(keys)


def _auth_keys(event: Event) -> frozenset[StateKey]:
    return auth_keys_for(event.version, event.type, event.sender, event.state_key, event.content)


def _unconflicted(keys: Iterable[StateKey]) -> Steps[Mapping[StateKey, EventID]]:
    wanted = frozenset(keys)
    if not wanted:
        return {}
    return cast(Mapping[StateKey, EventID], (yield NeedUnconflicted(wanted)))


def _apply_all(conflicted: Mapping[EventID, Event], state: State, known: Known) -> Steps[None]:
    """Bring the full conflicted set into `state`: power events first, the rest by the mainline."""
    among = frozenset(conflicted)
    chosen = [event.event_id for event in conflicted.values() if is_power_event(event)]
    power = power_ordered(with_authorities(chosen, among, known), known)
    yield from _apply(power, state, known)
    done = frozenset(power)
    rest = [event for event in conflicted.values() if event not in done]
    levels = state.get(POWER_LEVELS)
    ordered = yield from mainline_ordered(rest, None if levels is None else levels.event_id, known)
    yield from _apply(ordered, state, known)


def _apply(events: Iterable[Event], state: State, known: Known) -> Steps[None]:
    """Run the iterative auth checks: each event that is allowed by the state so far becomes part of it."""
    for number, event in enumerate(events):
        if number % EVENTS_A_PAUSE == 0:
            yield PAUSE
        judges = known.authorities(event)
        for key in _auth_keys(event):
            if key in state:
                judges[key] = state[key]
        try:
            check_auth(event, judges)
        except AuthError:
            continue
        state[event.key] = event


def _winners(
    conflict: Conflict, state: State, agreed: Mapping[StateKey, EventID]
) -> dict[StateKey, EventID | None]:
    """Give what stands under each conflicted key, and under keys that no state had but events brought in."""
    keys = conflict.candidates.keys() | (state.keys() - agreed.keys())
    return {key: state[key].event_id if key in state else None for key in sorted(keys)}
