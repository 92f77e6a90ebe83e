"""Room versions as values: each is the one before, except for what its page of the specification changes.

No code compares version IDs; it asks a rule by its name. State resolution, authorisation and redaction
take a `RoomVersion` as argument.

Source: rooms/_index.md and rooms/v1.md to rooms/v12.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from attrs import evolve, frozen

from protocol.errors import UnsupportedRoomVersion


class EventIdFormat(Enum):
    """Where the ID of an event comes from."""

    OPAQUE = "opaque"
    """The event names it: `$opaque:domain`."""
    HASH_STANDARD = "hash_standard"
    """The reference hash in unpadded base64."""
    HASH_URLSAFE = "hash_urlsafe"
    """The reference hash in unpadded URL-safe base64."""


class StateResolution(Enum):
    """The algorithm that resolves conflicting states."""

    V1 = "v1"
    V2 = "v2"
    V2_1 = "v2.1"


@frozen
class RedactionRules:
    """What stays of an event that is redacted.

    `content` names, by event type, the keys of the content that stay; a type that is in neither map loses
    all of its content.
    """

    top_level: frozenset[str]
    content: Mapping[str, frozenset[str]]
    whole_content: frozenset[str] = frozenset()
    """Event types whose content stays whole."""
    third_party_signed: bool = False
    """`third_party_invite.signed` of a membership stays."""


@frozen
class RoomVersion:
    """The rules of one room version."""

    id: str
    event_id_format: EventIdFormat
    state_resolution: StateResolution
    redaction: RedactionRules
    pairs_in_references: bool = True
    """`prev_events` and `auth_events` hold pairs of event ID and hashes, not IDs alone."""
    strict_json: bool = False
    """Floats and integers beyond ±(2^53 - 1) are refused."""
    strict_byte_limits: bool = False
    """Identifiers are measured in bytes alone; before, some of 255 code points but more bytes got about."""
    enforce_key_validity: bool = False
    """A signature counts only if its key was valid when the event was sent."""
    special_case_aliases_auth: bool = True
    """`m.room.aliases` has an authorisation rule of its own."""
    redaction_auth_rule: bool = True
    """Authorisation decides whether a redaction may be sent; otherwise it is decided when it is applied."""
    notifications_power_levels: bool = False
    """Changes of `notifications` in the power levels are checked like those of `events`."""
    knock: bool = False
    restricted_join: bool = False
    knock_restricted_join: bool = False
    integer_power_levels: bool = False
    """Power levels must be integers; before, strings counted too."""
    redacts_in_content: bool = False
    """A redaction names its target in `content`, not at the top level."""
    implicit_room_creator: bool = False
    """The creator is the sender of the create event, not `content.creator`."""
    room_id_is_create_hash: bool = False
    """The room ID is the create event's ID with another sigil, and the create event has no `room_id`."""
    create_in_auth_events: bool = True
    """Events name the create event among their `auth_events`."""
    privileged_creators: bool = False
    """Creators stand above every power level, and `additional_creators` names more of them."""

    @property
    def hashed_event_ids(self) -> bool:
        """Tell whether event IDs are made of hashes; otherwise events name their own."""
        return self.event_id_format is not EventIdFormat.OPAQUE


_REDACTION_V1 = RedactionRules(
    top_level=frozenset(
        {
            "event_id",
            "type",
            "room_id",
            "sender",
            "state_key",
            "content",
            "hashes",
            "signatures",
            "depth",
            "prev_events",
            "prev_state",
            "auth_events",
            "origin",
            "origin_server_ts",
            "membership",
        }
    ),
    content={
        "m.room.member": frozenset({"membership"}),
        "m.room.create": frozenset({"creator"}),
        "m.room.join_rules": frozenset({"join_rule"}),
        "m.room.power_levels": frozenset(
            {
                "ban",
                "events",
                "events_default",
                "kick",
                "redact",
                "state_default",
                "users",
                "users_default",
            }
        ),
        "m.room.aliases": frozenset({"aliases"}),
        "m.room.history_visibility": frozenset({"history_visibility"}),
    },
)
_REDACTION_V6 = evolve(
    _REDACTION_V1,
    content={kind: keys for kind, keys in _REDACTION_V1.content.items() if kind != "m.room.aliases"},
)
_REDACTION_V8 = evolve(
    _REDACTION_V6, content={**_REDACTION_V6.content, "m.room.join_rules": frozenset({"join_rule", "allow"})}
)
_REDACTION_V9 = evolve(
    _REDACTION_V8,
    content={
        **_REDACTION_V8.content,
        "m.room.member": frozenset({"membership", "join_authorised_via_users_server"}),
    },
)
_REDACTION_V11 = evolve(
    _REDACTION_V9,
    top_level=_REDACTION_V9.top_level - {"origin", "membership", "prev_state"},
    content={
        **_REDACTION_V9.content,
        "m.room.power_levels": _REDACTION_V9.content["m.room.power_levels"] | {"invite"},
        "m.room.redaction": frozenset({"redacts"}),
    },
    whole_content=frozenset({"m.room.create"}),
    third_party_signed=True,
)

V1 = RoomVersion("1", EventIdFormat.OPAQUE, StateResolution.V1, _REDACTION_V1)
V2 = evolve(V1, id="2", state_resolution=StateResolution.V2)
V3 = evolve(
    V2,
    id="3",
    event_id_format=EventIdFormat.HASH_STANDARD,
    pairs_in_references=False,
    redaction_auth_rule=False,
)
V4 = evolve(V3, id="4", event_id_format=EventIdFormat.HASH_URLSAFE)
V5 = evolve(V4, id="5", enforce_key_validity=True)
V6 = evolve(
    V5,
    id="6",
    redaction=_REDACTION_V6,
    strict_json=True,
    special_case_aliases_auth=False,
    notifications_power_levels=True,
)
V7 = evolve(V6, id="7", knock=True)
V8 = evolve(V7, id="8", redaction=_REDACTION_V8, restricted_join=True)
V9 = evolve(V8, id="9", redaction=_REDACTION_V9)
V10 = evolve(V9, id="10", integer_power_levels=True, knock_restricted_join=True)
V11 = evolve(
    V10,
    id="11",
    redaction=_REDACTION_V11,
    strict_byte_limits=True,
    redacts_in_content=True,
    implicit_room_creator=True,
)
V12 = evolve(
    V11,
    id="12",
    state_resolution=StateResolution.V2_1,
    room_id_is_create_hash=True,
    create_in_auth_events=False,
    privileged_creators=True,
)

ROOM_VERSIONS: Mapping[str, RoomVersion] = {
    version.id: version for version in (V1, V2, V3, V4, V5, V6, V7, V8, V9, V10, V11, V12)
}
DEFAULT_ROOM_VERSION = V12


def get_room_version(version_id: str) -> RoomVersion:
    """Give the room version of that ID; raises UnsupportedRoomVersion."""
    version = ROOM_VERSIONS.get(version_id)
    if version is None:
        raise UnsupportedRoomVersion(f"Room version {version_id[:32]!r} is not supported")
    return version
