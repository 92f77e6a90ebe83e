"""The frames of the WebSocket subprotocol `plait.v1.json`: their types, decoding and encoding.

Every frame is one JSON object with a `type`. Unknown fields are ignored; an unknown type is an error
frame, not the end of the session. What may come when is `protocol.session`.

Source: protocol/spec.md, "The WebSocket client API".
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import msgspec

from protocol.canonical_json import check_depth
from protocol.errors import BadJson, MatrixError, NotJson, Unrecognized

SUBPROTOCOL = "plait.v1.json"
MAX_UNAUTHENTICATED_BYTES = 4096
MAX_DEPTH = 64

RequestID = Annotated[str, msgspec.Meta(min_length=1, max_length=64)] | int
Text255 = Annotated[str, msgspec.Meta(max_length=255)]


class Auth(msgspec.Struct, frozen=True, tag_field="type", tag="auth"):
    """Open the session, or renew its token; `since` resumes after a position."""

    token: Annotated[str, msgspec.Meta(max_length=4096)] | None = None
    since: Annotated[str, msgspec.Meta(max_length=512)] | None = None
    filter: dict[str, Any] | str | None = None
    set_presence: str | None = None
    device_info: dict[str, Any] | None = None


class Request(msgspec.Struct, frozen=True, tag_field="type", tag="request"):
    """Call a client endpoint; the answer is a `response` with the same `id`."""

    id: RequestID
    method: Annotated[str, msgspec.Meta(max_length=16)]
    path: Annotated[str, msgspec.Meta(max_length=16384)]
    body: Any = None


class Cancel(msgspec.Struct, frozen=True, tag_field="type", tag="cancel"):
    """Give up a request that has no answer yet."""

    id: RequestID


class Message(msgspec.Struct, frozen=True, tag_field="type", tag="message"):
    """Send a message to a room, or to a user: the private conversation with them is found or made."""

    content: dict[str, Any] | str
    txn_id: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    id: RequestID | None = None
    to: Text255 | None = None
    room_id: Text255 | None = None
    message_type: Text255 | None = None


class Read(msgspec.Struct, frozen=True, tag_field="type", tag="read"):
    """Move the read receipt of a room, or of one of its threads, to an event."""

    room_id: Text255
    event_id: Text255
    private: bool = False
    thread_id: Text255 | None = None
    id: RequestID | None = None


class Typing(msgspec.Struct, frozen=True, tag_field="type", tag="typing"):
    """Say that the user is typing, for `timeout` milliseconds, or no longer."""

    room_id: Text255
    typing: bool = True
    timeout: Annotated[int, msgspec.Meta(ge=1, le=120_000)] = 30_000
    id: RequestID | None = None


class Presence(msgspec.Struct, frozen=True, tag_field="type", tag="presence"):
    """Set the user's presence on this connection."""

    presence: str
    status_msg: Annotated[str, msgspec.Meta(max_length=1024)] | None = None
    id: RequestID | None = None


class Ack(msgspec.Struct, frozen=True, tag_field="type", tag="ack"):
    """All `sync` frames up to `seq` have been handled."""

    seq: Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]


class Ping(msgspec.Struct, frozen=True, tag_field="type", tag="ping"):
    """Ask for a `pong`."""


class Pong(msgspec.Struct, frozen=True, tag_field="type", tag="pong"):
    """Answer the server's `ping`; `seq` acknowledges as `ack` does."""

    seq: Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)] | None = None


ClientFrame = Auth | Request | Cancel | Message | Read | Typing | Presence | Ack | Ping | Pong


class Reconnect(StrEnum):
    """What a client does after `bye`."""

    NOW = "now"
    LATER = "later"
    NEVER = "never"


class CloseCode(msgspec.Struct, frozen=True):
    """A way a session ends: the WebSocket close code, the `bye` reason, and what the client does next."""

    code: int
    reason: str
    reconnect: Reconnect


GOING_AWAY = CloseCode(4000, "restart", Reconnect.LATER)
REPLACED = CloseCode(4001, "replaced", Reconnect.NEVER)
TOO_MANY_CONNECTIONS = CloseCode(4002, "too_many_connections", Reconnect.NEVER)
SILENT = CloseCode(4003, "silent", Reconnect.NOW)
OVERLOADED = CloseCode(4004, "overloaded", Reconnect.LATER)
AUTH_TIMEOUT = CloseCode(4010, "auth_timeout", Reconnect.NOW)
AUTH_FAILED = CloseCode(4011, "auth_failed", Reconnect.NEVER)
LOGGED_OUT = CloseCode(4012, "logged_out", Reconnect.NEVER)
BAD_FRAME = CloseCode(4020, "bad_frame", Reconnect.NEVER)
FRAME_TOO_LARGE = CloseCode(4021, "frame_too_large", Reconnect.NEVER)
FLOOD = CloseCode(4022, "flood", Reconnect.LATER)

CLOSE_CODES = (
    GOING_AWAY,
    REPLACED,
    TOO_MANY_CONNECTIONS,
    SILENT,
    OVERLOADED,
    AUTH_TIMEOUT,
    AUTH_FAILED,
    LOGGED_OUT,
    BAD_FRAME,
    FRAME_TOO_LARGE,
    FLOOD,
)
"""Every way the server ends a session; the table in spec.md is checked against this."""

_DECODER: msgspec.json.Decoder[ClientFrame] = msgspec.json.Decoder(ClientFrame)


def decode_frame(raw: bytes) -> ClientFrame:
    """Decode a client's frame.

    Raises:
        NotJson: not JSON, or not UTF-8.
        BadJson: not an object, without a type, or a field of a wrong type.
        Unrecognized: a type this version does not know.
    """
    check_depth(raw, MAX_DEPTH)
    try:
        return _DECODER.decode(raw)
    except msgspec.ValidationError as error:
        raise _explained(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise NotJson(f"The frame is not JSON: {error}") from None


def _explained(error: str) -> MatrixError:
    if error.startswith("Invalid value") and error.endswith("at `$.type`"):
        return Unrecognized("Unknown message type")
    return BadJson(f"The frame is malformed: {error}")


def frame_id(raw: bytes) -> str | int | None:
    """Find the `id` of a frame that could not be decoded, so that its error can name it."""
    try:
        found = _ID_DECODER.decode(raw).id
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return found


class _WithID(msgspec.Struct, frozen=True):
    id: RequestID | None = None


_ID_DECODER = msgspec.json.Decoder(_WithID)
