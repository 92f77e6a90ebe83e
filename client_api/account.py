"""The account: who am I, a new password, the end.

Source: client-server-api/_index.md, "Account management", "Current account information".
"""

from __future__ import annotations

from typing import Any

import msgspec
from attrs import frozen

from client_api.confirming import Confirming
from client_api.paths import v3
from homeserver.accounts.accounts import Accounts
from homeserver.accounts.devices import Devices
from homeserver.http.calls import EMPTY, Call, Reply
from homeserver.http.routing import Auth, RateClass, Route
from protocol.errors import Forbidden
from protocol.identifiers import parse_user_id


class PasswordBody(msgspec.Struct, frozen=True):
    """The body of a change of password."""

    new_password: str
    logout_devices: bool = True
    auth: dict[str, Any] | None = None


class DeactivateBody(msgspec.Struct, frozen=True):
    """The body of a deactivation."""

    erase: bool = False
    auth: dict[str, Any] | None = None


@frozen(eq=False)
class Account:
    """A user's own account."""

    accounts: Accounts
    devices: Devices
    confirming: Confirming

    async def whoami(self, call: Call[None]) -> Reply:
        """GET /account/whoami."""
        requester = call.requester
        return {
            "user_id": requester.user_id,
            "device_id": requester.device_id,
            "is_guest": requester.is_guest,
        }

    async def change_password(self, call: Call[PasswordBody]) -> Reply:
        """POST /account/password."""
        self.accounts.passwords.check_policy(call.body.new_password)
        account = await self.confirming.confirm(call)
        await self.accounts.set_password(
            account,
            call.body.new_password,
            keep=call.requester.device_id,
            logout=call.body.logout_devices,
        )
        return EMPTY

    async def deactivate(self, call: Call[DeactivateBody]) -> Reply:
        """POST /account/deactivate."""
        account = await self.confirming.confirm(call)
        await self.accounts.deactivate(account, erase=call.body.erase, now=call.now)
        return {"id_server_unbind_result": "no-support"}

    async def threepids(self, call: Call[None]) -> Reply:
        """GET /account/3pid: none are kept here."""
        return {"threepids": []}

    async def whois(self, call: Call[None]) -> Reply:
        """GET /admin/whois/{userId}: for oneself, and for administrators."""
        user_id = parse_user_id(call.path["userId"])
        if user_id != call.requester.user_id and not call.requester.is_admin:
            raise Forbidden("Only administrators may do this")
        account = await self.accounts.get(user_id)
        seen = {
            row.device_id: {"ip": row.last_ip, "last_seen": row.last_seen, "user_agent": row.user_agent}
            for row in await self.devices.of_user(account.user_nid)
            if row.last_ip is not None
        }
        devices = {device_id: {"sessions": [{"connections": [one]}]} for device_id, one in seen.items()}
        return {"user_id": user_id, "devices": devices}

    def routes(self) -> tuple[Route, ...]:
        """List what this family serves."""
        writes = RateClass.WRITES
        return (
            Route("GET", v3("/account/whoami"), self.whoami, auth=Auth.GUEST),
            Route("POST", v3("/account/password"), self.change_password, body=PasswordBody, limit=writes),
            Route(
                "POST",
                v3("/account/deactivate"),
                self.deactivate,
                body=DeactivateBody,
                limit=writes,
                while_suspended=True,
            ),
            Route("GET", v3("/account/3pid"), self.threepids),
            Route("GET", v3("/admin/whois/{userId}"), self.whois),
        )
