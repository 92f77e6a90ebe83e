"""Profiles of users, field by field.

Source: client-server-api/_index.md, "Profiles"; data/api/client-server/profile.yaml.
"""

from __future__ import annotations

from typing import Any

from attrs import frozen

from client_api.paths import v3_once_unstable
from homeserver.accounts.profiles import Profiles, require_own
from homeserver.http.calls import EMPTY, Call, Reply
from homeserver.http.routing import Auth, RateClass, Route
from protocol.canonical_json import JsonObject
from protocol.errors import InvalidParam, MissingParam
from protocol.identifiers import parse_user_id, server_of

MAX_BODY = 100_000


@frozen(eq=False)
class ProfileRoutes:
    """Shows and changes profiles."""

    profiles: Profiles

    async def get(self, call: Call[None]) -> Reply:
        """GET /profile/{userId}."""
        return await self.profiles.get(parse_user_id(call.path["userId"]))

    async def get_field(self, call: Call[None]) -> Reply:
        """GET /profile/{userId}/{keyName}."""
        field = call.path["keyName"]
        return {field: await self.profiles.get_field(parse_user_id(call.path["userId"]), field)}

    async def set_field(self, call: Call[JsonObject]) -> Reply:
        """PUT /profile/{userId}/{keyName}."""
        user_id, field = parse_user_id(call.path["userId"]), call.path["keyName"]
        if server_of(user_id) != self.profiles.server_name:
            raise InvalidParam("This user is not of this server")
        require_own(call.requester.user_id, user_id)
        if field not in call.body:
            raise MissingParam(f"The field {field} is missing")
        await self.profiles.set_field(user_id, field, call.body[field], now=call.now)
        return EMPTY

    async def delete_field(self, call: Call[bytes]) -> Reply:
        """DELETE /profile/{userId}/{keyName}."""
        user_id = parse_user_id(call.path["userId"])
        require_own(call.requester.user_id, user_id)
        await self.profiles.delete_field(user_id, call.path["keyName"], now=call.now)
        return EMPTY

    def routes(self) -> tuple[Route, ...]:
        """List what this family serves."""
        one = v3_once_unstable("uk.tcpip.msc4133", "/profile/{userId}/{keyName}")
        whole = v3_once_unstable("uk.tcpip.msc4133", "/profile/{userId}")
        writes: dict[str, Any] = {"auth": Auth.GUEST, "limit": RateClass.WRITES}
        return (
            Route("GET", whole, self.get, auth=Auth.OPTIONAL),
            Route("GET", one, self.get_field, auth=Auth.OPTIONAL),
            Route("PUT", one, self.set_field, body=dict, max_body=MAX_BODY, **writes),
            Route("DELETE", one, self.delete_field, body=bytes, max_body=MAX_BODY, **writes),
        )
