"""Stripped state as other servers show it: nonsense is left out, and no more than the few known fields stay.

Source: client-server-api/_index.md, "Stripped state"; security F11.
"""

from __future__ import annotations

from collections.abc import Sequence

from protocol.canonical_json import JsonObject, encode_lax
from protocol.errors import MatrixError
from protocol.events import Event
from protocol.identifiers import parse_user_id
from protocol.limits import MAX_EVENT_BYTES, MAX_ID_BYTES

MAX_EVENTS = 50
"""Events kept for one room."""


def stripped_of(shown: Sequence[object]) -> list[JsonObject]:
    """Give the well-formed among events of unknown worth, each with the four fields of the stripped form."""
    found: dict[tuple[str, str], JsonObject] = {}
    for item in shown[:MAX_EVENTS]:
        event = _stripped(item)
        if event is not None:
            found[event["type"], event["state_key"]] = event
    return list(found.values())


def stripped_event(event: Event) -> JsonObject:
    """Give a state event in its stripped form."""
    return {
        "type": event.type,
        "state_key": event.state_key,
        "sender": event.sender,
        "content": dict(event.content),
    }


def _stripped(item: object) -> JsonObject | None:
    """Read one event, or give None if a field is missing or of a wrong type."""
    if not isinstance(item, dict) or not isinstance(item.get("content"), dict):
        return None
    event = {name: item.get(name) for name in ("type", "state_key", "sender", "content")}
    names = [event["type"], event["state_key"], event["sender"]]
    if not all(
        isinstance(text, str) and len(text.encode("utf-8", "replace")) <= MAX_ID_BYTES for text in names
    ):
        return None
    try:
        parse_user_id(event["sender"])
        size = len(encode_lax(event))
    except MatrixError:
        return None
    return event if size <= MAX_EVENT_BYTES else None


def _is_name(text: object) -> bool:
    return isinstance(text, str) and len(text.encode("utf-8", "replace")) <= MAX_ID_BYTES
