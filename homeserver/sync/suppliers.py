"""What other services give to sync: small interfaces, implemented beside the data and joined in `app.py`.

Each must answer from memory when there is nothing to tell, since a sync with nothing new asks no
database. Numbers named `ref` are those of the feed's entries.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import Protocol

import orjson
from attrs import frozen

from homeserver.sync.filters import ALL_EVENTS, EventFilter
from homeserver.sync.session import Session
from protocol.identifiers import EventID, UserID


@frozen
class Receipt:
    """A read receipt."""

    ref: int
    event_id: EventID
    receipt_type: str
    user_id: UserID
    thread_id: str | None
    ts: int


class Receipts(Protocol):
    """Read receipts by room, private ones too: sync shows those (`m.read.private`) to their owner alone."""

    async def of(self, wanted: Mapping[int, frozenset[int] | None]) -> Mapping[int, Sequence[Receipt]]:
        """Give the receipts with these numbers, by room nid, without replaced ones; None: all of the room."""
        ...


@frozen
class Delivery:
    """How far a user's devices have what is said in a room."""

    event_id: EventID
    user_id: UserID
    ts: int


class Deliveries(Protocol):
    """Marks of what has come to others, and the news of what has come to a session."""

    def begins(self, user_nid: int) -> None:
        """Note that a device of a user starts from nothing: all it gets may be new to the user."""

    def arrived(self, user_nid: int, pos: int) -> None:
        """Note that a device of a user has everything up to a position of the feed."""

    async def of(self, wanted: Mapping[int, frozenset[int]]) -> Mapping[int, Sequence[Delivery]]:
        """Give the marks with these numbers, by room nid, without those that have moved since."""
        ...


@frozen
class AccountDatum:
    """One piece of account data; deleted ones have `{}` as content."""

    room_nid: int | None
    type: str
    content: bytes


class AccountData(Protocol):
    """A user's account data, of all rooms and global."""

    async def changed(self, user_nid: int, refs: Collection[int]) -> Sequence[AccountDatum]:
        """Give what these numbers stand for, as it is now."""
        ...

    async def everything(self, user_nid: int) -> Sequence[AccountDatum]:
        """Give all of it."""
        ...

    async def one(self, user_nid: int, event_type: str) -> bytes | None:
        """Give the content of one global type."""
        ...


@frozen
class ToDevicePage:
    """To-device messages in order, as JSON, and the number of the last."""

    events: Sequence[bytes]
    last: int


class ToDevice(Protocol):
    """Messages to a device, kept until the device has shown that it has them."""

    async def after(self, session: Session, after: int, limit: int) -> ToDevicePage | None:
        """Give messages after a number, None if there are none."""
        ...

    async def delete(self, session: Session, upto: int) -> None:
        """Drop messages up to a number."""


@frozen
class KeyCounts:
    """A device's unclaimed one-time keys by algorithm, and the algorithms whose fallback key is unused."""

    one_time: Mapping[str, int]
    unused_fallback: Sequence[str]

    @cached_property
    def json(self) -> bytes:
        """Give the members of an answer that tell them."""
        return b'"device_one_time_keys_count":%b,"device_unused_fallback_key_types":%b' % (
            orjson.dumps(dict(self.one_time), option=orjson.OPT_SORT_KEYS),
            orjson.dumps(list(self.unused_fallback)),
        )


class DeviceKeys(Protocol):
    """What a device must know to upload keys in time."""

    async def counts(self, session: Session) -> KeyCounts:
        """Give the counts."""
        ...


class Ephemeral(Protocol):
    """Typing and presence: kept in memory, moved by a counter of their own."""

    @property
    def ring(self) -> str:
        """Name the counter's incarnation: digits and lower-case letters, at most 16."""

    @property
    def position(self) -> int:
        """Tell the last value of the counter."""

    def typing(self, room_nids: Collection[int], after: int | None) -> Mapping[int, Sequence[UserID]]:
        """Give who types now where that changed after `after`; None: where anyone types."""
        ...

    async def presence(
        self, session: Session, after: int | None, wanted: EventFilter = ALL_EVENTS
    ) -> Sequence[bytes]:
        """Give `m.presence` events, as JSON, that changed after `after` (None: all that matter)."""
        ...


@frozen
class UnreadCount:
    """Unread notifications of a user in a room: of the main timeline, and by thread."""

    notifications: int = 0
    highlights: int = 0
    threads: Mapping[str, tuple[int, int]] = {}
    """Thread root to (notifications, highlights); threads without any are absent."""


NONE_UNREAD = UnreadCount()


class UnreadCounts(Protocol):
    """Unread counts, from memory where known."""

    async def of(
        self, session: Session, room_nids: Collection[int], ignored: frozenset[UserID] = frozenset()
    ) -> Mapping[int, UnreadCount]:
        """Give the counts of rooms the user is in; what `ignored` users say does not count."""
        ...


class IgnoredUsers(Protocol):
    """Whom a user ignores."""

    async def of(self, user_nid: int) -> frozenset[UserID]:
        """Give the ignored users."""
        ...
