"""Account data and room tags, which are account data of the type `m.tag`.

Source: client-server-api/modules/account_data.md, modules/tags.md.
"""

from __future__ import annotations

from typing import Any

from attrs import frozen

from client_api.bodies import room_of
from client_api.paths import v3
from homeserver.accounts.account_data import AccountData
from homeserver.accounts.tags import Tags
from homeserver.http.calls import EMPTY, Call, Reply
from homeserver.http.routing import RateClass, Route
from protocol.canonical_json import JsonObject
from protocol.errors import Forbidden

_USER = "/user/{userId}"


@frozen(eq=False)
class AccountDataRoutes:
    """Keeps what clients want kept."""

    data: AccountData
    tags: Tags

    async def get(self, call: Call[None]) -> Reply:
        """GET /user/{userId}/account_data/{type}, globally or for a room."""
        room_id = room_of(call) if "roomId" in call.path else None
        return await self.data.get(own_nid(call), room_id, call.path["type"])

    async def put(self, call: Call[JsonObject]) -> Reply:
        """PUT /user/{userId}/account_data/{type}, globally or for a room."""
        room_id = room_of(call) if "roomId" in call.path else None
        await self.data.put(own_nid(call), room_id, call.path["type"], call.body)
        return EMPTY

    async def get_tags(self, call: Call[None]) -> Reply:
        """GET /user/{userId}/rooms/{roomId}/tags."""
        return {"tags": await self.tags.get(own_nid(call), room_of(call))}

    async def set_tag(self, call: Call[JsonObject]) -> Reply:
        """PUT /user/{userId}/rooms/{roomId}/tags/{tag}."""
        await self.tags.put(own_nid(call), room_of(call), call.path["tag"], call.body)
        return EMPTY

    async def delete_tag(self, call: Call[bytes]) -> Reply:
        """DELETE /user/{userId}/rooms/{roomId}/tags/{tag}."""
        await self.tags.delete(own_nid(call), room_of(call), call.path["tag"])
        return EMPTY

    def routes(self) -> tuple[Route, ...]:
        """List what this family serves."""
        datum = v3(
            _USER + "/account_data/{type}",
            _USER + "/rooms/{roomId}/account_data/{type}",
        )
        tag = v3(_USER + "/rooms/{roomId}/tags/{tag}")
        writes: dict[str, Any] = {"limit": RateClass.WRITES, "while_suspended": True}
        return (
            Route("GET", datum, self.get),
            Route("PUT", datum, self.put, body=dict, **writes),
            Route("GET", v3(_USER + "/rooms/{roomId}/tags"), self.get_tags),
            Route("PUT", tag, self.set_tag, body=dict, **writes),
            Route("DELETE", tag, self.delete_tag, body=bytes, **writes),
        )


def own_nid(call: Call[Any]) -> int:
    """Give the number of the path's user, who must be the one who asks; raises Forbidden."""
    if call.path["userId"] != call.requester.user_id:
        raise Forbidden("This is not yours")
    return call.requester.user_nid
