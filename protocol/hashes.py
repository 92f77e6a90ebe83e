"""Content hashes, reference hashes, and the IDs made of them.

Source: server-server-api.md, "Signing Events"; rooms/v3.md and v4.md, "Event IDs"; rooms/v12.md, "Room IDs".
"""

from __future__ import annotations

import hashlib

from protocol.canonical_json import JsonObject, encode, encode_lax
from protocol.errors import BadJson
from protocol.identifiers import EventID, RoomID
from protocol.redaction import redact
from protocol.room_versions import EventIdFormat, RoomVersion
from protocol.signing import encode_base64, encode_base64_urlsafe

_UNHASHED = frozenset({"unsigned", "signatures", "hashes"})
_UNREFERENCED = frozenset({"unsigned", "signatures"})


def event_bytes(pdu: JsonObject, version: RoomVersion) -> bytes:
    """Give the canonical JSON of an event, as strict as its room version is.

    Raises:
        BadJson: the event cannot be written so.
    """
    return encode(pdu) if version.strict_json else encode_lax(pdu)


def content_hash(pdu: JsonObject, version: RoomVersion) -> bytes:
    """Give the SHA-256 of the whole event without `unsigned`, `signatures` and `hashes`."""
    bare = {key: value for key, value in pdu.items() if key not in _UNHASHED}
    return hashlib.sha256(event_bytes(bare, version)).digest()


def essential_bytes(pdu: JsonObject, version: RoomVersion) -> bytes:
    """Give what is signed, and hashed for reference: the redacted event without `signatures` and `unsigned`."""
    bare = redact(pdu, version)
    bare.pop("signatures", None)
    if version.hashed_event_ids:
        bare.pop("event_id", None)
    return event_bytes(bare, version)


def reference_hash(pdu: JsonObject, version: RoomVersion) -> bytes:
    """Give the SHA-256 by which other events refer to this one."""
    return hashlib.sha256(essential_bytes(pdu, version)).digest()


def event_id_from(essential: bytes, version: RoomVersion) -> EventID:
    """Give the event ID that the essential bytes of an event make, for versions with hashed IDs."""
    digest = hashlib.sha256(essential).digest()
    urlsafe = version.event_id_format is EventIdFormat.HASH_URLSAFE
    return EventID("$" + (encode_base64_urlsafe(digest) if urlsafe else encode_base64(digest)))


def event_id_of(pdu: JsonObject, version: RoomVersion) -> EventID:
    """Give the ID of an event.

    Raises:
        BadJson: it should bear its ID, and does not.
    """
    if version.hashed_event_ids:
        return event_id_from(essential_bytes(pdu, version), version)
    event_id = pdu.get("event_id")
    if not isinstance(event_id, str):
        raise BadJson("event_id: missing")
    return EventID(event_id)


def room_id_of_create(event_id: EventID) -> RoomID:
    """Give the ID of the room that a create event makes, in versions where it is its hash."""
    return RoomID("!" + event_id[1:])
