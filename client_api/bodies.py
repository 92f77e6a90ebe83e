"""What several families read from bodies and paths: identifiers, reasons, servers to go through."""

from __future__ import annotations

from typing import Any

import msgspec

from homeserver.http.calls import Call
from protocol.canonical_json import JsonObject
from protocol.identifiers import (
    EventID,
    RoomID,
    ServerName,
    UserID,
    parse_event_id,
    parse_room_id,
    parse_server_name,
    parse_user_id,
)

MAX_VIA = 20


class Reason(msgspec.Struct, frozen=True):
    """A body that may say why."""

    reason: str | None = None

    def extra(self) -> JsonObject:
        """Give what joins the content of the event."""
        return {} if self.reason is None else {"reason": self.reason}


class Target(msgspec.Struct, frozen=True):
    """A body that names a user and may say why."""

    user_id: str
    reason: str | None = None

    def extra(self) -> JsonObject:
        """Give what joins the content of the event."""
        return {} if self.reason is None else {"reason": self.reason}

    def user(self) -> UserID:
        """Give the user; raises `InvalidParam`."""
        return parse_user_id(self.user_id)


def room_of(call: Call[Any]) -> RoomID:
    """Give the room of the path; raises `InvalidParam`."""
    return parse_room_id(call.path["roomId"])


def event_of(call: Call[Any]) -> EventID:
    """Give the event of the path; raises `InvalidParam`."""
    return parse_event_id(call.path["eventId"])


def vias_of(call: Call[Any]) -> tuple[ServerName, ...]:
    """Give the servers to join through, by the present and the old name of the field."""
    named = call.query.all("via") or call.query.all("server_name")
    return tuple(parse_server_name(name) for name in named[:MAX_VIA])
