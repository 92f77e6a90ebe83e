"""Confirming that a user is really there before something grave: user-interactive authentication.

Source: client-server-api/_index.md, "User-Interactive Authentication API"; security L2.
"""

from __future__ import annotations

from typing import Any

from attrs import frozen

from client_api.login import named_user
from homeserver.accounts.accounts import Accounts
from homeserver.accounts.interactive_auth import Challenge, InteractiveAuth, Stage
from homeserver.accounts.login import JWT, PASSWORD, Login
from homeserver.http.calls import Call
from homeserver.http.rate_limits import RateLimiter
from homeserver.http.routing import RateClass
from protocol.canonical_json import JsonObject, decode_client
from protocol.errors import BadJson, Forbidden, MissingParam
from storage.accounts import AccountRow


@frozen(eq=False)
class Confirming:
    """Asks users to prove themselves once more."""

    accounts: Accounts
    login: Login
    auth: InteractiveAuth
    limiter: RateLimiter

    async def confirm(self, call: Call[Any]) -> AccountRow:
        """See that whoever calls can prove to own the account, and give it.

        Raises:
            AuthenticationNeeded: they have not yet.
            Forbidden: the account has nothing to prove it by.
        """
        requester = call.requester
        account = await self.accounts.get(requester.user_id)
        body = body_object(call)
        stages = self._stages(account)
        if not stages:
            raise Forbidden("This account has no password and no other way to confirm this")
        operation = self.auth.bind_operation(
            requester.user_id, requester.device_id, call.method, path_of(call), body=body
        )
        challenge = Challenge(operation, [[kind] for kind in stages], stages)
        await self.auth.require(challenge, auth_of(body), call.now)
        return account

    def _stages(self, account: AccountRow) -> dict[str, Stage]:
        """Give the ways by which this very account can be proved."""
        stages: dict[str, Stage] = {}

        async def password(auth: JsonObject, now: int) -> None:
            self._check_named(account, auth)
            text = auth.get("password")
            if not isinstance(text, str):
                raise MissingParam("The password is missing")
            self.limiter.take(RateClass.LOGIN, account.user_id, now)
            if not await self.login.passwords.verify(text, account.password):
                raise Forbidden("The password is not right")

        async def outside_token(auth: JsonObject, now: int) -> None:
            text = auth.get("token")
            if not isinstance(text, str):
                raise MissingParam("The token is missing")
            subject = self.login.outside_tokens.subject(text, now)
            if f"@{subject}:{self.login.server_name}" != account.user_id:
                raise Forbidden("The token is for somebody else")

        if self.login.passwords.enabled and account.password is not None:
            stages[PASSWORD] = password
        if self.login.outside_tokens.enabled:
            stages[JWT] = outside_token
        return stages

    def _check_named(self, account: AccountRow, auth: JsonObject) -> None:
        """See that a stage names nobody else."""
        identifier = auth.get("identifier")
        if identifier is not None and not isinstance(identifier, dict):
            raise BadJson("The field auth.identifier must be an object")
        named = named_user(identifier, auth.get("user"))
        localpart = account.user_id[1:].partition(":")[0]
        if named is not None and named.lower() not in (account.user_id, localpart):
            raise Forbidden("This is not your account")


def body_object(call: Call[Any]) -> JsonObject:
    """Give the body as an object; no body is an empty one."""
    body = decode_client(call.raw_body or b"{}")
    if not isinstance(body, dict):
        raise BadJson("The body must be a JSON object")
    return body


def auth_of(body: JsonObject) -> JsonObject | None:
    """Give the `auth` of a body, None without one; raises BadJson."""
    auth = body.get("auth")
    if auth is not None and not isinstance(auth, dict):
        raise BadJson("The field auth must be an object")
    return auth


def path_of(call: Call[Any]) -> str:
    """Give the path of a call, as sent."""
    return call.uri.partition(b"?")[0].decode("latin-1")
