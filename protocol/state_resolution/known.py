"""The events that one resolution knows: each asked for once, many at a time.

Source: rooms/fragments/v2-state-res.md, "Rejected events".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, cast

from attrs import define, field

from protocol.auth_rules import POWER_LEVELS
from protocol.events import Event
from protocol.hashes import event_id_of_room_id
from protocol.identifiers import EventID, StateKey
from protocol.state_resolution.requests import NeedEvents, Steps

PAUSE: Final = NeedEvents(frozenset())
EVENTS_A_PAUSE: Final = 25


def authorities_of(event: Event) -> tuple[EventID, ...]:
    """Give the IDs an event rests on, with the create event where the room ID stands for it.

    Source: rooms/v12.md, "Event format".
    """
    if event.version.create_in_auth_events or event.type == "m.room.create":
        return event.auth_events
    return (*event.auth_events, event_id_of_room_id(event.room_id))


@define(eq=False)
class Known:
    """The events of one resolution; rejected and unknown ones are asked for once and then absent."""

    _events: dict[EventID, Event] = field(factory=dict, init=False)
    _asked: set[EventID] = field(factory=set, init=False)

    def fetch(self, ids: Iterable[EventID]) -> Steps[None]:
        """Get to know events, as far as that is not done yet."""
        missing = frozenset(ids) - self._asked
        if missing:
            self._asked |= missing
            self._events.update(cast(Mapping[EventID, Event], (yield NeedEvents(missing))))

    def fetch_with_authorities(self, ids: Iterable[EventID]) -> Steps[None]:
        """Get to know events and what they rest on directly."""
        wanted = frozenset(ids)
        yield from self.fetch(wanted)
        yield from self.fetch([above for each in self.present(wanted) for above in authorities_of(each)])

    def get(self, event_id: EventID) -> Event | None:
        """Give an event fetched before, unless it was rejected or is unknown."""
        return self._events.get(event_id)

    def __getitem__(self, event_id: EventID) -> Event:
        """Give an event that is known to be present."""
        return self._events[event_id]

    def present(self, ids: Iterable[EventID]) -> list[Event]:
        """Give those fetched events that are there, in the order of their IDs."""
        return [self._events[each] for each in sorted(ids) if each in self._events]

    def authorities(self, event: Event) -> dict[StateKey, Event]:
        """Give the state that an event itself rests on, as far as it is there and in its room (S2)."""
        found = (self._events.get(each) for each in authorities_of(event))
        return {
            each.key: each
            for each in found
            if each is not None and each.is_state and each.room_id == event.room_id
        }

    def power_levels_of(self, event: Event) -> EventID | None:
        """Give the power levels that an event rests on, if any; its authorities were fetched before."""
        levels = self.authorities(event).get(POWER_LEVELS)
        return None if levels is None else levels.event_id
