"""Which events of a stretch of the feed a timeline shows.

Pure: from the newest backwards, until the limit is reached or the stretch ends. What was left out is told
by `limited` and reached with `prev_pos`.

Source: client-server-api/_index.md, "Syncing".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import frozen

from homeserver.sync.filters import EventFilter, Filter
from homeserver.sync.render import ClientEvent
from homeserver.sync.spans import RoomSpan
from protocol.identifiers import UserID

SCAN_FACTOR = 4
SCAN_LEAST = 100
"""Entries looked at for a timeline of which a filter may drop some."""


@frozen(eq=False)
class Timeline:
    """The events shown, oldest first."""

    events: tuple[ClientEvent, ...]
    limited: bool
    prev_pos: int
    """The feed position before the first event shown."""


def scan_limit(wanted: Filter, *, drops: bool) -> int:
    """Tell how many of the newest entries to look at; `drops`: some may be hidden from this reader."""
    limit = wanted.timeline_limit
    if wanted.timeline.passes_all and not drops:
        return max(limit, 1)
    return max(limit * SCAN_FACTOR, SCAN_LEAST)


def passes(event: ClientEvent, wanted: EventFilter) -> bool:
    """Tell whether an event passes a filter, rooms and limits aside."""
    if wanted.passes_all:
        return True
    if not wanted.allows_type(event.type) or not wanted.allows_sender(event.sender):
        return False
    return wanted.contains_url is None or wanted.contains_url == event.has_url


def choose(
    span: RoomSpan,
    bodies: Mapping[int, ClientEvent],
    wanted: Filter,
    hidden: Callable[[ClientEvent], bool],
) -> Timeline:
    """Choose the newest events that pass the filter and are not `hidden`."""
    limit = wanted.timeline_limit
    allowed = span.events
    kept: list[ClientEvent] = []
    last_pos = span.upto + 1
    prev_pos = span.after if not span.entries else span.entries[0].pos - 1
    limited = not span.complete
    for entry in reversed(allowed):
        event = bodies.get(entry.ref or 0)
        if event is None or hidden(event) or not passes(event, wanted.timeline):
            continue
        if len(kept) == limit:
            limited = True
            prev_pos = last_pos - 1
            break
        kept.append(event)
        last_pos = entry.pos
    return Timeline(tuple(reversed(kept)), limited, prev_pos)


def ignored_sender(ignored: frozenset[UserID]) -> Callable[[ClientEvent], bool]:
    """Give the test whether an event is hidden because its sender is ignored; state is never hidden."""
    if not ignored:
        return lambda event: False
    return lambda event: event.sender in ignored and event.state_key is None
