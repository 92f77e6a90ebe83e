"""Devices and keys of our users.

Source: server-server-api.md, "End-to-End Encryption", "Device Management".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from attrs import frozen

from homeserver.http.calls import Call
from homeserver.http.routing import Auth, RateClass, Route
from protocol.canonical_json import JsonObject
from protocol.errors import BadJson, MatrixError, NotFound
from protocol.identifiers import ServerName, UserID, parse_user_id, server_of

V1 = "/_matrix/federation/v1"
MAX_USERS = 2_000
"""Users in one request."""
MAX_DEVICES = 1_000
"""Devices named for one user."""


class UserKeys(Protocol):
    """Keys and device lists of this server's users, as other servers may see them."""

    async def device_list(self, user_id: UserID) -> JsonObject:
        """Give `stream_id`, `devices` and the cross-signing keys of a user; raises NotFound."""
        ...

    async def query(self, wanted: Mapping[UserID, Sequence[str]]) -> JsonObject:
        """Give `device_keys`, `master_keys`, `self_signing_keys`; no device IDs: all devices."""
        ...

    async def claim(self, wanted: Mapping[UserID, Mapping[str, str]]) -> JsonObject:
        """Give `one_time_keys`: one of the algorithm wanted for each device, never the same twice."""
        ...


@frozen(eq=False)
class UserKeyRoutes:
    """Tells devices and keys."""

    server_name: ServerName
    keys: UserKeys

    async def devices(self, call: Call[None]) -> dict[str, Any]:
        """Give a user's device list."""
        user_id = parse_user_id(call.path["user_id"])
        if server_of(user_id) != self.server_name:
            raise NotFound("The user is not of this server")
        return {**await self.keys.device_list(user_id), "user_id": user_id}

    async def query(self, call: Call[dict[str, Any]]) -> dict[str, Any]:
        """Give the identity keys of our users."""
        wanted: dict[UserID, Sequence[str]] = {}
        for user_id, devices in self._of_users(call.body, "device_keys"):
            if not isinstance(devices, list) or not all(isinstance(one, str) for one in devices):
                raise BadJson("device_keys must hold lists of device IDs")
            wanted[user_id] = devices[:MAX_DEVICES]
        return await self.keys.query(wanted)

    async def claim(self, call: Call[dict[str, Any]]) -> dict[str, Any]:
        """Hand out one-time keys of our users."""
        wanted: dict[UserID, Mapping[str, str]] = {}
        for user_id, devices in self._of_users(call.body, "one_time_keys"):
            if not isinstance(devices, dict) or not all(isinstance(one, str) for one in devices.values()):
                raise BadJson("one_time_keys must hold objects of algorithms by device ID")
            wanted[user_id] = dict(list(devices.items())[:MAX_DEVICES])
        return await self.keys.claim(wanted)

    def _of_users(self, body: dict[str, Any], name: str) -> list[tuple[UserID, Any]]:
        """Read what is asked of our own users; others are left out."""
        asked = body.get(name)
        if not isinstance(asked, dict) or len(asked) > MAX_USERS:
            raise BadJson(f"{name} must be an object of at most {MAX_USERS} users")
        found: list[tuple[UserID, Any]] = []
        for text, value in asked.items():
            try:
                user_id = parse_user_id(text)
            except MatrixError:
                continue
            if server_of(user_id) == self.server_name:
                found.append((user_id, value))
        return found

    def routes(self) -> tuple[Route, ...]:
        """List what this family serves."""
        server, limit = Auth.SERVER, RateClass.FEDERATION
        return (
            Route("GET", f"{V1}/user/devices/{{user_id}}", self.devices, None, server, limit),
            Route("POST", f"{V1}/user/keys/query", self.query, dict, server, limit),
            Route("POST", f"{V1}/user/keys/claim", self.claim, dict, server, limit),
        )
