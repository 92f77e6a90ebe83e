"""Changes of power levels: nobody gives or takes what lies above them. Rule 10 of the auth rules.

Source: rooms/v12.md, "Authorisation rules", 10; rooms/v1.md, v6.md and v10.md for older forms.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from protocol.errors import MatrixError
from protocol.events import Event
from protocol.identifiers import parse_user_id
from protocol.membership import AuthError
from protocol.power_levels import PowerLevels, parse_level
from protocol.room_versions import RoomVersion

_NAMED: Final = ("users_default", "events_default", "state_default", "ban", "redact", "kick", "invite")
_EMPTY: Final[Mapping[str, Any]] = {}


def check_power_levels(event: Event, present: Event | None, power: PowerLevels) -> None:
    """Judge new power levels by the present ones.

    Raises:
        AuthError: a level is malformed, or the sender changes what lies above them.
    """
    _check_form(event, power)
    if present is None:  # 10.5
        return
    old, new, version, level = present.content, event.content, event.version, power.user(event.sender)
    for name in _NAMED:  # 10.6
        _check_change(name, parse_level(old.get(name), version), parse_level(new.get(name), version), level)
    groups = ("events", "notifications") if version.notifications_power_levels else ("events",)
    for group in groups:  # 10.7, 10.8
        before, after = _object(old.get(group)), _object(new.get(group))
        for name in before.keys() | after.keys():
            _check_change(
                name, parse_level(before.get(name), version), parse_level(after.get(name), version), level
            )
    _check_users(event, _object(old.get("users")), level)


def _check_form(event: Event, power: PowerLevels) -> None:
    version, content = event.version, event.content
    if version.integer_power_levels:
        for name in _NAMED:  # 10.1
            if name in content and type(content[name]) is not int:
                raise AuthError(f"{name} is not an integer")
        for group in ("events", "notifications"):  # 10.2
            if group in content:
                _require_levels(content[group], group, version)
    users = content.get("users", _EMPTY)  # 10.3
    _require_levels(users, "users", version)
    for user_id in users:
        try:
            parse_user_id(user_id)
        except MatrixError as error:
            raise AuthError(f"users: {error.error}") from None
        if power.privileged and user_id in power.creators:  # 10.4
            raise AuthError(f"users: {user_id} is a creator of the room")


def _require_levels(found: object, name: str, version: RoomVersion) -> None:
    if not isinstance(found, Mapping):
        raise AuthError(f"{name} is not an object")
    for key, value in found.items():
        if parse_level(value, version) is None:
            raise AuthError(f"{name}: the level of {key} is not an integer")


def _check_users(event: Event, before: Mapping[str, Any], level: int) -> None:
    after, version = _object(event.content.get("users")), event.version
    for user_id in before.keys() | after.keys():
        old, new = parse_level(before.get(user_id), version), parse_level(after.get(user_id), version)
        if old == new:
            continue
        if old is not None and user_id != event.sender and old >= level:  # 10.9
            raise AuthError(f"the level of {user_id} is not below the sender's")
        if new is not None and new > level:  # 10.10
            raise AuthError(f"the new level of {user_id} is above the sender's")


def _check_change(name: str, old: int | None, new: int | None, level: int) -> None:
    if old == new:
        return
    if (old is not None and old > level) or (new is not None and new > level):
        raise AuthError(f"the level of {name} is above the sender's")


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else _EMPTY
