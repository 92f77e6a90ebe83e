"""Matrix identifiers: typed at the edge, trusted inside.

Each kind is a `NewType` over `str`: free at run time, apart for the type checker. `parse_*` turns
outside text into an identifier or raises `InvalidParam` naming what is wrong; inside, nothing is
checked again. The grammars are the historical ones, since old rooms are full of old identifiers;
`is_new_localpart` tells what a new account may be called.

Source: appendices.md, "Identifier Grammar".
"""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import NewType

from protocol.errors import InvalidParam
from protocol.limits import MAX_ID_BYTES

UserID = NewType("UserID", str)
RoomID = NewType("RoomID", str)
RoomAlias = NewType("RoomAlias", str)
EventID = NewType("EventID", str)
ServerName = NewType("ServerName", str)
DeviceID = NewType("DeviceID", str)
KeyID = NewType("KeyID", str)
StateKey = tuple[str, str]
"""A key of room state: (event type, state key)."""

_SERVER = r"(?:\[[0-9A-Fa-f:.]{2,45}\]|[0-9A-Za-z.-]{1,255})(?::[0-9]{1,5})?"
_OPAQUE = r"[^\0\ud800-\udfff]"
_LOCALPART = r"[^:\0\ud800-\udfff]"
_SERVER_NAME = re.compile(_SERVER)
_USER_ID = re.compile(f"@{_LOCALPART}*:{_SERVER}")
_ROOM_ALIAS = re.compile(f"#{_LOCALPART}+:{_SERVER}")
_ROOM_ID = re.compile(f"!{_LOCALPART}*:{_SERVER}")
_HASH_ROOM_ID = re.compile(r"![0-9A-Za-z_-]{43}")
_EVENT_ID = re.compile(rf"\${_OPAQUE}+")
_KEY_ID = re.compile(r"[a-z0-9_]+:[!#-\[\]-~]+")
_NEW_LOCALPART = re.compile(r"[a-z0-9._=/+-]+")


def _parse(text: object, pattern: re.Pattern[str], what: str) -> str:
    """Give `text` if it is one of `what`, at most 255 bytes long; raises InvalidParam."""
    if not isinstance(text, str):
        raise InvalidParam(f"A {what} must be a string")
    if len(text) > MAX_ID_BYTES or pattern.fullmatch(text) is None:
        raise InvalidParam(f"Not a valid {what}")
    if not text.isascii() and len(text.encode("utf-8")) > MAX_ID_BYTES:
        raise InvalidParam(f"A {what} may not be longer than {MAX_ID_BYTES} bytes")
    return text


def _check_literal(text: str) -> None:
    """See that the brackets of a server name, if there are any, hold an IPv6 address; raises InvalidParam."""
    start = text.find("[")
    if start < 0 or not text.rpartition("]")[0]:
        return
    try:
        IPv6Address(text[start + 1 : text.index("]", start)])
    except (AddressValueError, ValueError):
        raise InvalidParam("Not a valid IPv6 address in the server name") from None


def parse_server_name(text: object) -> ServerName:
    """Give `text` as a server name; its case is kept, and a port is part of the name.

    Source: appendices.md, "Server Name".
    """
    name = _parse(text, _SERVER_NAME, "server name")
    if name[0] == "[":
        _check_literal(name)
    return ServerName(name)


def _parse_on_server(text: object, pattern: re.Pattern[str], what: str) -> str:
    """Give `text` as an identifier `&localpart:server`."""
    found = _parse(text, pattern, what)
    if found[-1] == "]" or "]:" in found:
        _check_literal(server_of(found))
    return found


def parse_user_id(text: object) -> UserID:
    """Give `text` as a user ID; any historical localpart will do, the empty one too.

    Source: appendices.md, "Historical User IDs".
    """
    return UserID(_parse_on_server(text, _USER_ID, "user ID"))


def parse_room_id(text: object) -> RoomID:
    """Give `text` as a room ID: with a server name, or the hash of a create event (room version 12).

    Source: appendices.md, "Room IDs".
    """
    if isinstance(text, str) and _HASH_ROOM_ID.fullmatch(text):
        return RoomID(text)
    return RoomID(_parse_on_server(text, _ROOM_ID, "room ID"))


def is_hash_room_id(text: str) -> bool:
    """Tell whether a room ID is made of a hash alone, as from room version 12 on."""
    return _HASH_ROOM_ID.fullmatch(text) is not None


def parse_room_alias(text: object) -> RoomAlias:
    """Give `text` as a room alias.

    Source: appendices.md, "Room Aliases".
    """
    return RoomAlias(_parse_on_server(text, _ROOM_ALIAS, "room alias"))


def parse_event_id(text: object) -> EventID:
    """Give `text` as an event ID of any room version: opaque, so nothing but its sigil and length is checked.

    Source: appendices.md, "Event IDs".
    """
    return EventID(_parse(text, _EVENT_ID, "event ID"))


def parse_key_id(text: object) -> KeyID:
    """Give `text` as the ID of a signing key, `algorithm:identifier`.

    Source: appendices.md, "Signing Details".
    """
    return KeyID(_parse(text, _KEY_ID, "key ID"))


def is_new_localpart(text: str) -> bool:
    """Tell whether a new account may bear this localpart.

    Source: appendices.md, "User Identifiers".
    """
    return _NEW_LOCALPART.fullmatch(text) is not None


def make_user_id(localpart: str, server: ServerName) -> UserID:
    """Make the ID of a new account; raises InvalidParam outside the grammar for new ones."""
    if not is_new_localpart(localpart):
        raise InvalidParam("A user name may hold only a-z, 0-9 and . _ = - / +")
    return parse_user_id(f"@{localpart}:{server}")


def localpart_of(identifier: str) -> str:
    """Give what stands between the sigil and the first colon."""
    return identifier[1:].partition(":")[0]


def server_of(identifier: str) -> ServerName:
    """Give the server of a user ID, a room alias or an old event ID: the text after the first colon."""
    return ServerName(identifier.partition(":")[2])


def split_server_name(name: ServerName) -> tuple[str, int | None]:
    """Split a server name into its host (IPv6 in brackets) and its port, if it has one."""
    colon = name.find(":", name.rfind("]") + 1)
    if colon < 0:
        return name, None
    return name[:colon], int(name[colon + 1 :])


def is_ip_literal(host: str) -> bool:
    """Tell whether the host of a server name is an IP address rather than a DNS name."""
    if host.startswith("["):
        return True
    try:
        IPv4Address(host)
    except AddressValueError:
        return False
    return True
