"""The one door: what other servers send becomes an `Event` here, and nowhere else.

`parse_pdu` judges the format, `signatures_needed` says whose signatures the caller must fetch keys for,
`verify_pdu` checks them and the content hash. A wrong hash is not an error: the event goes on redacted.

Source: server-server-api.md, "Checks performed on receipt of a PDU", 1 to 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import evolve, frozen

from protocol.canonical_json import JsonObject
from protocol.errors import BadJson, EventTooLarge
from protocol.events import Event, EventFields, redacts_of, reference_ids
from protocol.hashes import (
    content_hash,
    essential_bytes,
    event_bytes,
    event_id_from,
    room_id_of_create,
)
from protocol.identifiers import (
    EventID,
    KeyID,
    RoomID,
    ServerName,
    UserID,
    parse_event_id,
    parse_room_id,
    parse_user_id,
    server_of,
)
from protocol.limits import (
    MAX_AUTH_EVENTS,
    MAX_EVENT_BYTES,
    MAX_ID_BYTES,
    MAX_INTEGER,
    MAX_PREV_EVENTS,
    MAX_SIGNATURES,
)
from protocol.redaction import redact
from protocol.room_versions import RoomVersion
from protocol.signing import InvalidSignature, VerifyKey, decode_base64, encode_base64

_BACKFILL_REFERENCES = 1_000
"""Parents tolerated on old events, which may exceed today's limits."""


@frozen(eq=False)
class Pdu:
    """An event of the right format whose signatures and hash are not yet checked."""

    fields: EventFields
    obj: JsonObject
    essential: bytes
    """The bytes that are signed."""

    @property
    def event_id(self) -> EventID:
        """Give the event's ID."""
        return self.fields.event_id


def parse_pdu(obj: object, version: RoomVersion, *, backfill: bool = False) -> Pdu:
    """Judge the format of an event as another server sent it; `unsigned` is left behind.

    With `backfill` the numbers of parents are not held to today's limits.

    Raises:
        BadJson: a field is missing, of a wrong type or out of range; the sentence names it.
        EventTooLarge: the event or an identifier is over its limit.
    """
    if not isinstance(obj, dict):
        raise BadJson("an event must be an object")
    pdu = {key: value for key, value in obj.items() if key != "unsigned"}
    if version.hashed_event_ids:
        pdu.pop("event_id", None)
    _check_types(pdu)
    _check_references(pdu, version, backfill)
    raw = event_bytes(pdu, version)
    if len(raw) > MAX_EVENT_BYTES:
        raise EventTooLarge(f"the event has {len(raw)} bytes; {MAX_EVENT_BYTES} are allowed")
    essential = essential_bytes(pdu, version)
    event_id = (
        event_id_from(essential, version) if version.hashed_event_ids else parse_event_id(_text(pdu, "event_id"))
    )
    return Pdu(_fields(pdu, version, event_id), pdu, essential)


def _check_types(pdu: JsonObject) -> None:
    for name in ("type", "sender"):
        _text(pdu, name)
    if "state_key" in pdu:
        _text(pdu, "state_key")
    for name in ("content", "hashes", "signatures"):
        if not isinstance(pdu.get(name), dict):
            raise BadJson(f"{name}: must be an object")
    for name in ("depth", "origin_server_ts"):
        number = pdu.get(name)
        if type(number) is not int:
            raise BadJson(f"{name}: must be an integer")
        if not 0 <= number <= MAX_INTEGER:
            raise BadJson(f"{name}: must lie between 0 and {MAX_INTEGER}")
    if not isinstance(pdu["hashes"].get("sha256"), str):
        raise BadJson("hashes.sha256: must be a string")
    _check_signatures(pdu["signatures"])


def _check_signatures(signatures: JsonObject) -> None:
    count = 0
    for by_key in signatures.values():
        if not isinstance(by_key, dict):
            raise BadJson("signatures: must be objects by server")
        count += len(by_key)
    if count > MAX_SIGNATURES or len(signatures) > MAX_SIGNATURES:
        raise BadJson(f"signatures: more than {MAX_SIGNATURES}")


def _check_references(pdu: JsonObject, version: RoomVersion, backfill: bool) -> None:
    limits = (("prev_events", MAX_PREV_EVENTS), ("auth_events", MAX_AUTH_EVENTS))
    for name, limit in limits:
        found = pdu.get(name)
        if not isinstance(found, list):
            raise BadJson(f"{name}: must be a list")
        if len(found) > (_BACKFILL_REFERENCES if backfill else limit):
            raise BadJson(f"{name}: more than {limit}")
        for item in found:
            _check_reference(item, name, version)


def _check_reference(item: object, name: str, version: RoomVersion) -> None:
    if version.pairs_in_references:
        if not isinstance(item, list) or len(item) != 2:
            raise BadJson(f"{name}: must hold pairs of event ID and hashes")
        item = item[0]
    if not isinstance(item, str) or not item.startswith("$") or len(item) > MAX_ID_BYTES:
        raise BadJson(f"{name}: must hold event IDs")


def _text(pdu: JsonObject, name: str) -> str:
    value = pdu.get(name)
    if not isinstance(value, str):
        raise BadJson(f"{name}: must be a string")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise BadJson(f"{name}: has lone surrogates") from None
    if size > MAX_ID_BYTES:
        raise EventTooLarge(f"{name}: longer than {MAX_ID_BYTES} bytes")
    return value


def _fields(pdu: JsonObject, version: RoomVersion, event_id: EventID) -> EventFields:
    return EventFields(
        event_id,
        _room_id(pdu, version, event_id),
        version,
        pdu["type"],
        UserID(parse_user_id(pdu["sender"])),
        pdu.get("state_key"),
        pdu["origin_server_ts"],
        pdu["depth"],
        reference_ids(pdu["prev_events"], version),
        reference_ids(pdu["auth_events"], version),
        redacts_of(pdu, version),
    )


def _room_id(pdu: JsonObject, version: RoomVersion, event_id: EventID) -> RoomID:
    is_create = pdu["type"] == "m.room.create" and pdu.get("state_key") == ""
    if version.room_id_is_create_hash and is_create:
        if "room_id" in pdu:
            raise BadJson("room_id: a create event of this room version has none")
        return room_id_of_create(event_id)
    return parse_room_id(_text(pdu, "room_id"))


def signatures_needed(pdu: Pdu) -> frozenset[ServerName]:
    """Tell which servers must have signed the event.

    Source: server-server-api.md, "Validating hashes and signatures on received events"; rooms/v8.md.
    """
    fields, content = pdu.fields, pdu.obj["content"]
    is_member = fields.type == "m.room.member"
    membership = content.get("membership") if is_member else None
    needed = set()
    if not (membership == "invite" and "third_party_invite" in content):
        needed.add(server_of(fields.sender))
    if not fields.version.hashed_event_ids and ":" in fields.event_id:
        needed.add(server_of(fields.event_id))
    authorising = content.get("join_authorised_via_users_server")
    if fields.version.restricted_join and membership == "join" and authorising is not None:
        needed.add(_server_of_user(authorising))
    return frozenset(needed)


def _server_of_user(user_id: Any) -> ServerName:
    return server_of(parse_user_id(user_id))


def keys_named(pdu: Pdu) -> frozenset[tuple[ServerName, KeyID]]:
    """Give the keys by which the servers needed say they signed, to be fetched."""
    signatures = pdu.obj["signatures"]
    return frozenset(
        (server, KeyID(key_id))
        for server in signatures_needed(pdu)
        for key_id in signatures.get(server, ())
        if key_id.startswith("ed25519:")
    )


def verify_pdu(pdu: Pdu, keys: Mapping[tuple[ServerName, KeyID], VerifyKey]) -> Event:
    """Check signatures and content hash, and give the event; with a wrong hash, its redacted form.

    `keys` holds those that may be believed for this event; a signature by another is passed over.

    Raises:
        InvalidSignature: a server that must have signed has no good signature.
    """
    for server in signatures_needed(pdu):
        _verify_server(pdu, server, keys)
    fields, obj = pdu.fields, pdu.obj
    if not _hash_matches(pdu):
        obj = redact(obj, fields.version)
        fields = evolve(fields, hash_mismatch=True, redacts=redacts_of(obj, fields.version))
    return Event(fields, event_bytes(obj, fields.version), obj["content"])


def _verify_server(
    pdu: Pdu, server: ServerName, keys: Mapping[tuple[ServerName, KeyID], VerifyKey]
) -> None:
    refusal = InvalidSignature(f"{pdu.event_id}: no signature of {server} by a key that is valid for it")
    for key_id, text in pdu.obj["signatures"].get(server, {}).items():
        key = keys.get((server, key_id))
        if key is None or not isinstance(text, str):
            continue
        try:
            key.verify(pdu.essential, decode_base64(text))
        except (ValueError, InvalidSignature):
            refusal = InvalidSignature(f"{pdu.event_id}: the signature of {server} by {key_id} is wrong")
        else:
            return
    raise refusal


def _hash_matches(pdu: Pdu) -> bool:
    claimed = pdu.obj["hashes"]["sha256"].rstrip("=")
    return claimed == encode_base64(content_hash(pdu.obj, pdu.fields.version))
