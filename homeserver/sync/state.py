"""The state a client is given beside a timeline: the difference of two roots, less what the timeline says.

Pure choices over look-ups made elsewhere. `state` is what must be known before the timeline is applied
(its start), `state_after` what holds once it ends (MSC4222). Where a resolution decided against an event
of the timeline, the winner is given in either.

Source: client-server-api/_index.md, "Syncing"; "Lazy-loading room members".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from homeserver.sync.render import ClientEvent
from homeserver.sync.spans import RoomSpan
from protocol.identifiers import StateKey, UserID

MEMBER = "m.room.member"


def key_of(event: ClientEvent) -> StateKey:
    """Give the key of a state event."""
    assert event.state_key is not None
    return (event.type, event.state_key)


def changed_in(span: RoomSpan, bodies: Mapping[int, ClientEvent]) -> dict[StateKey, int]:
    """Give what a straight and complete span changed: the last state event of each key."""
    changed: dict[StateKey, int] = {}
    for entry in span.events:
        event = bodies.get(entry.ref or 0)
        if event is not None and event.state_key is not None:
            changed[key_of(event)] = event.nid
    return changed


def replay(events: Sequence[ClientEvent], start: Mapping[StateKey, int]) -> dict[int, int]:
    """Give, for each state event of a timeline, the nid of the one it replaced; new keys are absent.

    `start` is the state before the first event, under the keys of the timeline's state events.
    """
    now, replaced = dict(start), {}
    for event in events:
        if event.state_key is not None:
            key = key_of(event)
            if key in now:
                replaced[event.nid] = now[key]
            now[key] = event.nid
    return replaced


def first_of_keys(events: Sequence[ClientEvent]) -> dict[StateKey, ClientEvent]:
    """Give the first state event of each key of a timeline."""
    first: dict[StateKey, ClientEvent] = {}
    for event in events:
        if event.state_key is not None:
            first.setdefault(key_of(event), event)
    return first


def at_start(
    changed: Mapping[StateKey, int],
    events: Sequence[ClientEvent],
    replaced: Mapping[int, int],
    *,
    whole: bool,
) -> dict[StateKey, int]:
    """Give the entries of `state`: what to know before the timeline is applied.

    `changed` is all that differs at the end of the timeline from what the client knows. `whole`: events
    were left out before the timeline, so what its state events replaced may be unknown too.
    """
    shown = {event.nid for event in events}
    state = {key: nid for key, nid in changed.items() if nid not in shown}
    if whole:
        for key, first in first_of_keys(events).items():
            if key not in state and first.nid in replaced:
                state[key] = replaced[first.nid]
    return state


def senders_of(events: Sequence[ClientEvent]) -> list[UserID]:
    """Give the senders of a timeline, in order of first appearance."""
    return list(dict.fromkeys(event.sender for event in events))


def is_member(key: StateKey) -> bool:
    """Tell whether a key is of a member event."""
    return key[0] == MEMBER
