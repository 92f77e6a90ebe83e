"""Memberships: which change from which, by whom, under which join rule. Rule 5 of the auth rules.

Source: rooms/v12.md, "Authorisation rules", 5; rooms/v7.md (knocking), v8.md (restricted), v10.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from attrs import frozen

from protocol.errors import Forbidden
from protocol.events import Event
from protocol.identifiers import StateKey, UserID
from protocol.power_levels import PowerLevels, creators_of
from protocol.room_versions import RoomVersion
from protocol.third_party_invites import THIRD_PARTY_INVITE, signing_key, third_party_token

MEMBER: Final = "m.room.member"


class AuthError(Forbidden):
    """The authorisation rules reject an event."""


def membership_of(state: Mapping[StateKey, Event], user_id: str) -> str:
    """Give a user's membership at a state; one who never was there has left."""
    event = state.get((MEMBER, user_id))
    found = None if event is None else event.content.get("membership")
    return found if isinstance(found, str) else "leave"


@frozen(eq=False)
class _Case:
    """A membership to judge, with what all the rules ask."""

    event: Event
    state: Mapping[StateKey, Event]
    create: Event
    power: PowerLevels
    target: UserID

    @property
    def version(self) -> RoomVersion:
        return self.event.version

    @property
    def sender(self) -> str:
        return membership_of(self.state, self.event.sender)

    @property
    def present(self) -> str:
        return membership_of(self.state, self.target)

    @property
    def join_rule(self) -> object:
        """Give the join rule; where none is said it is `invite`, as other servers have it too."""
        rules = self.state.get(("m.room.join_rules", ""))
        return "invite" if rules is None else rules.content.get("join_rule", "invite")

    @property
    def level(self) -> int:
        return self.power.user(self.event.sender)


def check_membership(
    event: Event, state: Mapping[StateKey, Event], create: Event, power: PowerLevels
) -> None:
    """Judge a member event by the state of the room.

    Raises:
        AuthError: the rules reject it.
    """
    if event.state_key is None:  # 5.1
        raise AuthError("a member event needs a state_key")
    membership = event.content.get("membership")
    check = _CHECKS.get(membership) if isinstance(membership, str) else None
    if check is None:  # 5.1, 5.8
        raise AuthError("the membership is unknown")
    check(_Case(event, state, create, power, UserID(event.state_key)))


def _check_join(case: _Case) -> None:
    if _is_first_join(case):  # 5.3.1
        return
    if case.event.sender != case.target:  # 5.3.2
        raise AuthError("a user can only join by themselves")
    if case.present == "ban":  # 5.3.3
        raise AuthError("You are banned from this room")
    rule, inside = case.join_rule, case.present in ("join", "invite")
    if rule == "public":  # 5.3.6
        return
    if rule == "invite" or (rule == "knock" and case.version.knock):  # 5.3.4
        allowed = inside
    elif _is_restricted(case.version, rule):  # 5.3.5
        allowed = inside or _is_authorised(case)
    else:
        allowed = False
    if not allowed:
        raise AuthError("You are not invited to this room")


def _is_first_join(case: _Case) -> bool:
    if case.event.prev_events != (case.create.event_id,):
        return False
    if case.version.privileged_creators:
        return case.target == case.create.sender
    return case.target in creators_of(case.version, case.create)


def _is_restricted(version: RoomVersion, rule: object) -> bool:
    if rule == "restricted":
        return version.restricted_join
    return rule == "knock_restricted" and version.knock_restricted_join


def _is_authorised(case: _Case) -> bool:
    """Tell whether the user named as authority is joined and may invite; signatures are checked before."""
    authority = case.event.content.get("join_authorised_via_users_server")
    if not isinstance(authority, str) or membership_of(case.state, authority) != "join":
        return False
    return case.power.user(UserID(authority)) >= case.power.invite


def _check_invite(case: _Case) -> None:
    if "third_party_invite" in case.event.content:  # 5.4.1
        _check_third_party(case)
        return
    _require_joined(case)  # 5.4.2
    if case.present in ("join", "ban"):  # 5.4.3
        raise AuthError(f"{case.target} is {'banned' if case.present == 'ban' else 'already in the room'}")
    if case.level < case.power.invite:  # 5.4.4
        raise AuthError("You may not invite users to this room")


def _check_third_party(case: _Case) -> None:
    if case.present == "ban":  # 5.4.1.1
        raise AuthError(f"{case.target} is banned")
    invite = case.event.content["third_party_invite"]
    signed = invite.get("signed") if isinstance(invite, dict) else None
    token = third_party_token(case.event.content)
    if not isinstance(signed, dict) or token is None or signed.get("mxid") != case.target:  # 5.4.1.2 to 4
        raise AuthError("the third-party invite is not for this user")
    issued = case.state.get((THIRD_PARTY_INVITE, token))
    if issued is None or issued.sender != case.event.sender:  # 5.4.1.5 and 6
        raise AuthError("the third-party invite was not issued by the sender")
    if signing_key(signed, issued.content) is None:  # 5.4.1.7
        raise AuthError("the third-party invite bears no good signature")


def _check_leave(case: _Case) -> None:
    if case.event.sender == case.target:  # 5.5.1
        allowed = ("invite", "join", "knock") if case.version.knock else ("invite", "join")
        if case.present not in allowed:
            raise AuthError("You are not in this room")
        return
    _require_joined(case)  # 5.5.2
    if case.present == "ban" and case.level < case.power.ban:  # 5.5.3
        raise AuthError("You may not unban users in this room")
    if case.level < case.power.kick or case.power.user(case.target) >= case.level:  # 5.5.4
        raise AuthError(f"You may not remove {case.target} from this room")


def _check_ban(case: _Case) -> None:
    _require_joined(case)  # 5.6.1
    if case.level < case.power.ban or case.power.user(case.target) >= case.level:  # 5.6.2
        raise AuthError(f"You may not ban {case.target} from this room")


def _check_knock(case: _Case) -> None:
    rule, version = case.join_rule, case.version
    knockable = version.knock and (
        rule == "knock" or (rule == "knock_restricted" and version.knock_restricted_join)
    )
    if not knockable:  # 5.7.1
        raise AuthError("This room takes no knocks")
    if case.event.sender != case.target:  # 5.7.2
        raise AuthError("a user can only knock by themselves")
    if case.present in ("ban", "invite", "join"):  # 5.7.3
        raise AuthError("You cannot knock on this room")


def _require_joined(case: _Case) -> None:
    if case.sender != "join":
        raise AuthError("You are not in this room")


_CHECKS: Final[Mapping[str, Callable[[_Case], None]]] = {
    "join": _check_join,
    "invite": _check_invite,
    "leave": _check_leave,
    "ban": _check_ban,
    "knock": _check_knock,
}
