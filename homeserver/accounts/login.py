"""Logging in: who is it? By password or by an outside issuer's token; the session comes after that.

Source: client-server-api/_index.md, "Login", "Identifier types"; security L4, L8, L9.
"""

from __future__ import annotations

from attrs import frozen

from homeserver.accounts.accounts import Accounts
from homeserver.accounts.jwt_login import OutsideTokens
from homeserver.accounts.passwords import Passwords
from homeserver.accounts.registration import Newcomer, Registration
from homeserver.accounts.standing import check_may_log_in
from homeserver.http.client_address import address_key
from homeserver.http.rate_limits import RateLimiter
from homeserver.http.routing import RateClass
from protocol.errors import Forbidden, InvalidParam, InvalidUsername, UserInUse
from protocol.identifiers import ServerName, UserID, is_new_localpart, parse_user_id, server_of
from storage.accounts import AccountRow

PASSWORD = "m.login.password"  # noqa: S105 (a type of login, not a password)
JWT = "org.matrix.login.jwt"
_REFUSED = "The user name or the password is not right"


@frozen(eq=False)
class Login:
    """Finds out whose account somebody may use."""

    server_name: ServerName
    accounts: Accounts
    passwords: Passwords
    outside_tokens: OutsideTokens
    registration: Registration
    limiter: RateLimiter

    def flows(self) -> list[str]:
        """List the types of login."""
        flows = [PASSWORD] if self.passwords.enabled else []
        return [*flows, JWT] if self.outside_tokens.enabled else flows

    async def by_password(self, user: str, password: str, *, ip: str, now: int) -> AccountRow:
        """Give the account of a user ID or localpart, if the password is its own.

        Who does not exist is refused like who has another password, and after the same work.

        Raises:
            Forbidden: the name or the password is not right.
            UserDeactivated, UserLocked: they are, but the account may not log in.
            LimitExceeded: too many tries at this account.
        """
        if not self.passwords.enabled:
            raise Forbidden("Login by password is not enabled here")
        user_id = self._user_id(user)
        self.limiter.take(RateClass.LOGIN, f"{user_id} {address_key(ip)}", now)
        self.limiter.take(RateClass.LOGIN, user_id.lower(), now)
        account = await self._find(user_id)
        # A deactivated account has no password any more, so nobody can learn of it here.
        if not await self.passwords.verify(password, None if account is None else account.password):
            raise Forbidden(_REFUSED)
        assert account is not None
        check_may_log_in(account)
        return account

    async def by_outside_token(self, token: str, now: int) -> AccountRow:
        """Give the account an outside issuer's token is for, making it if there is none.

        Raises Forbidden, UserDeactivated, UserLocked.
        """
        localpart = self.outside_tokens.subject(token, now)
        if not is_new_localpart(localpart):
            raise Forbidden("The token is for a name that cannot be a user name here")
        user_id = UserID(f"@{localpart}:{self.server_name}")
        account = await self.accounts.find(user_id)
        if account is None:
            account = await self._make(localpart, user_id, now)
        check_may_log_in(account)
        return account

    async def _make(self, localpart: str, user_id: UserID, now: int) -> AccountRow:
        try:
            return await self.registration.register(Newcomer(localpart), now)
        except UserInUse:
            return await self.accounts.get(user_id)
        except InvalidUsername as error:
            raise Forbidden(error.error) from None

    def _user_id(self, user: str) -> UserID:
        """Give the user ID of what somebody typed; raises Forbidden for none of this server."""
        try:
            user_id = parse_user_id(user if user.startswith("@") else f"@{user}:{self.server_name}")
        except InvalidParam:
            raise Forbidden(_REFUSED) from None
        if server_of(user_id) != self.server_name:
            raise Forbidden("This user is not of this server")
        return user_id

    async def _find(self, user_id: UserID) -> AccountRow | None:
        """Look an account up, by the name as typed or else in lower case."""
        found = await self.accounts.find(user_id)
        if found is None and user_id != user_id.lower():
            return await self.accounts.find(UserID(user_id.lower()))
        return found
