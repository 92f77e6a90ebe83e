"""The reverse topological power ordering of power events.

Source: rooms/fragments/v2-state-res.md, "Definitions".
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heapify, heappop, heappush

from protocol.auth_rules import CREATE, POWER_LEVELS
from protocol.events import Event
from protocol.identifiers import EventID
from protocol.power_levels import PowerLevels
from protocol.state_resolution.known import Known, authorities_of

_Rank = tuple[int, int, EventID]


_POWERS = frozenset({("m.room.power_levels", ""), ("m.room.join_rules", ""), ("m.room.create", "")})
"""State that decides who may do what. The text does not speak of state keys, but other servers count only the
empty one, and a server that ordered a stranger's odd events otherwise would part from them for good."""


def is_power_event(event: Event) -> bool:
    """Tell whether an event might take from somebody what they may do; leaving oneself does not."""
    if not event.is_state:
        return False
    if event.key in _POWERS:
        return True
    return event.membership in ("leave", "ban") and event.sender != event.state_key


def with_authorities(chosen: Iterable[EventID], among: frozenset[EventID], known: Known) -> set[EventID]:
    """Add to `chosen` what it rests on, directly or not, as far as that is `among` the conflicted events.

    Paths are followed inside the conflicted events alone: the text could be read otherwise, but servers
    that take one room's state from different readings would part for good, and they all do it so.
    """
    found: set[EventID] = set()
    waiting = list(chosen)
    while waiting:
        event_id = waiting.pop()
        if event_id not in found:
            found.add(event_id)
            waiting += [each for each in authorities_of(known[event_id]) if each in among]
    return found


def power_ordered(ids: set[EventID], known: Known) -> list[Event]:
    """Sort events, authority first and where that leaves a choice the more powerful sender first.

    Kahn's algorithm on a heap. Events in a circle, which only room versions with opaque IDs could have,
    are left out.
    """
    below: dict[EventID, list[EventID]] = {each: [] for each in ids}
    unmet: dict[EventID, int] = {}
    for event_id in ids:
        above = {each for each in authorities_of(known[event_id]) if each in ids}
        unmet[event_id] = len(above)
        for each in above:
            below[each].append(event_id)
    ready = [_rank(known[each], known) for each, count in unmet.items() if not count]
    heapify(ready)
    ordered = []
    while ready:
        event = known[heappop(ready)[2]]
        ordered.append(event)
        for each in below[event.event_id]:
            unmet[each] -= 1
            if not unmet[each]:
                heappush(ready, _rank(known[each], known))
    return ordered


def _rank(event: Event, known: Known) -> _Rank:
    return (-_level_of_sender(event, known), event.origin_server_ts, event.event_id)


def _level_of_sender(event: Event, known: Known) -> int:
    """Give the sender's level by the event's own auth events, never by the current state."""
    state = known.authorities(event)
    create = state.get(CREATE)
    if create is None:
        return 0
    return PowerLevels.of(event.version, create, state.get(POWER_LEVELS)).user(event.sender)
