"""Login by the token of an outside issuer: algorithm, key and issuer are fixed in the configuration.

The token never chooses how it is checked, and this server's own access tokens are no such tokens.

Source: RFC 7519, RFC 8725; security L3.
"""

from __future__ import annotations

import jwt

from homeserver.accounts.token_key import TYPE
from homeserver.config.sections import JwtAlgorithm, JwtLogin
from protocol.errors import Forbidden

MAX_TOKEN = 8192
LEEWAY_MS = 10_000
_REQUIRED = ["exp", "iss", "aud"]


class OutsideTokens:
    """Checks tokens of the configured issuer."""

    def __init__(self, config: JwtLogin) -> None:
        """Take key, algorithm, issuer and audiences; raises ValueError if one is missing or does not fit."""
        self.enabled = config.enabled
        self._config = config
        if not config.enabled:
            return
        if config.key is None or not config.issuer or not config.audiences:
            raise ValueError("auth.jwt needs `key`, `issuer` and `audiences`")
        self._key = config.key.reveal()
        if config.algorithm is JwtAlgorithm.HS256:
            if "-----BEGIN" in self._key:
                raise ValueError("auth.jwt: a public key cannot be the secret of HS256")
            if len(self._key.encode()) < 32:
                raise ValueError("auth.jwt: the secret of HS256 must have at least 32 bytes")

    def subject(self, token: str, now: int) -> str:
        """Give whom a token is for; raises Forbidden for one that is not right."""
        if not self.enabled:
            raise Forbidden("Login by JWT is not enabled here")
        content = self._decode(token)
        expires, begins = content.get("exp"), content.get("nbf", 0)
        subject = content.get(self._config.subject_claim)
        if not isinstance(expires, int | float) or isinstance(expires, bool):
            raise Forbidden("The token does not say when it expires")
        if not isinstance(begins, int | float) or isinstance(begins, bool):
            raise Forbidden("The token does not say when it begins")
        if expires * 1000 <= now - LEEWAY_MS or begins * 1000 > now + LEEWAY_MS:
            raise Forbidden("The token is not valid at this time")
        if not isinstance(subject, str) or not subject:
            raise Forbidden("The token does not say whom it is for")
        return subject

    def _decode(self, token: str) -> dict[str, object]:
        if len(token) > MAX_TOKEN or not token.isascii():
            raise Forbidden("The token is too long")
        try:
            decoded = jwt.decode_complete(
                token,
                self._key,
                [self._config.algorithm.value],
                # Times are judged by the server's own clock.
                options={
                    "require": [*_REQUIRED, self._config.subject_claim],
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
                audience=self._config.audiences,
                issuer=self._config.issuer,
            )
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            raise Forbidden("The token is not right") from None
        header = decoded["header"]
        content: dict[str, object] = decoded["payload"]
        if header.get("typ") == TYPE or "crit" in header or not isinstance(content.get("iss"), str):
            raise Forbidden("The token is not right")
        return content
