"""This server's own keys: what it signs with, what it signed with before, and the document that says so.

Source: server-server-api.md, "Publishing Keys"; data/api/server-server/definitions/keys.yaml.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import define, field, frozen

from protocol.canonical_json import JsonObject, encode
from protocol.identifiers import KeyID, ServerName
from protocol.signing import SigningKey, VerifyKey, encode_base64, sign_json

LIFE = 24 * 3_600_000
"""Milliseconds for which a document is valid when it is made."""
RENEW_BEFORE = LIFE // 2
"""A document with less life than this is made anew."""


@frozen
class Identity:
    """The name and key by which this server speaks."""

    server_name: ServerName
    key: SigningKey


@frozen
class OldKey:
    """A key no longer used: its public half, and the last millisecond for which it counts."""

    key_id: KeyID
    key: VerifyKey
    expired_ts: int


@define
class OwnKeys:
    """All keys of this server. The first of `keys` signs events and requests."""

    server_name: ServerName
    keys: Sequence[SigningKey]
    old: Sequence[OldKey] = ()
    _document: bytes = field(default=b"", init=False)
    _valid_until: int = field(default=0, init=False)

    @property
    def identity(self) -> Identity:
        """Give the name and the key in use."""
        return Identity(self.server_name, self.keys[0])

    def document(self, now: int) -> bytes:
        """Give the published document: canonical JSON signed by every current key, valid for hours."""
        if self._valid_until - now < RENEW_BEFORE:
            self._valid_until = now + LIFE
            self._document = encode(self._build(self._valid_until))
        return self._document

    def verify_keys(self) -> Mapping[KeyID, VerifyKey]:
        """Give every key, old ones too, by which something of ours may be signed."""
        current = {key.key_id: key.verify_key for key in self.keys}
        return {old.key_id: old.key for old in self.old} | current

    def _build(self, valid_until: int) -> JsonObject:
        document: JsonObject = {
            "server_name": self.server_name,
            "valid_until_ts": valid_until,
            "verify_keys": {key.key_id: {"key": encode_base64(bytes(key.verify_key))} for key in self.keys},
            "old_verify_keys": {
                old.key_id: {"key": encode_base64(bytes(old.key)), "expired_ts": old.expired_ts}
                for old in self.old
            },
        }
        for key in self.keys:
            document = sign_json(document, self.server_name, key)
        return document
