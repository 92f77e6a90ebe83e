"""The state a new room begins with: presets and power levels. Pure.

Source: client-server-api/_index.md, "Creation"; data/api/client-server/create_room.yaml.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Any, Final

from attrs import frozen

from protocol.canonical_json import JsonObject
from protocol.errors import InvalidRoomState
from protocol.identifiers import UserID
from protocol.room_versions import RoomVersion

CREATOR_LEVEL: Final = 100
TOMBSTONE_LEVEL: Final = 150
"""Level for `m.room.tombstone` where creators stand above all levels: nobody else may upgrade."""


class Preset(StrEnum):
    """What kind of room it is to be."""

    PRIVATE = "private_chat"
    TRUSTED_PRIVATE = "trusted_private_chat"
    PUBLIC = "public_chat"


class Visibility(StrEnum):
    """Whether the room stands in the published directory."""

    PUBLIC = "public"
    PRIVATE = "private"


@frozen
class PresetRules:
    """What a preset sets."""

    join_rule: str
    history_visibility: str
    guest_access: str
    trusts_invited: bool = False


PRESETS: Final[Mapping[Preset, PresetRules]] = {
    Preset.PRIVATE: PresetRules("invite", "shared", "can_join"),
    Preset.TRUSTED_PRIVATE: PresetRules("invite", "shared", "can_join", trusts_invited=True),
    Preset.PUBLIC: PresetRules("public", "shared", "forbidden"),
}


def preset_for(preset: Preset | None, visibility: Visibility) -> Preset:
    """Give the preset asked for, or the one that goes with the visibility."""
    if preset is not None:
        return preset
    return Preset.PUBLIC if visibility is Visibility.PUBLIC else Preset.PRIVATE


def power_levels(
    version: RoomVersion, creator: UserID, trusted: Collection[UserID], override: Mapping[str, Any] | None
) -> JsonObject:
    """Give the content of the first power levels; `trusted` users get the creator's level.

    Raises:
        InvalidRoomState: the override names a creator where creators stand above levels.
    """
    users = {} if version.privileged_creators else dict.fromkeys((creator, *trusted), CREATOR_LEVEL)
    tombstone = TOMBSTONE_LEVEL if version.privileged_creators else CREATOR_LEVEL
    content: JsonObject = {
        "ban": 50,
        "events": {
            "m.room.avatar": 50,
            "m.room.canonical_alias": 50,
            "m.room.encryption": 100,
            "m.room.history_visibility": 100,
            "m.room.name": 50,
            "m.room.power_levels": 100,
            "m.room.server_acl": 100,
            "m.room.tombstone": tombstone,
        },
        "events_default": 0,
        "historical": 100,
        "invite": 0,
        "kick": 50,
        "redact": 50,
        "state_default": 50,
        "users": users,
        "users_default": 0,
    }
    content.update(override or {})
    _check_creators(version, content, {creator, *trusted})
    return content


def _check_creators(version: RoomVersion, content: JsonObject, creators: Collection[UserID]) -> None:
    users = content.get("users")
    if version.privileged_creators and isinstance(users, dict) and not users.keys().isdisjoint(creators):
        raise InvalidRoomState("power_level_content_override.users names a creator of the room")


def preset_state(preset: Preset) -> list[tuple[str, JsonObject]]:
    """Give the state events of a preset, as types and contents."""
    rules = PRESETS[preset]
    return [
        ("m.room.join_rules", {"join_rule": rules.join_rule}),
        ("m.room.history_visibility", {"history_visibility": rules.history_visibility}),
        ("m.room.guest_access", {"guest_access": rules.guest_access}),
    ]
