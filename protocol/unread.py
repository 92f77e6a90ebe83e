"""Classes of events by which unread notifications are counted, and verdicts on them. Pure.

A class says which default push rule decides on an event, as far as the event alone can tell. What a
user's rules make of a class is a mask; only verdicts that differ from it need to be kept.

Source: client-server-api/modules/push.md, "Predefined Rules".
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any, Protocol

from attrs import frozen


class EventClass(IntEnum):
    """Which default rule decides."""

    NONE = 0
    """None that notifies."""
    MESSAGE = 1
    ENCRYPTED = 2
    CALL = 3
    TOMBSTONE = 4
    ROOM_MENTION = 5
    """A mention of the whole room by a sender who may; not to be told from the event alone."""


@frozen
class Verdict:
    """What push rules say of an event."""

    notify: bool = False
    highlight: bool = False


SILENT = Verdict()
NOTIFY = Verdict(True)
HIGHLIGHT = Verdict(True, True)

BY_DEFAULT: Mapping[EventClass, Verdict] = {
    EventClass.NONE: SILENT,
    EventClass.MESSAGE: NOTIFY,
    EventClass.ENCRYPTED: NOTIFY,
    EventClass.CALL: NOTIFY,
    EventClass.TOMBSTONE: HIGHLIGHT,
    EventClass.ROOM_MENTION: HIGHLIGHT,
}
"""What the default rules say of each class."""

Masks = Mapping[EventClass, Verdict]
"""What one user's rules say of each class in one room."""


class Judged(Protocol):
    """What is looked at of an event."""

    @property
    def type(self) -> str:
        """Give the type."""

    @property
    def state_key(self) -> str | None:
        """Give the state key, None for a message event."""

    @property
    def content(self) -> Mapping[str, Any]:
        """Give the content."""


def classify(event: Judged) -> EventClass:
    """Give the class of an event; a mention of the room counts as what it is beside."""
    kind = event.type
    if event.content.get("msgtype") == "m.notice":
        return EventClass.NONE
    if kind == "m.room.tombstone" and event.state_key == "":
        return EventClass.TOMBSTONE
    if kind not in _BY_TYPE or _is_edit(event.content):
        return EventClass.NONE
    return _BY_TYPE[kind]


_BY_TYPE = {
    "m.room.message": EventClass.MESSAGE,
    "m.room.encrypted": EventClass.ENCRYPTED,
    "m.call.invite": EventClass.CALL,
}


def _is_edit(content: Mapping[str, Any]) -> bool:
    """Tell whether an event replaces another."""
    relation = content.get("m.relates_to")
    return isinstance(relation, Mapping) and relation.get("rel_type") == "m.replace"


def mentioned(event: Judged) -> frozenset[str]:
    """Give the user IDs that the event mentions; nonsense mentions nobody."""
    mentions = event.content.get("m.mentions")
    users = mentions.get("user_ids") if isinstance(mentions, Mapping) else None
    if not isinstance(users, (list, tuple)):
        return frozenset()
    return frozenset(user for user in users if isinstance(user, str))


def mentions_room(event: Judged) -> bool:
    """Tell whether the event mentions the whole room, whoever sent it."""
    mentions = event.content.get("m.mentions")
    return isinstance(mentions, Mapping) and mentions.get("room") is True
