"""Joining, leaving and knocking through this server.

Source: server-server-api.md, "Joining Rooms", "Leaving Rooms (Rejecting Invites)", "Knocking upon a room".
"""

from __future__ import annotations

from functools import partial
from typing import Any

from attrs import frozen

from federation.resident.making import DEFAULT_VERSIONS, Asked, Templates
from federation.resident.rooms_given import JoinedRooms
from federation.resident.taking import Submissions, Submitted, Taken
from homeserver.http.calls import EMPTY, Call, Json, Response
from homeserver.http.routing import Auth, RateClass, Route
from homeserver.rooms.inviting import stripped_state
from protocol.identifiers import parse_event_id, parse_room_id, parse_user_id

MAX_BODY = 256 * 1024
"""Bytes of a body that holds one event."""
V1 = "/_matrix/federation/v1"
V2 = "/_matrix/federation/v2"


@frozen(eq=False)
class HandshakeRoutes:
    """The two halves of the handshakes."""

    templates: Templates
    submissions: Submissions
    rooms: JoinedRooms

    async def make(self, membership: str, call: Call[None]) -> dict[str, Any]:
        """Give the template of a membership event."""
        versions = () if membership == "leave" else (call.query.all("ver") or DEFAULT_VERSIONS)
        asked = Asked(
            call.origin,
            parse_room_id(call.path["room_id"]),
            parse_user_id(call.path["user_id"]),
            membership,
            frozenset(versions),
        )
        return await self.templates.make(asked, call.now)

    async def send_join(self, call: Call[dict[str, Any]]) -> Response:
        """Take a join in, and give the room."""
        return Response(200, b"", pieces=self.rooms.describe(await self._take("join", call)))

    async def send_leave(self, call: Call[dict[str, Any]]) -> Json:
        """Take a leave in."""
        await self._take("leave", call)
        return EMPTY

    async def send_knock(self, call: Call[dict[str, Any]]) -> Json:
        """Take a knock in, and show the room."""
        taken = await self._take("knock", call)
        shown = await stripped_state(taken.head, taken.stored.event.sender)
        return Json(b'{"knock_room_state":[%b]}' % b",".join(event.raw for event in shown))

    async def _take(self, membership: str, call: Call[dict[str, Any]]) -> Taken:
        submitted = Submitted(
            call.origin,
            parse_room_id(call.path["room_id"]),
            parse_event_id(call.path["event_id"]),
            membership,
            call.body,
        )
        return await self.submissions.take(submitted)

    def routes(self) -> tuple[Route, ...]:
        """List what this family serves."""
        server, limit = Auth.SERVER, RateClass.FEDERATION
        made = tuple(
            Route(
                "GET",
                f"{V1}/make_{name}/{{room_id}}/{{user_id}}",
                partial(self.make, name),
                None,
                server,
                limit,
            )
            for name in ("join", "leave", "knock")
        )
        sent = (
            (f"{V2}/send_join/{{room_id}}/{{event_id}}", self.send_join),
            (f"{V2}/send_leave/{{room_id}}/{{event_id}}", self.send_leave),
            (f"{V1}/send_knock/{{room_id}}/{{event_id}}", self.send_knock),
        )
        return made + tuple(
            Route("PUT", path, handler, dict, server, limit, MAX_BODY) for path, handler in sent
        )
