"""The format of PDUs: which fields, of which types, within which bounds.

Only `protocol.checks` asks; what it lets in, nobody need look at again.

Source: rooms/v1.md, v3.md, v6.md, v11.md and v12.md, "Event format"; client-server-api/_index.md, "Size
limits".
"""

from __future__ import annotations

from protocol.canonical_json import JsonObject, JsonValue
from protocol.errors import BadJson, EventTooLarge, InvalidParam
from protocol.identifiers import is_hash_room_id, parse_event_id, parse_room_id, parse_user_id, server_of
from protocol.limits import (
    MAX_AUTH_EVENTS,
    MAX_ID_BYTES,
    MAX_INTEGER,
    MAX_LAX_INTEGER,
    MAX_PREV_EVENTS,
    MAX_SIGNATURES,
)
from protocol.room_versions import RoomVersion
from protocol.signing import decode_base64_lax

_MAX_OLD_REFERENCES = 1000
"""Parents of an event of the past, when there was no bound to them."""
_IDENTIFIERS = ("sender", "room_id", "event_id", "type", "state_key")


def check_format(pdu: JsonObject, version: RoomVersion, *, backfill: bool) -> None:
    """See that a PDU has the format of its room version; raises BadJson or EventTooLarge."""
    _check_lengths(pdu, version)
    _check_sender(pdu)
    _check_room_id(pdu, version)
    _check_event_id(pdu, version)
    _check_times(pdu, version)
    for name, bound in (("prev_events", MAX_PREV_EVENTS), ("auth_events", MAX_AUTH_EVENTS)):
        _check_references(pdu.get(name), name, version, _MAX_OLD_REFERENCES if backfill else bound)
    if not isinstance(pdu.get("content"), dict):
        raise BadJson("content must be an object")
    _check_hashes(pdu.get("hashes"))
    _check_signatures(pdu.get("signatures"))


def is_too_long(pdu: JsonObject) -> bool:
    """Tell whether an identifier has more than 255 bytes, as some of 255 code points had in old rooms.

    That none has more code points is known.
    """
    for name in _IDENTIFIERS:
        text = pdu.get(name)
        if text is not None and not text.isascii() and len(text.encode()) > MAX_ID_BYTES:
            return True
    return False


def _check_lengths(pdu: JsonObject, version: RoomVersion) -> None:
    """See that identifiers are strings and not too long, in bytes or, in older rooms, in code points."""
    for name in _IDENTIFIERS:
        text = pdu.get(name)
        if text is None and name not in pdu and name not in ("sender", "type"):
            continue
        if not isinstance(text, str):
            raise BadJson(f"{name} must be a string")
        if len(text) > MAX_ID_BYTES:
            raise EventTooLarge(f"{name} may not be longer than {MAX_ID_BYTES} bytes")
    if version.strict_byte_limits and is_too_long(pdu):
        raise EventTooLarge(f"An identifier is longer than {MAX_ID_BYTES} bytes")


def _check_sender(pdu: JsonObject) -> None:
    sender = pdu["sender"]
    try:
        parse_user_id(sender)
    except InvalidParam as error:
        if _is_long_user_id(sender):
            return
        raise BadJson(f"sender: {error.error}") from None


def _is_long_user_id(text: str) -> bool:
    """Tell whether a user ID has too many bytes and no other fault; its length is judged elsewhere."""
    localpart, _, server = text.partition(":")
    if text.isascii() or not localpart.startswith("@") or "\0" in localpart:
        return False
    try:
        parse_user_id(f"@:{server}")
    except InvalidParam:
        return False
    return True


def _check_room_id(pdu: JsonObject, version: RoomVersion) -> None:
    """See that the room ID is one of its room version; a create event may have to do without one."""
    room_id = pdu.get("room_id")
    if version.room_id_is_create_hash:
        is_create = pdu["type"] == "m.room.create" and pdu.get("state_key") == ""
        if is_create and room_id is not None:
            raise BadJson("room_id must be absent from the create event of this room version")
        if not is_create and (room_id is None or not is_hash_room_id(room_id)):
            raise BadJson("room_id must be the hash of a create event")
        return
    try:
        parse_room_id(room_id)
    except InvalidParam as error:
        if not (isinstance(room_id, str) and _is_long_user_id("@" + room_id[1:]) and room_id[0] == "!"):
            raise BadJson(f"room_id: {error.error}") from None
    if ":" not in str(room_id):
        raise BadJson("room_id must name a server in this room version")


def _check_event_id(pdu: JsonObject, version: RoomVersion) -> None:
    """See that the event names its own ID, with a server in it, just where its room version wants that."""
    event_id = pdu.get("event_id")
    if version.hashed_event_ids:
        if event_id is not None:
            raise BadJson("event_id must be absent in this room version")
        return
    if not isinstance(event_id, str) or not event_id.startswith("$") or not server_of(event_id):
        raise BadJson("event_id must be an event ID that names a server")


def _check_times(pdu: JsonObject, version: RoomVersion) -> None:
    bound = MAX_INTEGER if version.strict_json else MAX_LAX_INTEGER
    for name in ("origin_server_ts", "depth"):
        number = pdu.get(name)
        if type(number) is not int:
            raise BadJson(f"{name} must be an integer")
        if not (0 if name == "depth" else -bound) <= number <= bound:
            raise BadJson(f"{name} is out of range")


def _check_references(references: JsonValue, name: str, version: RoomVersion, bound: int) -> None:
    """See that `prev_events` or `auth_events` lists event IDs as the room version has them."""
    if not isinstance(references, list):
        raise BadJson(f"{name} must be a list")
    if len(references) > bound:
        raise BadJson(f"{name} may not name more than {bound} events")
    for reference in references:
        if version.pairs_in_references:
            if not isinstance(reference, list) or not reference:
                raise BadJson(f"{name} must hold pairs of event ID and hashes")
            reference = reference[0]
        try:
            parse_event_id(reference)
        except InvalidParam as error:
            raise BadJson(f"{name}: {error.error}") from None


def _check_hashes(hashes: JsonValue) -> None:
    if not isinstance(hashes, dict):
        raise BadJson("hashes must be an object")
    decode_base64_lax(hashes.get("sha256"))  # a hash of another length is a wrong one


def _check_signatures(signatures: JsonValue) -> None:
    """See that signatures are strings by server and key, and no more than anybody needs (security: K9)."""
    if not isinstance(signatures, dict):
        raise BadJson("signatures must be an object")
    if len(signatures) > MAX_SIGNATURES:
        raise BadJson(f"The event bears more than {MAX_SIGNATURES} signatures")
    count = 0
    for of_server in signatures.values():
        if not isinstance(of_server, dict):
            raise BadJson("signatures must hold an object for each server")
        count += len(of_server)
        for text in of_server.values():
            if not isinstance(text, str):
                raise BadJson("A signature must be a string")
    if count > MAX_SIGNATURES:
        raise BadJson(f"The event bears more than {MAX_SIGNATURES} signatures")
