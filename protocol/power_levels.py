"""Power levels: who may do what, as the room's state says it or as the defaults have it.

Nonsense in the content never raises: a malformed level counts as absent, as the rules let no malformed
event be accepted in versions that forbid it, and old rooms hold what they hold.

Source: client-server-api/_index.md, "m.room.power_levels"; rooms/v1.md and v10.md, "Power levels".
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from attrs import frozen

from protocol.events import Event
from protocol.identifiers import UserID
from protocol.room_versions import RoomVersion

INFINITE: Final = 1 << 62
"""The level of creators where they are privileged: above every integer an event can hold."""

CREATOR_DEFAULT: Final = 100
_DEFAULTS: Final[Mapping[str, int]] = {"ban": 50, "kick": 50, "redact": 50, "invite": 0}
_STATE_DEFAULT: Final = 50
_NOTIFICATIONS_DEFAULT: Final = 50
_STRINGY = re.compile(r"\s*([+-]?)0*+([0-9]{0,20})\s*", re.ASCII)
"""A sign and digits, of which leading zeroes count for nothing; there must be a digit."""
_EMPTY: Final[Mapping[str, Any]] = {}


def parse_level(value: object, version: RoomVersion) -> int | None:
    """Read a level as the version allows it: integers, and before they were enforced strings and floats."""
    if type(value) is int:
        return value
    if version.integer_power_levels or isinstance(value, bool):
        return None
    if isinstance(value, str):
        return _parse_stringy(value)
    if isinstance(value, float) and math.isfinite(value) and not version.strict_json:
        return int(value)
    return None


def _parse_stringy(text: str) -> int | None:
    """Read a level written as a string, as room versions before 10 allow.

    Source: rooms/fragments/v1-stringy-power-levels.md.
    """
    found = _STRINGY.fullmatch(text)
    if found is None or not (found[2] or "0" in text):
        return None
    return int(f"{found[1]}{found[2] or 0}")


def creators_of(version: RoomVersion, create: Event) -> frozenset[UserID]:
    """Give the creators: one, or with `additional_creators` more."""
    if not version.implicit_room_creator:
        creator = create.content.get("creator")
        return frozenset((UserID(creator),)) if isinstance(creator, str) else frozenset()
    if not version.privileged_creators:
        return frozenset((create.sender,))
    more = create.content.get("additional_creators")
    named = [UserID(user) for user in more if isinstance(user, str)] if isinstance(more, list) else []
    return frozenset((create.sender, *named))


@frozen(eq=False)
class PowerLevels:
    """The levels in force at a state of a room."""

    users: Mapping[str, int]
    events: Mapping[str, int]
    named: Mapping[str, int]
    creators: frozenset[UserID]
    users_default: int
    events_default: int
    state_default: int
    privileged: bool
    notification_levels: Mapping[str, int]

    @classmethod
    def of(cls, version: RoomVersion, create: Event, power_levels: Event | None) -> PowerLevels:
        """Read the levels from the create event of a room of `version` and the power levels, if any."""
        assert create.version is version
        return _levels_of(_Text(create), None if power_levels is None else _Text(power_levels))

    def user(self, user_id: UserID) -> int:
        """Give a user's level."""
        if self.privileged and user_id in self.creators:
            return INFINITE
        return self.users.get(user_id, self.users_default)

    def event(self, event_type: str, is_state: bool) -> int:
        """Give the level that sending an event of a type needs."""
        found = self.events.get(event_type)
        if found is not None:
            return found
        return self.state_default if is_state else self.events_default

    @property
    def ban(self) -> int:
        """Give the level that banning needs."""
        return self.named["ban"]

    @property
    def kick(self) -> int:
        """Give the level that kicking needs."""
        return self.named["kick"]

    @property
    def redact(self) -> int:
        """Give the level that redacting others' events needs."""
        return self.named["redact"]

    @property
    def invite(self) -> int:
        """Give the level that inviting needs."""
        return self.named["invite"]

    def notifications(self, key: str) -> int:
        """Give the level that a kind of notification needs, such as `room`."""
        return self.notification_levels.get(key, _NOTIFICATIONS_DEFAULT)


@frozen(eq=False)
class _Text:
    """An event that is the same only as one of the same text.

    IDs do not tell: a redacted event keeps its own, and in old versions two rooms may know one ID.
    """

    event: Event

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Text) or self.event.version is not other.event.version:
            return False
        return self.event is other.event or self.event.raw == other.event.raw

    def __hash__(self) -> int:
        return hash(self.event.event_id)


@lru_cache(maxsize=4096)
def _levels_of(first: _Text, levels: _Text | None) -> PowerLevels:
    create, power_levels = first.event, None if levels is None else levels.event
    version = create.version
    creators = creators_of(version, create)
    privileged = version.privileged_creators
    if power_levels is None:
        users: dict[str, int] = {} if privileged else dict.fromkeys(creators, CREATOR_DEFAULT)
        return PowerLevels(users, {}, _DEFAULTS, creators, 0, 0, _STATE_DEFAULT, privileged, {})
    content = power_levels.content

    def level(key: str, default: int) -> int:
        found = parse_level(content.get(key), version)
        return default if found is None else found

    return PowerLevels(
        _levels(content.get("users"), version),
        _levels(content.get("events"), version),
        {key: level(key, default) for key, default in _DEFAULTS.items()},
        creators,
        level("users_default", 0),
        level("events_default", 0),
        level("state_default", _STATE_DEFAULT),
        privileged,
        _levels(content.get("notifications"), version),
    )


def _levels(found: object, version: RoomVersion) -> Mapping[str, int]:
    if not isinstance(found, dict):
        return _EMPTY
    levels = {key: parse_level(value, version) for key, value in found.items()}
    return {key: value for key, value in levels.items() if value is not None}
