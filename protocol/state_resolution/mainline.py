"""The mainline ordering of the events that are left when power events are resolved.

Source: rooms/fragments/v2-state-res.md, "Definitions".
"""

from __future__ import annotations

from collections.abc import Sequence

from protocol.events import Event
from protocol.identifiers import EventID
from protocol.state_resolution.known import Known
from protocol.state_resolution.requests import Steps


def mainline_ordered(
    events: Sequence[Event], power_levels: EventID | None, known: Known
) -> Steps[list[Event]]:
    """Sort events by where they join the mainline of the resolved power levels; the oldest come first."""
    mainline = yield from _mainline(power_levels, known)
    joins = yield from _joins(events, mainline, known)
    beyond = len(mainline)

    def rank(event: Event) -> tuple[int, int, EventID]:
        position = joins.get(event.event_id, beyond)
        return (-position, event.origin_server_ts, event.event_id)

    return sorted(events, key=rank)


def _mainline(power_levels: EventID | None, known: Known) -> Steps[dict[EventID, int]]:
    """Number the power levels from the resolved ones back to the first."""
    positions: dict[EventID, int] = {}
    while power_levels is not None and power_levels not in positions:
        positions[power_levels] = len(positions)
        power_levels = (yield from _step([power_levels], known))[power_levels]
    return positions


def _joins(events: Sequence[Event], mainline: dict[EventID, int], known: Known) -> Steps[dict[EventID, int]]:
    """Give the mainline positions of events that have one; all go back together, a step at a time."""
    parents: dict[EventID, EventID | None] = {}
    front = {each.event_id for each in events}
    while front:
        parents.update((yield from _step(front, known)))
        reached = {parents[each] for each in front}
        front = {
            each for each in reached if each is not None and each not in mainline and each not in parents
        }
    positions: dict[EventID, int] = {}
    for event in events:
        place = parents[event.event_id]
        passed = set()
        while place is not None and place not in mainline and place not in passed:
            passed.add(place)
            place = parents[place]
        if place in mainline:
            positions[event.event_id] = mainline[place]
    return positions


def _step(ids: Sequence[EventID] | set[EventID], known: Known) -> Steps[dict[EventID, EventID | None]]:
    """Go from events to the power levels each rests on."""
    yield from known.fetch_with_authorities(ids)
    found: dict[EventID, EventID | None] = {}
    for each in ids:
        event = known.get(each)
        found[each] = None if event is None else known.power_levels_of(event)
    return found
