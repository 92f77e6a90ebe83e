"""Third-party invites: the keys that a room keeps for an invite by e-mail, and the proof that redeems it.

An identity server signs, for the user who has proved to own the address, who that is and which invite is
meant. The room has the keys for it in the state, under the invite's token.

Source: server-server-api.md, "Third-party invites"; rooms/v12.md, "Authorisation rules", 5.4.1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from attrs import frozen

from protocol.canonical_json import JsonObject
from protocol.errors import MatrixError
from protocol.identifiers import KeyID, ServerName
from protocol.signing import VerifyKey, decode_base64, verify_json

THIRD_PARTY_INVITE: Final = "m.room.third_party_invite"
MAX_CHECKS: Final = 16
"""Signatures times keys looked at on a third-party invite."""


@frozen
class IdentityKey:
    """A key of an identity server, as a room keeps it: base64, and where to ask whether it still holds."""

    public_key: str
    validity_url: str | None


def third_party_token(content: Mapping[str, Any]) -> str | None:
    """Give the token of a third-party invite, None if it has none."""
    invite = content.get("third_party_invite")
    signed = invite.get("signed") if isinstance(invite, dict) else None
    token = signed.get("token") if isinstance(signed, dict) else None
    return token if isinstance(token, str) else None


def signing_key(signed: JsonObject, issued: Mapping[str, Any]) -> IdentityKey | None:
    """Give the key by which a proof is signed, of those in the content of the invite that was issued."""
    signatures = signed.get("signatures")
    if not isinstance(signatures, dict):
        return None
    keys = list(_keys_of(issued))
    checks = [
        (server, key_id, key)
        for server, by_key in signatures.items()
        if isinstance(by_key, dict)
        for key_id in by_key
        if key_id.startswith("ed25519:")
        for key in keys
    ]
    return next((check[2] for check in checks[:MAX_CHECKS] if _is_signed(signed, *check)), None)


def _keys_of(issued: Mapping[str, Any]) -> Iterator[IdentityKey]:
    several = issued.get("public_keys")
    for item in (issued, *(several if isinstance(several, list) else ())):
        key = item.get("public_key") if isinstance(item, Mapping) else None
        if isinstance(key, str):
            url = item.get("key_validity_url")
            yield IdentityKey(key, url if isinstance(url, str) else None)


def _is_signed(signed: JsonObject, server: str, key_id: str, key: IdentityKey) -> bool:
    try:
        public = VerifyKey(_key_bytes(key.public_key))
        verify_json(signed, ServerName(server), KeyID(key_id), public)
    except (MatrixError, ValueError):
        return False
    return True


def _key_bytes(text: str) -> bytes:
    """Read a public key, which identity servers write in either alphabet."""
    return decode_base64(text.replace("-", "+").replace("_", "/").rstrip("="))
