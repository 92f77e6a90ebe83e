"""Making an account.

Source: client-server-api/_index.md, "Account registration", "Token-authenticated registration".
"""

from __future__ import annotations

from typing import Any

import msgspec
from attrs import frozen

from client_api.confirming import auth_of, body_object, path_of
from client_api.login import granted_answer
from client_api.paths import v1, v3
from homeserver.accounts.interactive_auth import DUMMY, Challenge, InteractiveAuth, Stage, dummy_stage
from homeserver.accounts.registration import Newcomer, Registration, SignedNewcomer
from homeserver.accounts.sessions import DeviceWish, Sessions
from homeserver.config.sections import RegistrationMode
from homeserver.http.calls import Call, Reply
from homeserver.http.routing import Auth, RateClass, Route
from protocol.canonical_json import JsonObject
from protocol.errors import Forbidden, GuestAccessForbidden, InvalidParam, MissingParam
from protocol.identifiers import localpart_of, server_of

TOKEN = "m.login.registration_token"  # noqa: S105 (a type of login, not a token)
SHARED_SECRET = "/_synapse/admin/v1/register"  # noqa: S105 (a path, not a secret)


class RegisterBody(msgspec.Struct, frozen=True):
    """The body of a registration."""

    username: str | None = None
    password: str | None = None
    device_id: str | None = None
    initial_device_display_name: str | None = None
    inhibit_login: bool = False
    refresh_token: bool = False
    auth: dict[str, Any] | None = None


class SignedBody(msgspec.Struct, frozen=True):
    """The body of a registration by shared secret."""

    nonce: str
    username: str
    password: str
    mac: str
    admin: bool = False
    user_type: str | None = None
    displayname: str | None = None


@frozen(eq=False)
class Register:
    """Lets people in."""

    registration: Registration
    sessions: Sessions
    auth: InteractiveAuth

    async def register(self, call: Call[RegisterBody]) -> Reply:
        """POST /register."""
        kind, body = call.query.get("kind"), call.body
        if kind == "guest":
            raise GuestAccessForbidden("Guests are not let in here")
        if kind not in (None, "user"):
            raise InvalidParam("The query field kind must be `user` or `guest`")
        self._require_open()
        wish = DeviceWish(body.device_id, body.initial_device_display_name, body.refresh_token)
        wish.check()
        if body.username is not None:
            await self.registration.check_available(body.username)
        proved = await self.auth.require(*self._challenge(call), call.now)
        if body.password is None:
            raise MissingParam("The field password is missing")
        newcomer = Newcomer(body.username, body.password, token=proved.get(TOKEN))
        account = await self.registration.register(newcomer, call.now)
        if body.inhibit_login:
            return {"user_id": account.user_id}
        return granted_answer(await self.sessions.begin(account, wish, call.now))

    def _require_open(self) -> None:
        if self.registration.mode is RegistrationMode.CLOSED:
            raise Forbidden("Registration is closed here")

    def _challenge(self, call: Call[RegisterBody]) -> tuple[Challenge, JsonObject | None]:
        """Give what a newcomer must prove, by the mode of registration."""
        body = body_object(call)
        stages: dict[str, Stage] = {DUMMY: dummy_stage}
        if self.registration.mode is RegistrationMode.TOKEN:
            stages = {TOKEN: self._check_token}
        operation = self.auth.bind_operation("register", call.method, path_of(call), body=body)
        return Challenge(operation, [[kind] for kind in stages], stages), auth_of(body)

    async def _check_token(self, auth: JsonObject, now: int) -> str:
        token = auth.get("token")
        if not isinstance(token, str):
            raise MissingParam("The token is missing")
        if not await self.registration.is_valid_token(token, now):
            raise Forbidden("This registration token is not valid")
        return token

    async def available(self, call: Call[None]) -> Reply:
        """GET /register/available."""
        self._require_open()
        await self.registration.check_available(call.query.required("username"))
        return {"available": True}

    async def validity(self, call: Call[None]) -> Reply:
        """GET /register/m.login.registration_token/validity."""
        self._require_open()
        token = call.query.required("token")
        return {"valid": await self.registration.is_valid_token(token, call.now)}

    async def nonce(self, call: Call[None]) -> Reply:
        """GET /_synapse/admin/v1/register."""
        return {"nonce": await self.registration.make_nonce(call.now)}

    async def register_signed(self, call: Call[SignedBody]) -> Reply:
        """POST /_synapse/admin/v1/register."""
        body = call.body
        signed = SignedNewcomer(
            body.nonce, body.username, body.password, body.mac, body.admin, body.user_type, body.displayname
        )
        account = await self.registration.register_signed(signed, call.now)
        granted = await self.sessions.begin(account, DeviceWish(), call.now)
        home_server = server_of(account.user_id)
        return granted_answer(granted) | {
            "home_server": home_server,
            "username": localpart_of(account.user_id),
        }

    def routes(self) -> tuple[Route, ...]:
        """List what this family serves."""
        free: dict[str, Any] = {"auth": Auth.NONE, "limit": RateClass.REGISTRATION}
        return (
            Route("POST", v3("/register"), self.register, body=RegisterBody, **free),
            Route("GET", v3("/register/available"), self.available, **free),
            Route("GET", v1(f"/register/{TOKEN}/validity"), self.validity, **free),
            Route("GET", SHARED_SECRET, self.nonce, **free),
            Route("POST", SHARED_SECRET, self.register_signed, body=SignedBody, **free),
        )
