"""The authorisation rules: may this event be, given the state it is judged by.

One function for all room versions; where versions differ, a rule asks a flag of the version. Numbers in
comments are those of room version 12 unless another is named. Memberships are in `membership.py`, changes
of power levels in `power_level_rules.py`.

Source: rooms/v1.md … v12.md, "Authorisation rules"; server-server-api.md, "Auth events selection".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from protocol.errors import MatrixError
from protocol.events import Event
from protocol.identifiers import StateKey, UserID, parse_user_id, server_of
from protocol.membership import MEMBER, AuthError, check_membership, membership_of
from protocol.power_level_rules import check_power_levels
from protocol.power_levels import PowerLevels
from protocol.room_versions import ROOM_VERSIONS, RoomVersion
from protocol.third_party_invites import THIRD_PARTY_INVITE, third_party_token

__all__ = [
    "NEVER_REDACTED",
    "AuthError",
    "auth_keys_for",
    "check_auth",
    "check_auth_events",
    "may_ask_to_redact",
    "may_redact",
]

CREATE: Final[StateKey] = ("m.room.create", "")
POWER_LEVELS: Final[StateKey] = ("m.room.power_levels", "")
JOIN_RULES: Final[StateKey] = ("m.room.join_rules", "")
NEVER_REDACTED: Final = ("m.room.create", "m.room.server_acl")
"""Types of events that users of this server may not redact, whatever their level."""


def auth_keys_for(
    version: RoomVersion, event_type: str, sender: str, state_key: str | None, content: Mapping[str, Any]
) -> frozenset[StateKey]:
    """Give the state by which an event is judged; the create event among it in every version.

    Where `version.create_in_auth_events` is false the create event is not named by the event.
    """
    if event_type == "m.room.create":
        return frozenset()
    keys = [CREATE, POWER_LEVELS, (MEMBER, sender)]
    if event_type == MEMBER and state_key is not None:
        keys.append((MEMBER, state_key))
        membership = content.get("membership")
        if membership in ("join", "invite", "knock"):
            keys.append(JOIN_RULES)
        if membership == "invite":
            token = third_party_token(content)
            if token is not None:
                keys.append((THIRD_PARTY_INVITE, token))
        authority = content.get("join_authorised_via_users_server")
        if membership == "join" and version.restricted_join and isinstance(authority, str):
            keys.append((MEMBER, authority))
    return frozenset(keys)


def check_auth_events(event: Event, auth_events: Sequence[Event]) -> None:
    """Judge the events that an event names as its authority, rule 3; rejected ones are the caller's to find.

    Raises:
        AuthError: one is there twice, is not needed, is of another room, or the create event is missing.
    """
    version = event.version
    if event.type == "m.room.create":
        if auth_events:  # beyond the rules: nothing can have come before it, and chains must end here
            raise AuthError("a create event has no auth_events")
        return
    wanted = auth_keys_for(version, event.type, event.sender, event.state_key, event.content)
    seen: set[StateKey] = set()
    for auth in auth_events:
        if auth.room_id != event.room_id:  # 3.5
            raise AuthError(f"{auth.event_id} in auth_events is of another room")
        key = auth.key if auth.is_state else None
        if key is None or key not in wanted:  # 3.2
            raise AuthError(f"{auth.event_id} in auth_events is not needed")
        if key == CREATE and not version.create_in_auth_events:  # 3.2
            raise AuthError("the create event is among the auth_events")
        if key in seen:  # 3.1
            raise AuthError(f"auth_events have {auth.type} twice")
        seen.add(key)
    if version.create_in_auth_events and CREATE not in seen:  # 2.4 of version 11
        raise AuthError("the create event is not among the auth_events")


def check_auth(event: Event, state: Mapping[StateKey, Event]) -> None:
    """Judge an event by the state under `auth_keys_for` it; the create event is always needed.

    Raises:
        AuthError: the rules reject it, or some of that state is another room's (security: S2).
    """
    if event.type == "m.room.create":
        _check_create(event)
        return
    create = state.get(CREATE)
    if create is None:  # 2
        raise AuthError("the room has no create event")
    room_id = event.room_id
    for key in auth_keys_for(event.version, event.type, event.sender, event.state_key, event.content):
        found = state.get(key)
        if found is not None and found.room_id != room_id:
            raise AuthError(f"{found.event_id} is of another room")
    if create.content.get("m.federate") is False and server_of(event.sender) != server_of(create.sender):  # 4
        raise AuthError("the room is closed to other servers")
    if event.type == "m.room.aliases" and event.version.special_case_aliases_auth:  # 4 of version 5
        if event.state_key is None or event.state_key != server_of(event.sender):
            raise AuthError("m.room.aliases must have the sender's server as state_key")
        return
    power = PowerLevels.of(event.version, create, state.get(POWER_LEVELS))
    if event.type == MEMBER:  # 5
        check_membership(event, state, create, power)
        return
    _check_ordinary(event, state, power)


def _check_ordinary(event: Event, state: Mapping[StateKey, Event], power: PowerLevels) -> None:
    level = power.user(event.sender)
    if membership_of(state, event.sender) != "join":  # 6
        raise AuthError("the sender is not in the room")
    if event.type == THIRD_PARTY_INVITE:  # 7
        if level < power.invite:
            raise AuthError("the sender may not invite")
        return
    if power.event(event.type, event.is_state) > level:  # 8
        raise AuthError(f"the sender may not send {event.type} events")
    if (
        event.state_key is not None and event.state_key.startswith("@") and event.state_key != event.sender
    ):  # 9
        raise AuthError("the state_key is another user's")
    if event.type == "m.room.power_levels":  # 10
        check_power_levels(event, state.get(POWER_LEVELS), power)
    elif event.type == "m.room.redaction" and event.version.redaction_auth_rule:  # 11 of versions 1 and 2
        _check_old_redaction(event, power)


def _check_create(event: Event) -> None:
    version, content = event.version, event.content
    if event.prev_events:  # 1.1
        raise AuthError("a create event has no prev_events")
    if event.state_key != "":
        raise AuthError("a create event has an empty state_key")
    if not version.room_id_is_create_hash and server_of(event.room_id) != server_of(event.sender):  # 1.2
        raise AuthError("the room's ID is of another server")
    if "room_version" in content and not _is_known_version(content["room_version"]):  # 1.3
        raise AuthError("the room version is not known")
    if not version.implicit_room_creator and "creator" not in content:  # 1.4 of version 10
        raise AuthError("the create event names no creator")
    if version.privileged_creators and "additional_creators" in content:  # 1.4
        _check_creators(content["additional_creators"])


def _is_known_version(name: object) -> bool:
    return isinstance(name, str) and name in ROOM_VERSIONS


def _check_creators(named: object) -> None:
    if not isinstance(named, list):
        raise AuthError("additional_creators is not a list")
    for user_id in named:
        try:
            parse_user_id(user_id)
        except MatrixError as error:
            raise AuthError(f"additional_creators: {error.error}") from None


def _check_old_redaction(event: Event, power: PowerLevels) -> None:
    if power.user(event.sender) >= power.redact:
        return
    if event.redacts is not None and server_of(event.redacts) == server_of(event.event_id):
        return
    raise AuthError("the sender may not redact this event")


def may_redact(redaction: Event, target: Event, power: PowerLevels) -> bool:
    """Tell whether an authorised redaction applies to its target, for versions that judge it then.

    A server may redact its own users' events.

    Source: rooms/v3.md, "Handling redactions".
    """
    if redaction.room_id != target.room_id:
        return False
    if power.user(redaction.sender) >= power.redact:
        return True
    return server_of(redaction.sender) == server_of(target.sender)


def may_ask_to_redact(sender: UserID, target: Event, power: PowerLevels) -> bool:
    """Tell whether a user of this server may redact an event: their own, or with the level for it.

    Some nobody may: a create event would, in older versions, no longer say what room it made (security: S5);
    an ACL with nothing in it shuts every server out.
    """
    if target.type in NEVER_REDACTED:
        return False
    return sender == target.sender or power.user(sender) >= power.redact
