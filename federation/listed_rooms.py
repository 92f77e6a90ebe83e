"""The page of published rooms that another server answers with: what of it is believed.

A room is told with the fields the specification has, in bounds; one that lacks a field it must have is left
out, and so is any other field that is wrong (some servers give an empty string where there is no alias).

Source: data/api/client-server/definitions/public_rooms_response.yaml and public_rooms_chunk.yaml.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from federation.failures import BadAnswer
from protocol.canonical_json import JsonObject
from protocol.errors import MatrixError
from protocol.identifiers import ServerName, parse_room_alias, parse_room_id

MAX_COUNT = 2**53 - 1
MAX_PROSE = 4096
"""Characters of a name or topic; what is longer is cut."""
MAX_WORD = 255
MAX_ADDRESS = 1024
"""Characters of the address of a picture, and of a position to go on from."""


def read_page(server: ServerName, answer: Mapping[str, Any], limit: int) -> JsonObject:
    """Give what may be passed on of an answer, no more than `limit` rooms; raises BadAnswer without any."""
    chunk = answer.get("chunk")
    if not isinstance(chunk, list):
        raise BadAnswer(server, "chunk is missing")
    rooms = [room for entry in chunk[:limit] if (room := _room(entry)) is not None]
    return {"chunk": rooms} | _kept(answer, _OF_PAGES)


def _room(entry: object) -> JsonObject | None:
    """Give a room as it may be told, None for what is none."""
    if not isinstance(entry, dict):
        return None
    room = _kept(entry, _REQUIRED)
    return room | _kept(entry, _OPTIONAL) if len(room) == len(_REQUIRED) else None


def _kept(given: Mapping[str, Any], fields: Mapping[str, Callable[[Any], Any]]) -> JsonObject:
    """Give those fields that are there and right."""
    read = {name: read(given.get(name)) for name, read in fields.items()}
    return {name: value for name, value in read.items() if value is not None}


def _count(value: object) -> int | None:
    return value if type(value) is int and 0 <= value <= MAX_COUNT else None


def _flag(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _prose(value: object) -> str | None:
    return value[:MAX_PROSE] if isinstance(value, str) and value else None


def _word(value: object) -> str | None:
    return value if isinstance(value, str) and 0 < len(value) <= MAX_WORD else None


def _position(value: object) -> str | None:
    return value if isinstance(value, str) and 0 < len(value) <= MAX_ADDRESS else None


def _picture(value: object) -> str | None:
    address = _position(value)
    return address if address is not None and address.startswith("mxc://") else None


def _parsed(parse: Callable[[object], str]) -> Callable[[object], str | None]:
    """Give a reader that passes over what cannot be parsed."""

    def read(value: object) -> str | None:
        try:
            return parse(value)
        except MatrixError:
            return None

    return read


_REQUIRED: Mapping[str, Callable[[Any], Any]] = {
    "room_id": _parsed(parse_room_id),
    "num_joined_members": _count,
    "world_readable": _flag,
    "guest_can_join": _flag,
}
_OPTIONAL: Mapping[str, Callable[[Any], Any]] = {
    "name": _prose,
    "topic": _prose,
    "avatar_url": _picture,
    "canonical_alias": _parsed(parse_room_alias),
    "join_rule": _word,
    "room_type": _word,
}
_OF_PAGES: Mapping[str, Callable[[Any], Any]] = {
    "next_batch": _position,
    "prev_batch": _position,
    "total_room_count_estimate": _count,
}
