"""This server's own keys: what it signs with, what it signed with before, and the document that says so.

Source: server-server-api.md, "Publishing Keys"; data/api/server-server/definitions/keys.yaml.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import define, field, frozen

from protocol.canonical_json import encode
from protocol.identifiers import KeyID, ServerName
from protocol.server_keys import OldKey, build_key_document
from protocol.signing import SigningKey, VerifyKey

LIFE = 24 * 3_600_000
"""Milliseconds for which a document is valid when it is made."""
RENEW_BEFORE = LIFE // 2
"""A document with less life than this is made anew."""


@frozen
class Identity:
    """The name and key by which this server speaks."""

    server_name: ServerName
    key: SigningKey


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
            document = build_key_document(self.server_name, self.keys, self.old, self._valid_until)
            self._document = encode(document)
        return self._document

    def verify_keys(self) -> Mapping[KeyID, VerifyKey]:
        """Give every key, old ones too, by which something of ours may be signed."""
        current = {key.key_id: key.verify_key for key in self.keys}
        return {old.key_id: old.verify_key for old in self.old} | current
