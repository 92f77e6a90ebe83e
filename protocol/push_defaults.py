"""The push rules that everybody has from the start, as data.

Source: client-server-api/modules/push.md, "Predefined Rules".
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

from attrs import frozen

from protocol.canonical_json import JsonObject

OWNER: Final = "\0owner"
"""Stands in conditions for the user whose rules these are; no identifier may hold it."""


class RuleKind(StrEnum):
    """The kinds of push rules, the more important first."""

    OVERRIDE = "override"
    CONTENT = "content"
    ROOM = "room"
    SENDER = "sender"
    UNDERRIDE = "underride"


@frozen
class Rule:
    """A push rule.

    `conditions` are those of override and underride rules, `pattern` is that of content rules; other kinds
    have neither. JSON values within are never to be changed.
    """

    rule_id: str
    actions: tuple[Any, ...]
    conditions: tuple[JsonObject, ...] | None = None
    pattern: str | None = None
    enabled: bool = True
    default: bool = False


def _match(key: str, pattern: str) -> JsonObject:
    return {"kind": "event_match", "key": key, "pattern": pattern}


def _default(name: str, actions: tuple[Any, ...], *conditions: JsonObject, enabled: bool = True) -> Rule:
    return Rule(f".m.rule.{name}", actions, conditions, enabled=enabled, default=True)


_SOUND: Final = {"set_tweak": "sound", "value": "default"}
_RING: Final = {"set_tweak": "sound", "value": "ring"}
_HIGHLIGHT: Final = {"set_tweak": "highlight"}
_OF_TWO: Final = {"kind": "room_member_count", "is": "2"}
_MESSAGE: Final = _match("type", "m.room.message")
_ENCRYPTED: Final = _match("type", "m.room.encrypted")

MASTER: Final = _default("master", (), enabled=False)
"""More important than any rule of a user's own."""

_OVERRIDES: Final = (
    _default("suppress_notices", (), _match("content.msgtype", "m.notice")),
    _default(
        "invite_for_me",
        ("notify", _SOUND),
        _match("type", "m.room.member"),
        _match("content.membership", "invite"),
        _match("state_key", OWNER),
    ),
    _default("member_event", (), _match("type", "m.room.member")),
    _default(
        "is_user_mention",
        ("notify", _SOUND, _HIGHLIGHT),
        {"kind": "event_property_contains", "key": r"content.m\.mentions.user_ids", "value": OWNER},
    ),
    _default(
        "is_room_mention",
        ("notify", _HIGHLIGHT),
        {"kind": "event_property_is", "key": r"content.m\.mentions.room", "value": True},
        {"kind": "sender_notification_permission", "key": "room"},
    ),
    _default(
        "tombstone", ("notify", _HIGHLIGHT), _match("type", "m.room.tombstone"), _match("state_key", "")
    ),
    _default("reaction", (), _match("type", "m.reaction")),
    _default("room.server_acl", (), _match("type", "m.room.server_acl"), _match("state_key", "")),
    _default(
        "suppress_edits",
        (),
        {"kind": "event_property_is", "key": r"content.m\.relates_to.rel_type", "value": "m.replace"},
    ),
)
_UNDERRIDES: Final = (
    _default("call", ("notify", _RING), _match("type", "m.call.invite")),
    _default("encrypted_room_one_to_one", ("notify", _SOUND), _OF_TWO, _ENCRYPTED),
    _default("room_one_to_one", ("notify", _SOUND), _OF_TWO, _MESSAGE),
    _default("message", ("notify",), _MESSAGE),
    _default("encrypted", ("notify",), _ENCRYPTED),
)

DEFAULT_RULES: Final[Mapping[RuleKind, tuple[Rule, ...]]] = {
    RuleKind.OVERRIDE: _OVERRIDES,
    RuleKind.CONTENT: (),
    RuleKind.ROOM: (),
    RuleKind.SENDER: (),
    RuleKind.UNDERRIDE: _UNDERRIDES,
}
"""By kind, in order; less important than a user's own of the kind. `MASTER` is not among them."""
