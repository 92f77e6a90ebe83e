"""Presence.

Source: client-server-api/modules/presence.md.
"""

from __future__ import annotations

from typing import Any

import msgspec
from attrs import frozen

from client_api.paths import v3
from homeserver.ephemeral.presence import Presences
from homeserver.ephemeral.ring import EphemeralRing, SharedRooms
from homeserver.http.calls import EMPTY, Call, Reply
from homeserver.http.routing import RateClass, Route
from homeserver.sync.session import Session
from protocol.errors import Forbidden
from protocol.identifiers import parse_user_id


class SetPresence(msgspec.Struct, frozen=True):
    """The body of a change of presence."""

    presence: str
    status_msg: str | None = None


@frozen(eq=False)
class Presence:
    """Who is there."""

    presences: Presences
    ring: EphemeralRing
    shared: SharedRooms

    async def get(self, call: Call[Any]) -> Reply:
        """GET /presence/{userId}/status, of users one shares a room with."""
        user_id, asker = parse_user_id(call.path["userId"]), call.requester
        session = Session(asker.user_id, asker.user_nid, asker.device_id)
        if user_id != asker.user_id and not self.shared.sees(await self.shared.sight(session), user_id):
            raise Forbidden("You share no room with this user")
        return self.ring.content(self.presences.get(user_id))

    async def put(self, call: Call[SetPresence]) -> Reply:
        """PUT /presence/{userId}/status."""
        asker = call.requester
        if parse_user_id(call.path["userId"]) != asker.user_id:
            raise Forbidden("You can only set your own presence")
        self.presences.set_local(asker.user_id, asker.device_id, call.body.presence, call.body.status_msg)
        return EMPTY

    def routes(self) -> tuple[Route, ...]:
        """List what this family serves."""
        paths = v3("/presence/{userId}/status")
        return (
            Route("GET", paths, self.get),
            Route("PUT", paths, self.put, body=SetPresence, limit=RateClass.EPHEMERAL),
        )
