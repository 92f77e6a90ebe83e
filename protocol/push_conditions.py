"""The conditions of push rules, each compiled once into a test of an event.

A condition that is unknown or malformed never holds. Of a body only the beginning is searched, so that
many patterns against a long text stay cheap (security: D2, D3).

Source: client-server-api/modules/push.md, "Conditions"; appendices.md, "Dot-separated property paths".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from string import ascii_letters, digits
from typing import Any, Final, Protocol

from protocol.canonical_json import JsonObject
from protocol.globs import Glob
from protocol.identifiers import RoomID, UserID
from protocol.limits import MAX_GLOB_LENGTH
from protocol.push_defaults import OWNER
from protocol.unread import Judged

MAX_SEARCHED: Final = 4_096
"""Characters of a value that patterns are looked for in; ours."""
_BODY: Final = "content.body"
_ABSENT: Final = object()
_WORD: Final = frozenset(ascii_letters + digits + "_")
_COUNT = re.compile(r"(==|<=|>=|<|>)?([0-9]{1,9})")
_ESCAPE = re.compile(r"\\([.\\])|(\.)")


class PushFacts(Protocol):
    """What rules ask beside the event."""

    @property
    def room_id(self) -> RoomID:
        """Give the room."""

    @property
    def sender(self) -> UserID:
        """Give who sent the event."""

    @property
    def reader(self) -> UserID:
        """Give the owner of the rules."""

    @property
    def members(self) -> int:
        """Give how many have joined the room."""

    @property
    def may_notify_room(self) -> bool:
        """Tell whether the sender's power suffices to notify the whole room."""

    @property
    def display_name(self) -> str | None:
        """Give the owner's display name in the room, if any."""


Condition = Callable[[Judged, PushFacts], bool]
"""Tells whether a condition holds for an event."""

Reader = Callable[[Judged, PushFacts], object]
"""Reads a property of an event, `_ABSENT` if it has none."""


def split_path(key: str) -> tuple[str, ...]:
    """Split a path at its dots; a backslash takes the meaning from a dot or a backslash after it."""
    parts, part, place = [], "", 0
    for found in _ESCAPE.finditer(key):
        part += key[place : found.start()] + (found[1] or "")
        place = found.end()
        if found[2]:
            parts.append(part)
            part = ""
    return (*parts, part + key[place:])


def _reader_of(key: object) -> Reader | None:
    """Compile a path into what reads the property of an event, `_ABSENT` if it has none."""
    if not isinstance(key, str):
        return None
    first, *rest = split_path(key)
    if first != "content":
        return None if rest else _TOP_LEVEL.get(first)
    return _reader_of_content(rest) if rest else None


def _reader_of_content(names: Sequence[str]) -> Reader:
    """Compile a path of one name or more within the content."""
    *outer, last = names

    def read(event: Judged, _facts: PushFacts) -> object:
        found: Any = event.content
        for name in outer:
            found = found.get(name)
            if not isinstance(found, dict):
                return _ABSENT
        return found.get(last, _ABSENT)

    return read


_TOP_LEVEL: Final[Mapping[str, Reader]] = {
    "type": lambda event, _facts: event.type,
    "state_key": lambda event, _facts: _ABSENT if event.state_key is None else event.state_key,
    "sender": lambda _event, facts: facts.sender,
    "room_id": lambda _event, facts: facts.room_id,
}
"""Properties outside the content that conditions may ask for: those that say what an event is."""


def compile_condition(condition: JsonObject) -> Condition | None:
    """Compile a condition; None if it can never hold."""
    compiler = _COMPILERS.get(str(condition.get("kind")))
    return None if compiler is None else compiler(condition)


def compile_pattern(key: str, pattern: str) -> Condition | None:
    """Compile the search for a pattern in a property: by words in the body, otherwise in the whole value."""
    read = _reader_of(key)
    if read is None or len(pattern) > MAX_GLOB_LENGTH:
        return None
    glob = Glob(pattern)
    if key == _BODY:
        return _text_condition(read, lambda text: glob.matches_words(text[:MAX_SEARCHED]))
    plain = pattern.lower()
    if "*" not in pattern and "?" not in pattern:
        return _text_condition(read, lambda text: text == pattern or text.lower() == plain)
    return _text_condition(read, lambda text: len(text) <= MAX_SEARCHED and glob.matches(text))


def _text_condition(read: Reader, holds: Callable[[str], bool]) -> Condition:
    def condition(event: Judged, facts: PushFacts) -> bool:
        value = read(event, facts)
        return isinstance(value, str) and holds(value)

    return condition


def _event_match(found: JsonObject) -> Condition | None:
    key, pattern = found.get("key"), found.get("pattern")
    if not isinstance(key, str) or not isinstance(pattern, str):
        return None
    if pattern == OWNER:
        read = _reader_of(key)
        return None if read is None else lambda event, facts: read(event, facts) == facts.reader
    return compile_pattern(key, pattern)


def type_wanted(condition: JsonObject) -> str | None:
    """Give the type, in lower case, of the only events for which a condition holds; None if it asks for more.

    Such a condition holds for all events of the type, so that rules may be looked up by it.
    """
    pattern = condition.get("pattern")
    if condition.get("kind") != "event_match" or condition.get("key") != "type":
        return None
    if not isinstance(pattern, str) or "*" in pattern or "?" in pattern or len(pattern) > MAX_GLOB_LENGTH:
        return None
    return pattern.lower()


def _is_simple(value: object) -> bool:
    return value is None or type(value) in (str, int, bool)


def _is_same(one: object, other: object) -> bool:
    """Compare simple values of JSON, in which true is not 1."""
    return type(one) is type(other) and one == other


def _event_property_is(found: JsonObject) -> Condition | None:
    read, value = _reader_of(found.get("key")), found.get("value", _ABSENT)
    if read is None or not _is_simple(value):
        return None
    return lambda event, facts: _is_same(read(event, facts), value)


def _event_property_contains(found: JsonObject) -> Condition | None:
    read, value = _reader_of(found.get("key")), found.get("value", _ABSENT)
    if read is None or not _is_simple(value):
        return None

    def condition(event: Judged, facts: PushFacts) -> bool:
        wanted = facts.reader if value == OWNER else value
        values = read(event, facts)
        return isinstance(values, (list, tuple)) and any(_is_same(each, wanted) for each in values)

    return condition


def _contains_display_name(_found: JsonObject) -> Condition:
    """Compile the old search for the owner's name, in which stars are but stars."""

    def condition(event: Judged, facts: PushFacts) -> bool:
        name, body = facts.display_name, event.content.get("body")
        if not name or len(name) > MAX_GLOB_LENGTH or not isinstance(body, str):
            return False
        return _has_words(body[:MAX_SEARCHED].lower(), name.lower())

    return condition


def _has_words(text: str, words: str) -> bool:
    """Tell whether words stand in a text with no letter, digit or underscore right before or after them."""
    start = text.find(words)
    while start >= 0:
        end = start + len(words)
        if not _WORD.isdisjoint(text[max(start - 1, 0) : start]) or not _WORD.isdisjoint(text[end : end + 1]):
            start = text.find(words, start + 1)
        else:
            return True
    return False


def _room_member_count(found: JsonObject) -> Condition | None:
    wanted = found.get("is")
    parsed = _COUNT.fullmatch(wanted) if isinstance(wanted, str) else None
    if parsed is None:
        return None
    compare, number = _COMPARISONS[parsed[1] or "=="], int(parsed[2])
    return lambda _event, facts: compare(facts.members, number)


_COMPARISONS: Final[Mapping[str, Callable[[int, int], bool]]] = {
    "==": lambda one, other: one == other,
    "<": lambda one, other: one < other,
    ">": lambda one, other: one > other,
    "<=": lambda one, other: one <= other,
    ">=": lambda one, other: one >= other,
}


def _sender_notification_permission(found: JsonObject) -> Condition | None:
    """Compile the test of the sender's power; `room` is the only kind of notification there is."""
    return (lambda _event, facts: facts.may_notify_room) if found.get("key") == "room" else None


_COMPILERS: Final[Mapping[str, Callable[[JsonObject], Condition | None]]] = {
    "event_match": _event_match,
    "event_property_is": _event_property_is,
    "event_property_contains": _event_property_contains,
    "contains_display_name": _contains_display_name,
    "room_member_count": _room_member_count,
    "sender_notification_permission": _sender_notification_permission,
}
