"""Third-party invites, from other servers and from identity servers.

Source: server-server-api.md, "Third-party invites".
"""

from __future__ import annotations

from typing import Any

from attrs import frozen

from federation.resident.third_party import ThirdPartyInvites
from homeserver.http.calls import EMPTY, Call, Json
from homeserver.http.routing import Auth, RateClass, Route
from protocol.identifiers import parse_room_id

V1 = "/_matrix/federation/v1"
MAX_BODY = 256 * 1024


@frozen(eq=False)
class ThirdPartyRoutes:
    """Takes proofs that redeem third-party invites."""

    invites: ThirdPartyInvites

    async def exchange(self, call: Call[dict[str, Any]]) -> Json:
        """Turn a third-party invite into one of another server's user."""
        room_id = parse_room_id(call.path["room_id"])
        await self.invites.exchange(call.origin, room_id, call.body, call.now)
        return EMPTY

    async def bound(self, call: Call[dict[str, Any]]) -> Json:
        """Hear from an identity server that an address is a local user's."""
        await self.invites.bound(call.body, call.now)
        return EMPTY

    def routes(self) -> tuple[Route, ...]:
        """List what this family serves."""
        path, limit = f"{V1}/exchange_third_party_invite/{{room_id}}", RateClass.FEDERATION
        return (
            Route("PUT", path, self.exchange, dict, Auth.SERVER, limit, MAX_BODY),
            Route("PUT", f"{V1}/3pid/onbind", self.bound, dict, Auth.NONE, limit, MAX_BODY),
        )
