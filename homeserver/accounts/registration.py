"""Making accounts: by whom the configuration lets, by token, or by the shared secret.

Source: client-server-api/_index.md, "Account registration", "Token-authenticated registration";
security L12, L14.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Mapping

from attrs import frozen

from homeserver.accounts.passwords import Passwords
from homeserver.config.sections import Registration as RegistrationConfig
from homeserver.config.sections import RegistrationMode
from protocol.canonical_json import dumps
from protocol.errors import Forbidden, InvalidParam, InvalidUsername, Unrecognized, UserInUse
from protocol.identifiers import ServerName, UserID, make_user_id
from storage import accounts, profiles, registration_tokens
from storage.accounts import AccountRow, NewAccount
from storage.database import Database, Transaction
from storage.rows import run_all

NONCE_LIFE_MS = 60_000
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


NoteProfile = Callable[[int, Mapping[str, str]], None]
"""Takes a new user's number and what rooms are told of the profile."""


def forgotten(_user_nid: int, _fields: Mapping[str, str]) -> None:
    """Leave the profile to be read when it is wanted."""


@frozen
class Newcomer:
    """An account that is wanted."""

    username: str | None
    password: str | None = None
    displayname: str | None = None
    is_admin: bool = False
    token: str | None = None
    """The registration token that lets them in."""


@frozen
class SignedNewcomer:
    """What comes with the shared secret's signature; `mac` is the HMAC-SHA1 in hexadecimal."""

    nonce: str
    username: str
    password: str
    mac: str
    is_admin: bool = False
    user_type: str | None = None
    displayname: str | None = None


class Registration:
    """Makes accounts."""

    def __init__(
        self,
        database: Database,
        passwords: Passwords,
        config: RegistrationConfig,
        server_name: ServerName,
        note_new: NoteProfile,
    ) -> None:
        """Let in whom `config` lets in."""
        self._database = database
        self._passwords = passwords
        self._config = config
        self._server_name = server_name
        self._note_new = note_new

    @property
    def mode(self) -> RegistrationMode:
        """Tell who may make an account."""
        return self._config.mode

    def user_id(self, username: str) -> UserID:
        """Give the user ID of a new account; raises InvalidUsername."""
        try:
            return make_user_id(username, self._server_name)
        except InvalidParam as error:
            raise InvalidUsername(error.error) from None

    async def check_available(self, username: str) -> None:
        """See that a name can be had; raises InvalidUsername or UserInUse."""
        if await self._database.read(accounts.by_id, self.user_id(username)) is not None:
            raise UserInUse("This user name is taken")

    async def is_valid_token(self, token: str, now: int) -> bool:
        """Tell whether a registration token lets somebody in."""
        if self._is_configured(token):
            return True
        return await self._database.read(registration_tokens.is_valid, token, now)

    async def register(self, newcomer: Newcomer, now: int) -> AccountRow:
        """Make an account, using up its token in the same transaction.

        Raises:
            InvalidUsername, UserInUse: the name cannot be had.
            WeakPassword, InvalidParam: the password will not do.
            Forbidden: the token is used up.
        """
        username = newcomer.username or _make_username()
        user_id = self.user_id(username)
        hashed = None
        if newcomer.password is not None:
            self._passwords.check_policy(newcomer.password)
            await self.check_available(username)
            hashed = await self._passwords.hash(newcomer.password)
        account = NewAccount(
            user_id, hashed, now, newcomer.is_admin, search_text(username, newcomer.displayname)
        )
        counted = newcomer.token
        if counted is not None and self._is_configured(counted):
            counted = None
        displayname = newcomer.displayname or username
        made = await self._database.write(_create, account, displayname, counted, now)
        self._note_new(made.user_nid, {"displayname": displayname})
        return made

    async def make_nonce(self, now: int) -> str:
        """Give a nonce for one registration by shared secret; raises Unrecognized without a secret."""
        self._require_secret()
        nonce = secrets.token_hex(32)
        await self._database.write(registration_tokens.put_nonce, nonce, now + NONCE_LIFE_MS)
        return nonce

    async def register_signed(self, signed: SignedNewcomer, now: int) -> AccountRow:
        """Make an account for whoever holds the shared secret, in every mode.

        Raises Unrecognized, InvalidParam, Forbidden, and what `register` raises.
        """
        secret = self._require_secret()
        parts = [signed.nonce, signed.username, signed.password, "admin" if signed.is_admin else "notadmin"]
        if signed.user_type is not None:
            parts.append(signed.user_type)
        if any("\0" in part for part in parts):
            raise InvalidParam("A field holds U+0000")
        text = b"\0".join(part.encode("utf-8") for part in parts)
        wanted = hmac.new(secret.encode(), text, hashlib.sha1).hexdigest()
        if not await self._database.write(registration_tokens.use_nonce, signed.nonce, now):
            raise InvalidParam("The nonce is not known, or was used, or has expired")
        if not hmac.compare_digest(wanted.encode(), signed.mac.lower().encode("utf-8", "replace")):
            raise Forbidden("The HMAC is not right")
        return await self.register(
            Newcomer(signed.username, signed.password, signed.displayname, signed.is_admin), now
        )

    def _is_configured(self, token: str) -> bool:
        """Tell whether the configuration names the token; such a one is not counted."""
        return any(known.matches(token) for known in self._config.tokens)

    def _require_secret(self) -> str:
        if self._config.shared_secret is None:
            raise Unrecognized("Registration by shared secret is not enabled here")
        return self._config.shared_secret.reveal()


def search_text(localpart: str, displayname: str | None) -> str:
    """Give what the user directory searches of a user."""
    return f"{localpart} {displayname or ''}".casefold()


def _make_username() -> str:
    return "".join(secrets.choice(_LETTERS) for _ in range(12))


def _create(
    tx: Transaction, account: NewAccount, displayname: str, token: str | None, now: int
) -> AccountRow:
    """Make the account; raises Forbidden for a token that is used up, UserInUse for a name that is taken."""
    if token is not None and not registration_tokens.use(tx, token, now):
        raise Forbidden("This registration token is used up or has expired")
    user_nid = accounts.create(tx, account)
    if user_nid is None:
        raise UserInUse("This user name is taken")
    run_all(tx, (profiles.put_rows(user_nid, "displayname", dumps(displayname)),))
    made = accounts.by_nid(tx, user_nid)
    assert made is not None
    return made
