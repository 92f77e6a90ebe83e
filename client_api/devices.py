"""A user's devices.

Source: client-server-api/modules/device_management.md.
"""

from __future__ import annotations

from typing import Any

import msgspec
from attrs import frozen

from client_api.confirming import Confirming
from client_api.paths import v3
from homeserver.accounts.devices import Devices
from homeserver.http.calls import EMPTY, Call, Reply
from homeserver.http.routing import Auth, RateClass, Route
from protocol.errors import InvalidParam
from storage.devices import DeviceRow

MAX_DELETED = 1000


class RenameBody(msgspec.Struct, frozen=True):
    """The body of a renaming."""

    display_name: str | None = None


class DeleteBody(msgspec.Struct, frozen=True):
    """The body of a deletion."""

    auth: dict[str, Any] | None = None


class DeleteManyBody(msgspec.Struct, frozen=True):
    """The body of a deletion of several devices."""

    devices: list[str]
    auth: dict[str, Any] | None = None


@frozen(eq=False)
class DeviceRoutes:
    """Lists, names and removes devices."""

    devices: Devices
    confirming: Confirming

    async def list(self, call: Call[None]) -> Reply:
        """GET /devices."""
        found = await self.devices.of_user(call.requester.user_nid)
        return {"devices": [_told(row) for row in found]}

    async def get(self, call: Call[None]) -> Reply:
        """GET /devices/{deviceId}."""
        return _told(await self.devices.one(call.requester.user_nid, call.path["deviceId"]))

    async def rename(self, call: Call[RenameBody]) -> Reply:
        """PUT /devices/{deviceId}."""
        nid, device_id = call.requester.user_nid, call.path["deviceId"]
        if call.body.display_name is None:
            await self.devices.one(nid, device_id)
        else:
            await self.devices.rename(nid, device_id, call.body.display_name)
        return EMPTY

    async def delete(self, call: Call[DeleteBody]) -> Reply:
        """DELETE /devices/{deviceId}."""
        await self.confirming.confirm(call)
        await self.devices.remove(call.requester.user_nid, (call.path["deviceId"],))
        return EMPTY

    async def delete_many(self, call: Call[DeleteManyBody]) -> Reply:
        """POST /delete_devices."""
        if len(call.body.devices) > MAX_DELETED:
            raise InvalidParam(f"devices: at most {MAX_DELETED} at once")
        await self.confirming.confirm(call)
        await self.devices.remove(call.requester.user_nid, call.body.devices)
        return EMPTY

    def routes(self) -> tuple[Route, ...]:
        """List what this family serves."""
        one = v3("/devices/{deviceId}")
        writes: dict[str, Any] = {"limit": RateClass.WRITES, "while_suspended": True}
        return (
            Route("GET", v3("/devices"), self.list, auth=Auth.GUEST),
            Route("GET", one, self.get, auth=Auth.GUEST),
            Route("PUT", one, self.rename, body=RenameBody, auth=Auth.GUEST, **writes),
            Route("DELETE", one, self.delete, body=DeleteBody, **writes),
            Route("POST", v3("/delete_devices"), self.delete_many, body=DeleteManyBody, **writes),
        )


def _told(row: DeviceRow) -> dict[str, Any]:
    """Give a device as clients read it; what is not known is null, since matrix-nio refuses a lack."""
    return {
        "device_id": row.device_id,
        "display_name": row.display_name,
        "last_seen_ip": row.last_ip,
        "last_seen_ts": row.last_seen,
    }
