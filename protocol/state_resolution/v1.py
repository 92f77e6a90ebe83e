"""State resolution of room version 1, whose resets are why there are other versions.

The text leaves open how memberships of several users bear on each other; like everywhere, each is judged by
the state before any of them.

Source: rooms/v1.md, "State resolution".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha1
from typing import cast

from protocol.auth_rules import AuthError, auth_keys_for, check_auth
from protocol.events import Event
from protocol.identifiers import EventID, StateKey
from protocol.state_resolution.known import EVENTS_A_PAUSE, PAUSE, Known
from protocol.state_resolution.requests import Conflict, NeedUnconflicted, Steps

_PASSES = ("m.room.power_levels", "m.room.join_rules", "m.room.member")
"""Types that bear on authorisation, in the order in which they are resolved."""


def resolve_v1(conflict: Conflict) -> Steps[dict[StateKey, EventID | None]]:
    """Resolve by the algorithm of version 1; an event that only some states have wins without contest."""
    known = Known()
    yield from known.fetch(conflict.events)
    rivals = {key: known.present(ids) for key, ids in sorted(conflict.candidates.items())}
    state = yield from _agreed(conflict, rivals, known)
    winners: dict[StateKey, Event] = {key: events[0] for key, events in rivals.items() if len(events) == 1}
    contested = {key: events for key, events in rivals.items() if len(events) > 1}
    for event_type in _PASSES:
        chosen = {key: _last_allowed(contested[key], state) for key in contested if key[0] == event_type}
        winners |= chosen
        state |= chosen
    for number, (key, events) in enumerate(contested.items()):
        if number % EVENTS_A_PAUSE == 0:
            yield PAUSE
        if key not in winners:
            winners[key] = _first_allowed(events, state)
    return {key: winners[key].event_id if key in winners else None for key in rivals}


def _agreed(
    conflict: Conflict, rivals: Mapping[StateKey, Sequence[Event]], known: Known
) -> Steps[dict[StateKey, Event]]:
    """Give the part of the states without rivals by which rivals are judged."""
    needed = {key for events in rivals.values() for event in events for key in _auth_keys(event)}
    wanted = frozenset(needed - conflict.candidates.keys())
    found: dict[StateKey, EventID] = {}
    if wanted:
        found.update(cast(Mapping[StateKey, EventID], (yield NeedUnconflicted(wanted))))
    yield from known.fetch(found.values())
    for key in needed & conflict.candidates.keys():
        if len(conflict.candidates[key]) == 1:
            found[key] = next(iter(conflict.candidates[key]))
    events = {key: known.get(event_id) for key, event_id in found.items()}
    return {key: event for key, event in events.items() if event is not None}


def _auth_keys(event: Event) -> frozenset[StateKey]:
    return auth_keys_for(event.version, event.type, event.sender, event.state_key, event.content)


def _by_depth(event: Event) -> tuple[int, str]:
    """Rank for descending depth, then ascending SHA-1 of the ID."""
    return (-event.depth, sha1(event.event_id.encode(), usedforsecurity=False).hexdigest())


def _is_allowed(event: Event, state: Mapping[StateKey, Event]) -> bool:
    try:
        check_auth(event, state)
    except AuthError:
        return False
    return True


def _last_allowed(events: Sequence[Event], state: Mapping[StateKey, Event]) -> Event:
    """Start from the least deep and go on for as long as each is allowed by the one before."""
    first, *others = sorted(events, key=_by_depth, reverse=True)
    judges = dict(state)
    for event in others:
        judges[first.key] = first
        if not _is_allowed(event, judges):
            break
        first = event
    return first


def _first_allowed(events: Sequence[Event], state: Mapping[StateKey, Event]) -> Event:
    """Give the deepest event that is allowed; if none is, the least deep."""
    ordered = sorted(events, key=_by_depth)
    return next((event for event in ordered if _is_allowed(event, state)), ordered[-1])
