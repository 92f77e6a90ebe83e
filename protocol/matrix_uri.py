"""Links to users, rooms and events: `matrix:` URIs and their elder, `https://matrix.to/#/…`.

Source: appendices.md, "URIs".
"""

from __future__ import annotations

from urllib.parse import parse_qsl, quote, unquote, urlencode

from attrs import frozen

from protocol.errors import InvalidParam
from protocol.identifiers import (
    EventID,
    RoomAlias,
    RoomID,
    ServerName,
    UserID,
    parse_event_id,
    parse_room_alias,
    parse_room_id,
    parse_server_name,
    parse_user_id,
)

Entity = UserID | RoomID | RoomAlias

MATRIX_TO = "https://matrix.to/#/"
MAX_URI_LENGTH = 4096
"""Characters of a link that is read; ours."""
MAX_VIA = 20
"""Servers read from a link; ours."""

_SIGILS = {"u": "@", "user": "@", "r": "#", "room": "#", "roomid": "!"}
_TYPES = {"@": "u", "#": "r", "!": "roomid"}
_EVENT_TYPES = ("e", "event")
_ACTIONS = {"@": "chat", "#": "join", "!": "join"}
"""The action that means something, by the sigil of what is linked to."""
_SAFE_IN_ID = ":@!$&'()*+,;=~"


@frozen
class MatrixUri:
    """A link: to a user, a room or, with `event_id`, an event in a room."""

    entity: Entity
    event_id: EventID | None = None
    via: tuple[ServerName, ...] = ()
    """Servers by which a room may be reached."""
    action: str | None = None
    """`join` for rooms, `chat` for users: what the link wants to be done."""


def parse_matrix_uri(text: str) -> MatrixUri:
    """Read a link of either kind; raises InvalidParam if it is none.

    Unknown arguments, servers that are none and actions that do not fit are passed over.
    """
    if len(text) > MAX_URI_LENGTH:
        raise InvalidParam("The link is too long")
    if text[:7].lower() == "matrix:":
        return _parse_scheme(text[7:])
    if text.startswith(MATRIX_TO):
        return _parse_matrix_to(text[len(MATRIX_TO) :])
    raise InvalidParam("Not a Matrix link")


def _parse_scheme(rest: str) -> MatrixUri:
    path, _, query = rest.partition("#")[0].partition("?")
    if path.startswith("//"):
        path = path[2:].partition("/")[2]
    parts = path.split("/")
    if len(parts) not in (2, 4):
        raise InvalidParam("A Matrix link names a user or a room, and perhaps an event")
    sigil = _SIGILS.get(parts[0])
    if sigil is None:
        raise InvalidParam(f"Unknown kind of Matrix link: {parts[0][:32]!r}")
    event = None
    if len(parts) == 4:
        if parts[2] not in _EVENT_TYPES:
            raise InvalidParam("A Matrix link in a room can only lead to an event")
        event = "$" + _unquote(parts[3])
    return _assemble(sigil + _unquote(parts[1]), event, query)


def _parse_matrix_to(rest: str) -> MatrixUri:
    path, _, query = rest.partition("?")
    identifier, _, event = path.partition("/")
    return _assemble(_unquote(identifier), _unquote(event) or None, query)


def _unquote(text: str) -> str:
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise InvalidParam("The link is not UTF-8") from None


def _assemble(identifier: str, event: str | None, query: str) -> MatrixUri:
    """Put a link together from its parts; raises InvalidParam where one of them is not what it must be."""
    entity = _parse_entity(identifier)
    if event is not None and entity[0] == "@":
        raise InvalidParam("There are no events in a user")
    event_id = None if event is None else parse_event_id(event)
    via: list[ServerName] = []
    action = None
    for name, value in parse_qsl(query, max_num_fields=None):
        if name == "via" and len(via) < MAX_VIA and _is_server(value):
            via.append(ServerName(value))
        elif name == "action" and value == _ACTIONS[entity[0]]:
            action = value
    return MatrixUri(entity, event_id, tuple(via), action)


def _parse_entity(identifier: str) -> Entity:
    match identifier[:1]:
        case "@":
            return parse_user_id(identifier)
        case "#":
            return parse_room_alias(identifier)
        case "!":
            return parse_room_id(identifier)
        case _:
            raise InvalidParam("A Matrix link leads to a user, a room or an alias")


def _is_server(text: str) -> bool:
    try:
        parse_server_name(text)
    except InvalidParam:
        return False
    return True


def build_matrix_uri(link: MatrixUri) -> str:
    """Write a link as a `matrix:` URI."""
    entity = link.entity
    path = f"{_TYPES[entity[0]]}/{_quote(entity[1:])}"
    if link.event_id is not None:
        path += f"/e/{_quote(link.event_id[1:])}"
    arguments = [("via", str(server)) for server in link.via]
    if link.action is not None:
        arguments.append(("action", link.action))
    return f"matrix:{path}{_query(arguments)}"


def build_matrix_to(link: MatrixUri) -> str:
    """Write a link as a matrix.to address, which has no actions."""
    path = _quote(link.entity)
    if link.event_id is not None:
        path += f"/{_quote(link.event_id)}"
    return f"{MATRIX_TO}{path}{_query([('via', str(server)) for server in link.via])}"


def _quote(identifier: str) -> str:
    return quote(identifier, safe=_SAFE_IN_ID)


def _query(arguments: list[tuple[str, str]]) -> str:
    return "?" + urlencode(arguments, safe=":[]") if arguments else ""
