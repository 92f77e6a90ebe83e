"""Key documents: how a server tells its keys, and for which use each key counts.

Pure: who asks whom, and what is remembered, is the business of the federation's key ring.

Source: server-server-api.md, "Retrieving server keys"; data/api/server-server/definitions/keys.yaml;
rooms/v5.md, "Signing key validity period".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import field, frozen

from protocol.canonical_json import JsonObject, JsonValue
from protocol.errors import BadJson, InvalidParam
from protocol.identifiers import KeyID, ServerName, parse_key_id
from protocol.limits import MAX_DOCUMENT_KEYS, MAX_INTEGER, MAX_KEY_VALIDITY
from protocol.room_versions import RoomVersion
from protocol.signing import (
    ALGORITHM,
    InvalidSignature,
    SigningKey,
    VerifyKey,
    decode_base64,
    encode_base64,
    sign_json,
    verify_json,
)


@frozen
class OldKey:
    """A key of ours that signs no longer: its public half, and the last millisecond for which it counts."""

    key_id: KeyID
    verify_key: VerifyKey
    expired_ts: int


@frozen
class ServerKey:
    """A key of a server, as a document of that server states it."""

    key_id: KeyID
    verify_key: VerifyKey
    valid_until: int
    """Milliseconds: the last moment for which the key is known to count."""
    expired: bool = False
    """The server signs with it no longer; then `valid_until` is when it stopped."""

    def counts_for_event(self, version: RoomVersion, origin_server_ts: int) -> bool:
        """Tell whether a signature by this key counts on an event sent at that time.

        Older room versions ignore validity altogether: there an old key is as good as a new one.
        """
        return not version.enforce_key_validity or origin_server_ts <= self.valid_until

    def counts_for_request(self, now: int) -> bool:
        """Tell whether a request signed with this key is to be believed: only if the key is in use now."""
        return not self.expired and now <= self.valid_until


@frozen
class KeyDocument:
    """A key document that has proved itself: every key it says is in use has signed it."""

    server: ServerName
    keys: Mapping[KeyID, ServerKey]
    """Keys in use, and old ones, of the algorithm we know."""
    json: JsonObject = field(repr=False)
    """As it came; a notary passes it on like this."""


def read_key_document(document: object, server: ServerName, now: int) -> KeyDocument:
    """Read the document in which `server` states its keys; `now` is when it was fetched.

    However long a document claims to be valid, it is believed for a week. Keys of algorithms we do not know
    are passed over; old keys too that bear the ID of a key in use.

    Raises:
        BadJson: a wrong shape, or another server's document.
        InvalidSignature: a key in use has not signed it.
    """
    if not isinstance(document, dict) or document.get("server_name") != server:
        raise BadJson(f"The key document is not of {server}")
    claimed = _time(document.get("valid_until_ts"), "valid_until_ts")
    valid_until = min(claimed, now + MAX_KEY_VALIDITY)
    in_use = _read_keys(document.get("verify_keys"), "verify_keys")
    if not in_use:
        raise BadJson("verify_keys must hold a key of a known algorithm")
    for key_id, (verify_key, _) in in_use.items():
        verify_json(document, server, key_id, verify_key)
    old = _read_keys(document.get("old_verify_keys", {}), "old_verify_keys")
    keys = {
        key_id: ServerKey(key_id, key, _time(entry.get("expired_ts"), "expired_ts"), expired=True)
        for key_id, (key, entry) in old.items()
    }
    keys |= {key_id: ServerKey(key_id, key, valid_until) for key_id, (key, _) in in_use.items()}
    return KeyDocument(server, keys, document)


def check_notary(document: JsonObject, notary: ServerName, keys: Mapping[KeyID, VerifyKey]) -> None:
    """See that the notary who passed a document on has signed it with a key of `keys`.

    The document's own server must have signed it too: `read_key_document` sees to that.
    Raises InvalidSignature.
    """
    signatures = document.get("signatures")
    by_notary = signatures.get(notary) if isinstance(signatures, dict) else None
    known = [key_id for key_id in keys if isinstance(by_notary, dict) and key_id in by_notary]
    if not known:
        raise InvalidSignature(f"{notary} has not signed the key document by a known key")
    for key_id in known:
        verify_json(document, notary, key_id, keys[key_id])


def build_key_document(
    server: ServerName, keys: Sequence[SigningKey], old_keys: Sequence[OldKey], valid_until: int
) -> JsonObject:
    """Make the document in which this server states its keys, signed by every key in use."""
    document: JsonObject = {
        "server_name": server,
        "valid_until_ts": valid_until,
        "verify_keys": {key.key_id: {"key": encode_base64(bytes(key.verify_key))} for key in keys},
        "old_verify_keys": {
            key.key_id: {"key": encode_base64(bytes(key.verify_key)), "expired_ts": key.expired_ts}
            for key in old_keys
        },
    }
    for key in keys:
        document = sign_json(document, server, key)
    return document


def countersign(document: KeyDocument, notary: ServerName, key: SigningKey) -> JsonObject:
    """Give a proved document with this server's signature as a notary added, and nothing else changed."""
    return sign_json(document.json, notary, key)


def _read_keys(value: JsonValue, name: str) -> dict[KeyID, tuple[VerifyKey, JsonObject]]:
    """Read keys by their IDs, with the objects they stand in; raises BadJson."""
    if not isinstance(value, dict) or len(value) > MAX_DOCUMENT_KEYS:
        raise BadJson(f"{name} must be an object of at most {MAX_DOCUMENT_KEYS} keys")
    found: dict[KeyID, tuple[VerifyKey, JsonObject]] = {}
    for text, entry in value.items():
        if not text.startswith(f"{ALGORITHM}:"):
            continue
        try:
            key_id = parse_key_id(text)
        except InvalidParam as error:
            raise BadJson(f"{name}: {error.error}") from None
        if not isinstance(entry, dict):
            raise BadJson(f"{name} must hold an object for each key")
        found[key_id] = (VerifyKey(decode_base64(entry.get("key"))), entry)
    return found


def _time(value: JsonValue, name: str) -> int:
    if type(value) is not int or not 0 <= value <= MAX_INTEGER:
        raise BadJson(f"{name} must be a time in milliseconds")
    return value
