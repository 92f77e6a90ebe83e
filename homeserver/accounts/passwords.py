"""Passwords: Argon2id off the reactor, the same work whether the user exists or not.

Source: client-server-api/_index.md, "Password-based"; security L8, L9.
"""

from __future__ import annotations

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.low_level import Type

from homeserver.config.sections import PasswordLogin
from homeserver.threads import Workers
from protocol.errors import InvalidParam, WeakPassword

MAX_PASSWORD_BYTES = 512
_HASHER = PasswordHasher(time_cost=3, memory_cost=12_288, parallelism=1, type=Type.ID)
_NOBODYS = "$argon2id$v=19$m=12288,t=3,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
"""A hash that no password has, for users who do not exist or have none."""


class Passwords:
    """Hashes and checks passwords."""

    def __init__(self, workers: Workers, policy: PasswordLogin) -> None:
        """Work on `workers`, a few threads: each hash takes 12 MiB and some 20 ms of a core."""
        self._workers = workers
        self._policy = policy

    @property
    def enabled(self) -> bool:
        """Tell whether passwords open accounts here."""
        return self._policy.enabled

    def check_policy(self, password: str) -> None:
        """See that a new password will do; raises WeakPassword or InvalidParam."""
        _check_size(password)
        if len(password) < self._policy.minimum_length:
            raise WeakPassword(f"A password must have at least {self._policy.minimum_length} characters")

    async def hash(self, password: str) -> str:
        """Give the hash to be kept, in PHC form."""
        _check_size(password)
        return await self._workers.run(_HASHER.hash, password)

    async def verify(self, password: str, stored: str | None) -> bool:
        """Tell whether a password has this hash; with none (None), as slowly, that it has not."""
        _check_size(password)
        right = await self._workers.run(_verify, stored or _NOBODYS, password)
        return right and stored is not None


def _check_size(password: str) -> None:
    if not password:
        raise InvalidParam("The password is empty")
    try:
        size = len(password.encode("utf-8"))
    except UnicodeEncodeError:
        raise InvalidParam("The password is no text") from None
    if size > MAX_PASSWORD_BYTES:
        raise InvalidParam(f"A password may have at most {MAX_PASSWORD_BYTES} bytes")


def _verify(stored: str, password: str) -> bool:
    try:
        return _HASHER.verify(stored, password)
    except (VerificationError, InvalidHashError):
        return False
