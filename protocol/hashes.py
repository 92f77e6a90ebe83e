"""Content hashes, reference hashes, and the IDs that are made of them.

PDUs given here have had their numbers checked, by `events.build_event` or `checks.parse_pdu`.

Source: server-server-api.md, "Calculating the content hash for an event" and "Calculating the reference
hash for an event"; rooms/v3.md, v4.md and v12.md, "Event IDs".
"""

from __future__ import annotations

from hashlib import sha256

from protocol.canonical_json import JsonObject, JsonValue, encode_checked, encode_lax
from protocol.identifiers import EventID, RoomID
from protocol.redaction import redact
from protocol.room_versions import EventIdFormat, RoomVersion
from protocol.signing import encode_base64, encode_base64_urlsafe

_NOT_IN_CONTENT_HASH = frozenset({"unsigned", "signatures", "hashes"})


def encode_pdu(pdu: JsonValue, version: RoomVersion) -> bytes:
    """Write the canonical JSON of a PDU, or of a part of one, as its room version has it."""
    return encode_checked(pdu) if version.strict_json else encode_lax(pdu)


def content_hash(pdu: JsonObject, version: RoomVersion) -> bytes:
    """Give the SHA-256 of the whole event as its sender wrote it."""
    covered = {key: value for key, value in pdu.items() if key not in _NOT_IN_CONTENT_HASH}
    return sha256(encode_pdu(covered, version)).digest()


def essential_bytes(pdu: JsonObject, version: RoomVersion) -> bytes:
    """Give the canonical JSON of the redacted PDU without its signatures: what is signed and referred to."""
    kept = redact(pdu, version)
    kept.pop("signatures", None)
    return encode_pdu(kept, version)


def reference_hash(pdu: JsonObject, version: RoomVersion) -> bytes:
    """Give the SHA-256 of the essential parts of an event, its `hashes` among them."""
    return sha256(essential_bytes(pdu, version)).digest()


def event_id_of(pdu: JsonObject, version: RoomVersion) -> EventID:
    """Give the ID of an event: the one it names (versions 1 and 2), or the one made of its hash."""
    if not version.hashed_event_ids:
        return EventID(pdu["event_id"])
    return event_id_of_hash(reference_hash(pdu, version), version)


def event_id_of_hash(digest: bytes, version: RoomVersion) -> EventID:
    """Give the event ID that is made of a reference hash."""
    if version.event_id_format is EventIdFormat.HASH_STANDARD:
        return EventID("$" + encode_base64(digest))
    return EventID("$" + encode_base64_urlsafe(digest))


def room_id_of_create(pdu: JsonObject, version: RoomVersion) -> RoomID:
    """Give the ID of the room that a create event opens: its own in another guise, or the one it names."""
    if version.room_id_is_create_hash:
        return room_id_of_event_id(event_id_of(pdu, version))
    return RoomID(pdu["room_id"])


def room_id_of_event_id(create_id: EventID) -> RoomID:
    """Give the room ID that the ID of a create event makes, from room version 12 on."""
    return RoomID("!" + create_id[1:])


def event_id_of_room_id(room_id: RoomID) -> EventID:
    """Give the ID of the create event of a room, from room version 12 on."""
    return EventID("$" + room_id[1:])
