"""What the rules say of a received event: accepted, soft-failed or rejected.

Three judges in the spec's order: the events it names as its authority, the state before it on its branch,
and the room's present state. Format, signatures and hash were judged before (`protocol.checks`).

The present state is that of the room and that before the event, resolved: an event may bring news of the
room that this server has missed.

Source: server-server-api.md, "Checks performed on receipt of a PDU", 4 to 6, "Soft failure" and "Rejection".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import frozen

from homeserver.events.building import CREATE
from homeserver.events.draft import Draft
from homeserver.events.stored import Status, StoredEvent
from protocol.auth_rules import auth_keys_for, check_auth, check_auth_events
from protocol.errors import MatrixError
from protocol.events import Event
from protocol.identifiers import StateKey


@frozen
class Verdict:
    """What the rules say, and why if they are against it."""

    status: Status
    error: str | None = None


ACCEPTED = Verdict(Status.ACCEPTED)
NOT_RECOMMENDED = Verdict(Status.SOFT_FAILED, "The room's policy server does not recommend the event")


def judging_keys(event: Event) -> frozenset[StateKey]:
    """Give the keys of state by which an event is judged."""
    return auth_keys_for(event.version, event.type, event.sender, event.state_key, event.content) | {CREATE}


async def judge(
    draft: Draft, event: Event, auth: Sequence[StoredEvent], before: bytes, present: bytes | None
) -> Verdict:
    """Judge by the `auth` events, the state `before` the event and the `present` one; None: by no present."""
    create = None
    if not event.version.create_in_auth_events and event.type != CREATE[0]:
        create = (await draft.bare_state(before, (CREATE,))).get(CREATE)
    against = by_authority(event, auth, create)
    if against is not None:
        return Verdict(Status.REJECTED, against)
    keys = judging_keys(event)
    against = refusal(event, await draft.bare_state(before, keys))
    if against is not None:
        return Verdict(Status.REJECTED, against)
    if present is None or before == present:
        return ACCEPTED
    against = refusal(event, await draft.bare_state(present, keys))
    return ACCEPTED if against is None else Verdict(Status.SOFT_FAILED, against)


def by_authority(event: Event, auth: Sequence[StoredEvent], create: Event | None) -> str | None:
    """Say why the events that an event names do not allow it; None if they do.

    `create` is the room's create event in versions in which that goes without saying.
    """
    if event.too_long:
        return "An identifier of the event is too long"
    if any(stored.status is Status.REJECTED for stored in auth):
        return "It names a rejected event as its authority"
    bare = [stored.event for stored in auth]
    try:
        check_auth_events(event, bare)
    except MatrixError as against:
        return against.error
    state = {each.key: each for each in bare}
    if create is not None:
        state[CREATE] = create
    return refusal(event, state)


def refusal(event: Event, state: Mapping[StateKey, Event]) -> str | None:
    """Say why a state does not allow an event; None if it does."""
    try:
        check_auth(event, state)
    except MatrixError as against:
        return against.error
    return None
