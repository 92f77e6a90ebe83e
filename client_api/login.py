"""Logging in, renewing tokens, and logging out.

Source: client-server-api/_index.md, "Login", "Refreshing access tokens"; data/api/client-server/login.yaml.
"""

from __future__ import annotations

from typing import Any

import msgspec
from attrs import frozen

from client_api.paths import v3
from homeserver.accounts.devices import Devices
from homeserver.accounts.login import JWT, PASSWORD, Login
from homeserver.accounts.sessions import DeviceWish, Granted, Sessions
from homeserver.http.calls import EMPTY, Call, Reply
from homeserver.http.routing import Auth, RateClass, Route
from protocol.errors import BadJson, InvalidParam, MatrixError, MissingParam
from storage.accounts import AccountRow


class LoginBody(msgspec.Struct, frozen=True):
    """The body of a login, of any type."""

    type: str
    identifier: dict[str, Any] | None = None
    user: str | None = None
    password: str | None = None
    token: str | None = None
    device_id: str | None = None
    initial_device_display_name: str | None = None
    refresh_token: bool = False


class RefreshBody(msgspec.Struct, frozen=True):
    """The body of a refresh."""

    refresh_token: str


@frozen(eq=False)
class LoginRoutes:
    """Begins and ends sessions."""

    login: Login
    sessions: Sessions
    devices: Devices
    public_baseurl: str | None

    async def flows(self, call: Call[None]) -> Reply:
        """GET /login."""
        return {"flows": [{"type": flow} for flow in self.login.flows()]}

    async def log_in(self, call: Call[LoginBody]) -> Reply:
        """POST /login."""
        body = call.body
        wish = DeviceWish(body.device_id, body.initial_device_display_name, body.refresh_token)
        wish.check()
        account = await self._account(call)
        granted = await self.sessions.begin(account, wish, call.now)
        answer = granted_answer(granted)
        if self.public_baseurl is not None:
            answer["well_known"] = {"m.homeserver": {"base_url": self.public_baseurl}}
        return answer

    async def _account(self, call: Call[LoginBody]) -> AccountRow:
        body = call.body
        if body.type == PASSWORD:
            user = named_user(body.identifier, body.user)
            if user is None or body.password is None:
                raise MissingParam("A login by password needs `identifier` and `password`")
            return await self.login.by_password(user, body.password, ip=call.ip, now=call.now)
        if body.type == JWT:
            if body.token is None:
                raise MissingParam("A login by token needs `token`")
            return await self.login.by_outside_token(body.token, call.now)
        raise MatrixError("This type of login is not known here")

    async def refresh(self, call: Call[RefreshBody]) -> Reply:
        """POST /refresh."""
        granted = await self.sessions.refresh(call.body.refresh_token, call.now)
        return granted.fields()

    async def log_out(self, call: Call[Any]) -> Reply:
        """POST /logout."""
        await self.devices.remove(call.requester.user_nid, (call.requester.device_id,))
        return EMPTY

    async def log_out_all(self, call: Call[Any]) -> Reply:
        """POST /logout/all."""
        await self.devices.remove_all(call.requester.user_nid)
        return EMPTY

    def routes(self) -> tuple[Route, ...]:
        """List what this family serves."""
        login: dict[str, Any] = {"auth": Auth.NONE, "limit": RateClass.LOGIN}
        ends: dict[str, Any] = {
            "auth": Auth.GUEST,
            "limit": RateClass.WRITES,
            "while_suspended": True,
            "while_locked": True,
        }
        return (
            Route("GET", v3("/login"), self.flows, auth=Auth.NONE),
            Route("POST", v3("/login"), self.log_in, body=LoginBody, **login),
            Route("POST", v3("/refresh"), self.refresh, body=RefreshBody, **login),
            Route("POST", v3("/logout"), self.log_out, body=bytes, **ends),
            Route("POST", v3("/logout/all"), self.log_out_all, body=bytes, **ends),
        )


def granted_answer(granted: Granted) -> dict[str, Any]:
    """Give what a login or registration answers."""
    return {"user_id": granted.user_id, "device_id": granted.device_id, **granted.fields()}


def named_user(identifier: dict[str, Any] | None, user: Any) -> str | None:
    """Give whom an `identifier` names, or the older field `user`; None if neither is there.

    Raises:
        InvalidParam: an identifier of a kind that is not known here.
        BadJson: an identifier of a wrong shape.
    """
    if identifier is not None:
        if identifier.get("type") != "m.id.user":
            raise InvalidParam("Only identifiers of the type m.id.user are known here")
        user = identifier.get("user")
        if not isinstance(user, str):
            raise BadJson("The field identifier.user must be a string")
    if user is not None and not isinstance(user, str):
        raise BadJson("The field user must be a string")
    return user
