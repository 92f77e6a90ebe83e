"""Key documents of other servers: read, and believed only when they prove themselves.

Source: server-server-api.md, "Retrieving server keys"; definitions/keys.yaml.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from protocol.canonical_json import JsonObject, encode
from protocol.errors import BadJson, MatrixError
from protocol.identifiers import KeyID, ServerName
from protocol.signing import InvalidSignature, VerifyKey, decode_base64, verify_json
from storage.server_keys import StoredKey

MAX_KEYS = 64
"""Keys read from one document."""
MAX_AHEAD = 7 * 24 * 3_600_000
"""Milliseconds: however long a document says it is valid, it counts for a week."""
ALGORITHM = "ed25519:"


def read_document(server: ServerName, document: object, now: int) -> list[StoredKey]:
    """Give the keys that `server` states in `document`.

    Raises BadJson for a wrong shape or another server's document, InvalidSignature unless every current
    key has signed. Keys of unknown algorithms are left out.
    """
    if not isinstance(document, dict) or document.get("server_name") != server:
        raise BadJson("the key document is not of the server asked for")
    valid_until = _time(document.get("valid_until_ts"), "valid_until_ts")
    current = _keys(document.get("verify_keys"), "verify_keys")
    if not current:
        raise BadJson("the key document has no key in verify_keys")
    for key_id, (key, _) in current.items():
        verify_json(document, server, key_id, key)
    raw = encode(document)
    old = _keys(document.get("old_verify_keys", {}), "old_verify_keys")
    until = min(valid_until, now + MAX_AHEAD)
    return [
        StoredKey(server, key_id, bytes(key), until, False, now, raw) for key_id, (key, _) in current.items()
    ] + [
        StoredKey(server, key_id, bytes(key), _time(entry.get("expired_ts"), "expired_ts"), True, now, raw)
        for key_id, (key, entry) in old.items()
        if key_id not in current
    ]


def check_notary(notary: ServerName, document: JsonObject, keys: Mapping[KeyID, VerifyKey]) -> None:
    """See that the notary asked has signed `document`; raises InvalidSignature."""
    for key_id, key in keys.items():
        try:
            verify_json(document, notary, key_id, key)
        except InvalidSignature:
            continue
        return
    raise InvalidSignature(f"{notary} has not signed the key document")


def _keys(value: object, name: str) -> dict[KeyID, tuple[VerifyKey, JsonObject]]:
    """Read a map of key IDs to keys, leaving out other algorithms and keys that are none."""
    if not isinstance(value, dict) or len(value) > MAX_KEYS:
        raise BadJson(f"{name} must be an object of at most {MAX_KEYS} keys")
    found: dict[KeyID, tuple[VerifyKey, JsonObject]] = {}
    for key_id, entry in value.items():
        if not key_id.startswith(ALGORITHM):
            continue
        if not isinstance(entry, dict) or not isinstance(entry.get("key"), str):
            raise BadJson(f"{name} has an entry without a key")
        with suppress(MatrixError, ValueError):
            found[KeyID(key_id)] = (VerifyKey(decode_base64(entry["key"])), entry)
    return found


def _time(value: object, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise BadJson(f"{name} must be a time in milliseconds")
    return value
