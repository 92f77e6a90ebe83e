"""Locking and suspending accounts, for administrators.

Source: client-server-api/_index.md, "Account moderation"; data/api/client-server/admin.yaml.
"""

from __future__ import annotations

from typing import Any

import msgspec
from attrs import frozen

from client_api.paths import v1
from homeserver.accounts.accounts import Accounts
from homeserver.http.calls import Call, Reply
from homeserver.http.routing import Auth, RateClass, Route
from protocol.errors import Forbidden, InvalidParam, NotFound
from protocol.identifiers import ServerName, parse_user_id, server_of
from storage.accounts import AccountRow


class LockBody(msgspec.Struct, frozen=True):
    """Whether an account is locked."""

    locked: bool


class SuspendBody(msgspec.Struct, frozen=True):
    """Whether an account is suspended."""

    suspended: bool


@frozen(eq=False)
class Moderation:
    """Shows and sets the state of accounts."""

    server_name: ServerName
    accounts: Accounts

    async def is_locked(self, call: Call[None]) -> Reply:
        """GET /admin/lock/{userId}."""
        return {"locked": (await self._account(call.path["userId"])).locked}

    async def lock(self, call: Call[LockBody]) -> Reply:
        """PUT /admin/lock/{userId}."""
        await self._set(call, "locked", call.body.locked)
        return {"locked": call.body.locked}

    async def is_suspended(self, call: Call[None]) -> Reply:
        """GET /admin/suspend/{userId}."""
        return {"suspended": (await self._account(call.path["userId"])).suspended}

    async def suspend(self, call: Call[SuspendBody]) -> Reply:
        """PUT /admin/suspend/{userId}."""
        await self._set(call, "suspended", call.body.suspended)
        return {"suspended": call.body.suspended}

    async def _set(self, call: Call[LockBody] | Call[SuspendBody], flag: str, value: bool) -> None:
        account = await self._account(call.path["userId"])
        if account.is_admin or account.user_id == call.requester.user_id:
            raise Forbidden("Administrators cannot be locked or suspended")
        await self.accounts.set_flag(account, flag, value)

    async def _account(self, text: str) -> AccountRow:
        user_id = parse_user_id(text)
        if server_of(user_id) != self.server_name:
            raise InvalidParam("This user is not of this server")
        account = await self.accounts.get(user_id)
        if account.deactivated:
            raise NotFound("There is no such account here")
        return account

    def routes(self) -> tuple[Route, ...]:
        """List what this family serves."""
        lock = v1("/admin/lock/{userId}", unstable="uk.timedout.msc4323")
        suspend = v1("/admin/suspend/{userId}", unstable="uk.timedout.msc4323")
        sets: dict[str, Any] = {"auth": Auth.ADMIN, "limit": RateClass.WRITES}
        return (
            Route("GET", lock, self.is_locked, auth=Auth.ADMIN),
            Route("PUT", lock, self.lock, body=LockBody, **sets),
            Route("GET", suspend, self.is_suspended, auth=Auth.ADMIN),
            Route("PUT", suspend, self.suspend, body=SuspendBody, **sets),
        )
