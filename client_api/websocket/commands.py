"""Frames that ask for something, as the HTTP requests they stand for.

Each goes through the listener's own dispatch with the connection's requester, so that limits, checks and
errors are those of HTTP, and the idempotence key of a message is that of `PUT …/send`.

Source: protocol/spec.md, "Requests" and "Messages".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import quote, unquote_to_bytes

from attrs import frozen

from client_api.room_events import SENT_AT
from client_api.websocket.asking import id_member
from homeserver.accounts.requester import Requester
from homeserver.clock import Clock
from homeserver.http.calls import Response, TakeOver
from homeserver.http.dispatch import Asked
from homeserver.http.rate_limits import RateLimiter
from homeserver.http.routing import RateClass
from homeserver.rooms.conversations import Conversations
from protocol.canonical_json import JsonObject, decode_own, dumps
from protocol.errors import (
    BadJson,
    GuestAccessForbidden,
    MissingParam,
    TooLarge,
    Unrecognized,
    UserLocked,
    UserSuspended,
)
from protocol.frames import Message, Presence, Read, Request, Typing
from protocol.identifiers import RoomID, parse_room_id, parse_user_id

Dispatch = Callable[[Asked, bytes, Requester], Awaitable[Response | TakeOver]]
_V3 = "/_matrix/client/v3"
_TYPES: Mapping[str, str] = {"text": "m.text", "image": "m.image", "file": "m.file"}


@frozen(eq=False)
class Sending:
    """What sending messages needs beside the endpoints."""

    conversations: Conversations
    limiter: RateLimiter
    clock: Clock
    max_text: int
    """Characters a text may have."""


@frozen(eq=False)
class Commands:
    """Does what frames of one connection ask for."""

    dispatch: Dispatch
    """The dispatch of the listener that the connection came by."""
    sending: Sending
    ip: str

    async def request(self, frame: Request, requester: Requester) -> Response:
        """Answer a request as HTTP would; waits end at once."""
        body = b"" if frame.body is None else dumps(frame.body)
        try:
            uri = without_timeout(frame.path.encode("ascii"))
        except UnicodeEncodeError:
            raise BadJson("path: must be ASCII, percent-encoded") from None
        return await self._ask(frame.method, uri, body, requester)

    async def message(self, frame: Message, requester: Requester) -> bytes:
        """Send a message, and give the frame that says it is stored, or why it is refused."""
        content = self._content(frame)
        room_id = await self._room(frame, requester)
        path = f"{_V3}/rooms/{_quoted(room_id)}/send/m.room.message/{_quoted(frame.txn_id)}"
        response = await self._ask("PUT", path.encode(), dumps(content), requester)
        if response.status != 200:
            return b'{"type":"error"%b,%b' % (id_member(frame.id), response.body[1:])
        answer = decode_own(response.body)
        stored = {"event_id": answer["event_id"], "room_id": room_id, "txn_id": frame.txn_id}
        stored["ts"] = answer[SENT_AT]
        return b'{"type":"message"%b,%b' % (id_member(frame.id), dumps(stored)[1:])

    async def read(self, frame: Read, requester: Requester) -> Response:
        """Move a receipt."""
        kind = "m.read.private" if frame.private else "m.read"
        path = f"{_V3}/rooms/{_quoted(frame.room_id)}/receipt/{kind}/{_quoted(frame.event_id)}"
        body: JsonObject = {} if frame.thread_id is None else {"thread_id": frame.thread_id}
        return await self._ask("POST", path.encode(), dumps(body), requester)

    async def typing(self, frame: Typing, requester: Requester) -> Response:
        """Tell of typing."""
        path = f"{_V3}/rooms/{_quoted(frame.room_id)}/typing/{_quoted(requester.user_id)}"
        body = {"typing": frame.typing, "timeout": frame.timeout}
        return await self._ask("PUT", path.encode(), dumps(body), requester)

    async def presence(self, frame: Presence, requester: Requester) -> Response:
        """Set presence."""
        path = f"{_V3}/presence/{_quoted(requester.user_id)}/status"
        body = {"presence": frame.presence, "status_msg": frame.status_msg}
        return await self._ask("PUT", path.encode(), dumps(body), requester)

    async def _ask(self, method: str, uri: bytes, body: bytes, requester: Requester) -> Response:
        response = await self.dispatch(Asked(method, uri, self.ip), body, requester)
        if isinstance(response, TakeOver):
            raise Unrecognized("This endpoint is for HTTP alone")
        return response

    async def _room(self, frame: Message, requester: Requester) -> RoomID:
        if (frame.to is None) == (frame.room_id is None):
            raise MissingParam("message: needs one of `room_id` and `to`")
        if frame.room_id is not None:
            return parse_room_id(frame.room_id)
        other = parse_user_id(frame.to)
        conversations, now = self.sending.conversations, self.sending.clock.now_ms()
        found = await conversations.ready(requester.user_id, other)
        if found is not None:
            return found
        self._check_may_make(requester, now)
        return await conversations.with_user(requester.user_id, other, now)

    def _check_may_make(self, requester: Requester, now: int) -> None:
        """See that the user may make or enter a room, as `POST /createRoom` does; raises MatrixError."""
        if requester.locked:
            raise UserLocked()
        if requester.is_guest:
            raise GuestAccessForbidden("Guests may not do this")
        if requester.suspended:
            raise UserSuspended("This account is suspended")
        if requester.rate_limited:
            self.sending.limiter.take(RateClass.ROOMS, requester.user_id, now)

    def _content(self, frame: Message) -> JsonObject:
        """Give the content of the event; raises BadJson or TooLarge for a text that will not do."""
        given = frame.content
        content: JsonObject = {"body": given} if isinstance(given, str) else dict(given)
        kind = frame.message_type or "text"
        if "msgtype" not in content:
            if kind not in _TYPES:
                raise BadJson(f"message_type: must be one of {', '.join(_TYPES)}")
            content["msgtype"] = _TYPES[kind]
        body = content.get("body")
        if not isinstance(body, str) or not body.strip():
            raise BadJson("content.body: a message cannot be empty")
        if len(body) > self.sending.max_text:
            raise TooLarge(f"content.body: a text has at most {self.sending.max_text} characters")
        return content


def without_timeout(uri: bytes) -> bytes:
    """Take `timeout` out of a request target's query: nothing waits over a WebSocket."""
    path, mark, query = uri.partition(b"?")
    if b"timeout" not in query and b"%" not in query:
        return uri
    fields = [
        field for field in query.split(b"&") if unquote_to_bytes(field.partition(b"=")[0]) != b"timeout"
    ]
    return path + mark + b"&".join(fields)


def _quoted(text: str) -> str:
    return quote(text, safe="")
