"""Filters of `/sync` and of history, compiled once: strict in form, capped in size, linear to apply.

A compiled filter compares by identity, so that it can stand in the key of a cache: the same text
gives the same object through `Filters`. It holds no reference to a user or a room.

Source: client-server-api/_index.md, "Filtering".
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Annotated, Literal, TypeVar

import msgspec
from attrs import field, frozen

from protocol.errors import BadJson, InvalidParam, TooLarge

MAX_NAMES = 1000
"""Names a list of a filter may hold."""
MAX_WILDCARDS = 50
"""Names with a wildcard a list of a filter may hold."""
MAX_FILTER_BYTES = 65_536
MAX_LIMIT = 500
"""Events a timeline or page may hold, whatever the filter asks."""
DEFAULT_TIMELINE_LIMIT = 10

_Name = Annotated[str, msgspec.Meta(max_length=255)]
_Names = Annotated[list[_Name], msgspec.Meta(max_length=MAX_NAMES)]
_Limit = Annotated[int, msgspec.Meta(ge=0)]
Body = TypeVar("Body", bound=msgspec.Struct)


class _EventFilterBody(msgspec.Struct):
    """EventFilter and RoomEventFilter as they travel."""

    limit: _Limit | None = None
    types: _Names | None = None
    not_types: _Names | None = None
    senders: _Names | None = None
    not_senders: _Names | None = None
    rooms: _Names | None = None
    not_rooms: _Names | None = None
    contains_url: bool | None = None
    lazy_load_members: bool | None = None
    include_redundant_members: bool | None = None
    unread_thread_notifications: bool | None = None


class _RoomFilterBody(msgspec.Struct):
    """RoomFilter as it travels."""

    rooms: _Names | None = None
    not_rooms: _Names | None = None
    include_leave: bool | None = None
    state: _EventFilterBody | None = None
    timeline: _EventFilterBody | None = None
    ephemeral: _EventFilterBody | None = None
    account_data: _EventFilterBody | None = None


class _FilterBody(msgspec.Struct):
    """Filter as it travels."""

    event_fields: _Names | None = None
    event_format: Literal["client", "federation"] | None = None
    presence: _EventFilterBody | None = None
    account_data: _EventFilterBody | None = None
    room: _RoomFilterBody | None = None


@frozen(eq=False)
class NamePattern:
    """Event types to match: exact names, and patterns where `*` stands for any characters."""

    exact: frozenset[str]
    wildcards: tuple[tuple[str, ...], ...] = ()
    """Each pattern as the texts between its stars."""

    @classmethod
    def of(cls, names: list[str]) -> NamePattern:
        """Compile names; raise TooLarge for more wildcards than a list may hold."""
        wildcards = tuple(tuple(name.split("*")) for name in dict.fromkeys(names) if "*" in name)
        if len(wildcards) > MAX_WILDCARDS:
            raise TooLarge("the filter holds too many wildcards in one list")
        return cls(frozenset(name for name in names if "*" not in name), wildcards)

    def matches(self, name: str) -> bool:
        """Tell whether a name or pattern of the list fits, in linear time."""
        return name in self.exact or any(_fits(parts, name) for parts in self.wildcards)


def _fits(parts: tuple[str, ...], name: str) -> bool:
    """Match one pattern, given as the texts between stars, from left to right."""
    first, last = parts[0], parts[-1]
    if len(name) < len(first) + len(last) or not name.startswith(first) or not name.endswith(last):
        return False
    at, end = len(first), len(name) - len(last)
    for part in parts[1:-1]:
        found = name.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True


@frozen(eq=False)
class EventFilter:
    """Which events to give, and how many."""

    limit: int | None = None
    types: NamePattern | None = None
    not_types: NamePattern | None = None
    senders: frozenset[str] | None = None
    not_senders: frozenset[str] = frozenset()
    rooms: frozenset[str] | None = None
    not_rooms: frozenset[str] = frozenset()
    contains_url: bool | None = None
    lazy_load_members: bool = False
    include_redundant_members: bool = False
    unread_thread_notifications: bool = False
    passes_all: bool = field(init=False)

    @passes_all.default
    def _passes_all(self) -> bool:
        """Tell whether no event can fail, rooms aside."""
        given = (self.types, self.not_types, self.senders, self.contains_url)
        return all(part is None for part in given) and not self.not_senders

    def allows_room(self, room_id: str) -> bool:
        """Tell whether events of the room may pass."""
        return room_id not in self.not_rooms and (self.rooms is None or room_id in self.rooms)

    def allows_type(self, event_type: str) -> bool:
        """Tell whether events of the type may pass."""
        if self.not_types is not None and self.not_types.matches(event_type):
            return False
        return self.types is None or self.types.matches(event_type)

    def allows(self, room_id: str, event_type: str) -> bool:
        """Tell whether events of the type may pass in the room."""
        return self.allows_room(room_id) and self.allows_type(event_type)

    def allows_sender(self, sender: str) -> bool:
        """Tell whether events of the sender may pass."""
        return sender not in self.not_senders and (self.senders is None or sender in self.senders)

    @property
    def never(self) -> bool:
        """Tell whether nothing can pass: a limit of zero or an empty list of types."""
        return self.limit == 0 or (self.types is not None and not (self.types.exact or self.types.wildcards))


ALL_EVENTS = EventFilter()


@frozen(eq=False)
class Filter:
    """A whole filter of `/sync`."""

    timeline: EventFilter = ALL_EVENTS
    state: EventFilter = ALL_EVENTS
    ephemeral: EventFilter = ALL_EVENTS
    room_account_data: EventFilter = ALL_EVENTS
    account_data: EventFilter = ALL_EVENTS
    presence: EventFilter = ALL_EVENTS
    rooms: frozenset[str] | None = None
    not_rooms: frozenset[str] = frozenset()
    include_leave: bool = False
    event_fields: tuple[tuple[str, ...], ...] | None = None
    """Paths of the fields to keep; None: all."""
    federation_format: bool = False

    @property
    def timeline_limit(self) -> int:
        """Tell how many events a timeline may hold."""
        limit = self.timeline.limit
        return DEFAULT_TIMELINE_LIMIT if limit is None else min(limit, MAX_LIMIT)

    @property
    def lazy_load_members(self) -> bool:
        """Tell whether only members that speak are given."""
        return self.state.lazy_load_members

    @property
    def reshapes(self) -> bool:
        """Tell whether events are given in another shape than the ordinary one."""
        return self.federation_format or self.event_fields is not None

    def allows_room(self, room_id: str) -> bool:
        """Tell whether the room is given at all."""
        return room_id not in self.not_rooms and (self.rooms is None or room_id in self.rooms)


DEFAULT_FILTER = Filter()


def compile_filter(raw: bytes | str) -> Filter:
    """Read and compile the JSON of a filter; raise BadJson or TooLarge naming what is wrong."""
    body = _decode(raw, _FilterBody)
    room = body.room or _RoomFilterBody()
    return Filter(
        timeline=_compile_events(room.timeline),
        state=_compile_events(room.state),
        ephemeral=_compile_events(room.ephemeral),
        room_account_data=_compile_events(room.account_data),
        account_data=_compile_events(body.account_data),
        presence=_compile_events(body.presence),
        rooms=None if room.rooms is None else frozenset(room.rooms),
        not_rooms=frozenset(room.not_rooms or ()),
        include_leave=bool(room.include_leave),
        event_fields=None if body.event_fields is None else _compile_fields(body.event_fields),
        federation_format=body.event_format == "federation",
    )


def compile_event_filter(raw: bytes | str) -> EventFilter:
    """Read and compile the JSON of a RoomEventFilter, as history endpoints take it."""
    return _compile_events(_decode(raw, _EventFilterBody))


def _decode(raw: bytes | str, body: type[Body]) -> Body:
    """Decode within the size limit; wrong types, depth and encoding are BadJson."""
    if len(raw) > MAX_FILTER_BYTES:
        raise TooLarge("the filter is too large")
    try:
        return msgspec.json.decode(raw, type=body)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise BadJson(f"filter: {error}") from error


def _compile_events(body: _EventFilterBody | None) -> EventFilter:
    """Compile one part of a filter."""
    if body is None:
        return ALL_EVENTS
    return EventFilter(
        limit=None if body.limit is None else min(body.limit, MAX_LIMIT),
        types=None if body.types is None else NamePattern.of(body.types),
        not_types=NamePattern.of(body.not_types) if body.not_types else None,
        senders=None if body.senders is None else frozenset(body.senders),
        not_senders=frozenset(body.not_senders or ()),
        rooms=None if body.rooms is None else frozenset(body.rooms),
        not_rooms=frozenset(body.not_rooms or ()),
        contains_url=body.contains_url,
        lazy_load_members=bool(body.lazy_load_members),
        include_redundant_members=bool(body.include_redundant_members),
        unread_thread_notifications=bool(body.unread_thread_notifications),
    )


def _compile_fields(paths: list[str]) -> tuple[tuple[str, ...], ...]:
    r"""Split dot-separated paths; `\.` and `\\` stand for the characters themselves."""
    return tuple(tuple(_split_path(path)) for path in paths)


def _split_path(path: str) -> list[str]:
    """Split one path at its unescaped dots."""
    parts, part, escaped = [], "", False
    for char in path:
        if escaped:
            part += char if char in ".\\" else "\\" + char
            escaped = False
        elif char == "\\":
            escaped = True
        elif char == ".":
            parts.append(part)
            part = ""
        else:
            part += char
    parts.append(part + ("\\" if escaped else ""))
    return parts


class Filters:
    """Compiled filters by their text: the same text gives the same object. Bound: `size` texts."""

    def __init__(self, size: int = 500) -> None:
        """Start with none."""
        self._size = size
        self._compiled: OrderedDict[bytes, Filter] = OrderedDict()

    def compile(self, raw: bytes) -> Filter:
        """Give the filter of a JSON text; raise BadJson or TooLarge."""
        known = self._compiled.get(raw)
        if known is not None:
            self._compiled.move_to_end(raw)
            return known
        compiled = compile_filter(raw)
        self._compiled[raw] = compiled
        if len(self._compiled) > self._size:
            self._compiled.popitem(last=False)
        return compiled


def clamp_limit(text: str | None, default: int = 10) -> int:
    """Read the `limit` of a query: at least 0, at most MAX_LIMIT; raise InvalidParam for no number."""
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 30:
        raise InvalidParam("limit must be a number that is not negative")
    return min(int(text), MAX_LIMIT)
