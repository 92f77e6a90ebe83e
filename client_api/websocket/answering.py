"""Frames that ask for something, taken to what does it, and the frames that answer them.

Source: protocol/spec.md, "Frames", "Requests"; security W12.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from attrs import frozen

from client_api.websocket.asking import Asking, id_member
from client_api.websocket.commands import Commands
from homeserver.accounts.requester import Requester
from homeserver.http.answers import error_response
from homeserver.http.calls import Response
from protocol.errors import TooLarge
from protocol.frames import Message, Presence, Read, Request, Typing

AskingFrame = Request | Message | Read | Typing | Presence


@frozen(eq=False)
class Answering:
    """Answers the frames of one connection."""

    commands: Commands
    asking: Asking
    frame_bytes: int
    """Bytes an answer may have."""

    def start(self, frame: AskingFrame, requester: Requester) -> None:
        """Begin to do what a frame asks for; raises LimitExceeded, BadJson."""
        work = _WORK[type(frame)]
        what = f"a frame of type {frame.__struct_config__.tag}"
        self.asking.start(frame.id, lambda: work(self, frame, requester), what)

    async def _request(self, frame: Request, requester: Requester) -> bytes:
        response = await self.commands.request(frame, requester)
        answer = response_frame(frame.id, response)
        if len(answer) > self.frame_bytes:
            error = TooLarge(f"The answer has more than {self.frame_bytes} bytes: ask for it over HTTP")
            return response_frame(frame.id, error_response(error, "an answer"))
        return answer

    async def _message(self, frame: Message, requester: Requester) -> bytes:
        return await self.commands.message(frame, requester)

    async def _read(self, frame: Read, requester: Requester) -> bytes | None:
        return _done(frame.id, await self.commands.read(frame, requester))

    async def _typing(self, frame: Typing, requester: Requester) -> bytes | None:
        return _done(frame.id, await self.commands.typing(frame, requester))

    async def _presence(self, frame: Presence, requester: Requester) -> bytes | None:
        return _done(frame.id, await self.commands.presence(frame, requester))


_WORK: Mapping[type, Callable[[Answering, Any, Requester], Awaitable[bytes | None]]] = {
    Request: Answering._request,
    Message: Answering._message,
    Read: Answering._read,
    Typing: Answering._typing,
    Presence: Answering._presence,
}


def response_frame(frame_id: str | int, response: Response) -> bytes:
    """Give the `response` frame of an answer."""
    body = response.body or b"{}"
    return b'{"type":"response"%b,"status":%d,"body":%b}' % (id_member(frame_id), response.status, body)


def _done(frame_id: str | int | None, response: Response) -> bytes | None:
    """Give the answer to a frame that only does something: none, if nobody asked for one."""
    if response.status != 200:
        return b'{"type":"error"%b,%b' % (id_member(frame_id), response.body[1:])
    return None if frame_id is None else response_frame(frame_id, response)
