"""Typing notifications.

Source: client-server-api/modules/typing_notifications.md.
"""

from __future__ import annotations

import msgspec
from attrs import frozen

from client_api.bodies import room_of
from client_api.paths import v3
from homeserver.ephemeral.typing import TypingUsers
from homeserver.events.nids import Nids
from homeserver.http.calls import EMPTY, Call, Reply
from homeserver.http.routing import RateClass, Route
from protocol.errors import Forbidden, InvalidParam
from protocol.identifiers import parse_user_id

DEFAULT_MS = 30_000


class Typing(msgspec.Struct, frozen=True):
    """The body of a typing notification."""

    typing: bool
    timeout: int | None = None


@frozen(eq=False)
class TypingNotifications:
    """Who is typing."""

    users: TypingUsers
    nids: Nids

    async def typing(self, call: Call[Typing]) -> Reply:
        """PUT …/rooms/{roomId}/typing/{userId}."""
        user_id = call.requester.user_id
        if parse_user_id(call.path["userId"]) != user_id:
            raise Forbidden("You can only tell that you yourself are typing")
        timeout = DEFAULT_MS if call.body.timeout is None else call.body.timeout
        if timeout < 0:
            raise InvalidParam("timeout: may not be negative")
        room_nid = await self.nids.room(room_of(call))
        if room_nid is None:
            raise Forbidden("You are not in this room")
        await self.users.set_local(user_id, room_nid, timeout if call.body.typing else None)
        return EMPTY

    def routes(self) -> tuple[Route, ...]:
        """List what this family serves."""
        paths = v3("/rooms/{roomId}/typing/{userId}")
        return (Route("PUT", paths, self.typing, body=Typing, limit=RateClass.EPHEMERAL),)
