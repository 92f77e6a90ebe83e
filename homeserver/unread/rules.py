"""What unread counts need of push rules, and the masks made of them.

A mask is what a user's rules say of each class of events in a room. It is found by asking the rules about
a plain event of each class: so muted rooms, mentions-only and disabled rules are masks like any other.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Mapping
from typing import Any, Protocol

from attrs import frozen

from protocol.identifiers import RoomID, UserID
from protocol.unread import BY_DEFAULT, EventClass, Judged, Masks, Verdict
from storage.database import Transaction

NOBODY = UserID("@:")
DIRECT_MEMBERS = 2


@frozen
class Facts:
    """What rules may ask beside the event."""

    room_id: RoomID
    sender: UserID
    reader: UserID
    members: int
    """Joined members of the room."""
    may_notify_room: bool
    """Whether the sender's power suffices to mention the whole room."""
    display_name: str | None = None
    """The reader's name in the room; looked up only for rules that ask for it."""


class UserRules(Protocol):
    """The push rules of a user, default rules included."""

    @property
    def key(self) -> Hashable:
        """Give what equal sets of rules have in common."""

    def verdict(self, event: Judged, facts: Facts) -> Verdict:
        """Judge an event for `facts.reader`."""
        ...


class RuleSets(Protocol):
    """The rules of local users. Called on database threads: must be safe there."""

    def of(self, tx: Transaction, users: Mapping[int, UserID]) -> Mapping[int, UserRules]:
        """Give the rules of those users whose rules are not the default ones."""
        ...


@frozen
class _Plain:
    """A plain event of one class, that names nobody."""

    type: str
    content: Mapping[str, Any]
    state_key: str | None = None


_PLAIN = {
    EventClass.MESSAGE: _Plain("m.room.message", {"msgtype": "m.text", "body": ""}),
    EventClass.ENCRYPTED: _Plain("m.room.encrypted", {}),
    EventClass.CALL: _Plain("m.call.invite", {}),
    EventClass.TOMBSTONE: _Plain("m.room.tombstone", {}, ""),
    EventClass.ROOM_MENTION: _Plain(
        "m.room.message", {"msgtype": "m.text", "body": "", "m.mentions": {"room": True}}
    ),
}


class MaskCache:
    """Masks by rules, room and whether the room is one of two. Bound: `size` masks."""

    def __init__(self, size: int = 20_000) -> None:
        """Start with none."""
        self._size = size
        self._masks: OrderedDict[Hashable, Masks] = OrderedDict()

    def of(self, rules: UserRules | None, room_id: RoomID, members: int) -> Masks:
        """Give the mask of rules in a room; None: the default rules."""
        if rules is None:
            return BY_DEFAULT
        direct = members == DIRECT_MEMBERS
        key = (rules.key, room_id, direct)
        mask = self._masks.get(key)
        if mask is None:
            facts = Facts(room_id, NOBODY, NOBODY, members, may_notify_room=True)
            mask = {EventClass.NONE: Verdict()} | {
                kind: rules.verdict(plain, facts) for kind, plain in _PLAIN.items()
            }
            self._masks[key] = mask
            if len(self._masks) > self._size:
                self._masks.pop(next(iter(self._masks)), None)
        return mask
