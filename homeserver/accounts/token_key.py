"""Access tokens and tickets: EdDSA JWTs that name a session and a generation of it, and little else.

A token proves only that this server made it; whether its session still stands is for `sessions.py` to say,
whether a ticket is still good for `tickets.py`.
Never mixed up with the tokens of outside issuers: key, type and audience differ.

Source: RFC 7519, RFC 8037; security L1, L3.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets

import jwt
from attrs import frozen
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol.errors import UnknownToken
from protocol.identifiers import ServerName

TYPE = "plait-access+jwt"
MAX_TOKEN = 1024
TICKET_TYPE = "plait-ticket+jwt"
_AUDIENCE = "plait-session"
_TICKET_AUDIENCE = "plait-ticket"
_ALGORITHM = "EdDSA"


@frozen
class SessionClaims:
    """What an access token says."""

    session_nid: int
    gen: int
    expires: int | None
    """Milliseconds; None: as long as the session."""


class TokenKey:
    """The server's key for tokens; its `repr` hides it."""

    __slots__ = ("_mac_key", "_private", "_public", "_server_name")

    def __init__(self, seed: bytes, server_name: ServerName) -> None:
        """Take 32 secret random bytes."""
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        self._public = self._private.public_key()
        self._mac_key = hmac.digest(seed, b"plait: bindings", "sha256")
        self._server_name = server_name

    def mint(self, claims: SessionClaims) -> str:
        """Make an access token."""
        return self._encode(claims, {"aud": _AUDIENCE}, TYPE)

    def read(self, token: str, now: int) -> SessionClaims:
        """Check a token's signature and form; raises UnknownToken, softly for one that has expired."""
        return _claims(self._decode(token, _AUDIENCE, TYPE), now)

    def mint_ticket(self, claims: SessionClaims, nonce: str) -> str:
        """Make a ticket that stands for an access token with these claims, and bears a nonce."""
        return self._encode(claims, {"aud": _TICKET_AUDIENCE, "jti": nonce}, TICKET_TYPE)

    def read_ticket(self, ticket: str, now: int) -> tuple[SessionClaims, str]:
        """Check a ticket's signature and form; give its claims and nonce. Raises UnknownToken."""
        content = self._decode(ticket, _TICKET_AUDIENCE, TICKET_TYPE)
        nonce = content.get("jti")
        if not isinstance(nonce, str):
            raise _unknown()
        return _claims(content, now), nonce

    def _encode(self, claims: SessionClaims, further: dict[str, str], kind: str) -> str:
        content: dict[str, object] = {
            "iss": self._server_name,
            "sid": claims.session_nid,
            "gen": claims.gen,
            **further,
        }
        if claims.expires is not None:
            content["exp"] = claims.expires // 1000
        return jwt.encode(content, self._private, _ALGORITHM, headers={"typ": kind})

    def _decode(self, token: str, audience: str, kind: str) -> dict[str, object]:
        if len(token) > MAX_TOKEN or not token.isascii():
            raise _unknown()
        try:
            decoded = jwt.decode_complete(
                token,
                self._public,
                [_ALGORITHM],
                # Whether it has expired is judged by the server's own clock.
                options={"verify_exp": False, "verify_iat": False, "verify_nbf": False},
                audience=audience,
                issuer=self._server_name,
            )
        except (jwt.InvalidTokenError, ValueError, RecursionError):
            raise _unknown() from None
        if decoded["header"].get("typ") != kind:
            raise _unknown()
        content: dict[str, object] = decoded["payload"]
        return content

    def bind(self, *parts: bytes) -> bytes:
        """Give a keyed hash of texts, which tells nothing of them to whoever lacks the key."""
        framed = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
        return hmac.digest(self._mac_key, framed, "sha256")

    def __repr__(self) -> str:
        """Show nothing of the key."""
        return "TokenKey(***)"


def _claims(content: dict[str, object], now: int) -> SessionClaims:
    """Read what a decoded token says; raises UnknownToken, softly for one that has expired."""
    session_nid, gen, exp = content.get("sid"), content.get("gen"), content.get("exp")
    if not (isinstance(session_nid, int) and isinstance(gen, int) and isinstance(exp, int | None)):
        raise _unknown()
    expires = None if exp is None else exp * 1000
    if expires is not None and expires <= now:
        raise UnknownToken("This access token has expired", soft_logout=True)
    return SessionClaims(session_nid, gen, expires)


def _unknown() -> UnknownToken:
    return UnknownToken("This access token is not known here", soft_logout=False)


def make_refresh_token() -> str:
    """Make a refresh token: 256 random bits."""
    return secrets.token_urlsafe(32)


def hash_refresh_token(token: str) -> bytes:
    """Give what is kept of a refresh token; it is random, so a plain hash will do."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
