"""The one door: what another server sends becomes an `Event` here, and nowhere else.

`parse_pdu` judges format and size, `signatures_needed` and `keys_named` tell whose keys to fetch, and
`verify_pdu` judges signatures and the content hash. Authorisation comes after, elsewhere.

Source: server-server-api.md, "Checks performed on receipt of a PDU" (steps 1 to 3) and "Validating hashes
and signatures on received events"; rooms/v1.md to v12.md, "Event format".
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256

from attrs import evolve, field, frozen

from protocol.canonical_json import JsonObject, JsonValue, check_numbers, decode, decode_lax
from protocol.errors import BadJson, EventTooLarge, InvalidParam, MatrixError
from protocol.events import Event, event_of
from protocol.hashes import content_hash, encode_pdu, essential_bytes, event_id_of_hash
from protocol.identifiers import EventID, KeyID, RoomID, ServerName, parse_user_id, server_of
from protocol.limits import MAX_EVENT_BYTES, MAX_PDU_DEPTH
from protocol.pdu_format import check_format, is_too_long
from protocol.policy import POLICY_KEY_ID
from protocol.redaction import redact
from protocol.room_versions import RoomVersion
from protocol.signing import (
    ALGORITHM,
    SIGNATURE_BYTES,
    InvalidSignature,
    VerifyKey,
    decode_base64_lax,
    encode_base64,
)

_MAX_STRIPPED_STATE = 100
"""Events kept of `invite_room_state` or `knock_room_state`."""


@frozen(eq=False)
class Pdu:
    """A PDU of the right format and size, as yet believed by nobody."""

    event: Event
    """The event it will be if signatures and hash are right."""
    json: JsonObject = field(repr=False)
    """The PDU without `unsigned`."""
    essential: bytes = field(repr=False)
    """What must be signed."""
    unsigned: JsonObject = field(repr=False)
    """What is known and harmless of `unsigned`: see `safe_unsigned`."""

    @property
    def event_id(self) -> EventID:
        """Give the event's ID, which holds whether or not the rest is believed."""
        return self.event.event_id

    @property
    def room_id(self) -> RoomID:
        """Give the ID of the room it claims to be in; of a version 12 create event, the room it makes."""
        return self.event.room_id


def parse_pdu(obj: object, version: RoomVersion, *, backfill: bool = False) -> Pdu:
    """Judge the format and the size of a PDU, given as JSON or as the bytes of JSON.

    `backfill` lets events pass that have more parents than is allowed today.

    Raises:
        NotJson: the bytes are not JSON.
        BadJson: a field is missing, of a wrong type or out of range.
        EventTooLarge: the event or one of its identifiers is too long.
    """
    pdu = _read(obj, version)
    unsigned = pdu.pop("unsigned", None)
    check_format(pdu, version, backfill=backfill)
    raw = encode_pdu(pdu, version)
    if len(raw) > MAX_EVENT_BYTES:
        raise EventTooLarge(f"The event has {len(raw)} bytes; it may have {MAX_EVENT_BYTES}")
    essential = essential_bytes(pdu, version)
    if version.hashed_event_ids:
        event_id = event_id_of_hash(sha256(essential).digest(), version)
    else:
        event_id = EventID(pdu["event_id"])
    event = event_of(pdu, raw, version, event_id, content=pdu["content"])
    if not version.strict_byte_limits and is_too_long(pdu):
        event = evolve(event, too_long=True)
    return Pdu(event, pdu, essential, safe_unsigned(unsigned))


def _read(obj: object, version: RoomVersion) -> JsonObject:
    """Give a PDU as an object of our own whose numbers fit the room version; raises BadJson or NotJson."""
    if isinstance(obj, bytes):
        read = decode if version.strict_json else decode_lax
        obj = read(obj, max_depth=MAX_PDU_DEPTH)
    elif version.strict_json:
        check_numbers(obj)
    if not isinstance(obj, dict):
        raise BadJson("An event must be an object")
    return dict(obj)


def safe_unsigned(unsigned: JsonValue) -> JsonObject:
    """Give what of another server's `unsigned` is known and harmless: an age, and stripped state.

    Whatever else it may hold (redactions, former content, relations) would be taken for our own word.
    """
    safe: JsonObject = {}
    if not isinstance(unsigned, dict):
        return safe
    age = unsigned.get("age")
    if type(age) is int and age >= 0:
        safe["age"] = age
    for name in ("invite_room_state", "knock_room_state"):
        events = unsigned.get(name)
        if isinstance(events, list):
            safe[name] = [event for event in events[:_MAX_STRIPPED_STATE] if isinstance(event, dict)]
    return safe


def signatures_needed(pdu: Pdu) -> frozenset[ServerName]:
    """Tell the servers without whose signatures the event is refused.

    Raises BadJson if the authorising user of a restricted join is no user ID.
    """
    event = pdu.event
    version, content = event.version, pdu.json["content"]
    is_member = event.type == "m.room.member"
    membership = content.get("membership") if is_member else None
    needed: set[ServerName] = set()
    if not (membership == "invite" and "third_party_invite" in content):
        needed.add(server_of(event.sender))
    if not version.hashed_event_ids:
        needed.add(server_of(event.event_id))
    authorising = content.get("join_authorised_via_users_server")
    if version.restricted_join and membership == "join" and authorising is not None:
        needed.add(_server_of_user(authorising))
    return frozenset(needed)


def _server_of_user(user_id: JsonValue) -> ServerName:
    try:
        return server_of(parse_user_id(user_id))
    except InvalidParam:
        raise BadJson("content.join_authorised_via_users_server must be a user ID") from None


def keys_named(pdu: Pdu) -> frozenset[tuple[ServerName, KeyID]]:
    """Tell the keys by which the servers needed say they signed; others' signatures are of no interest.

    A policy server's key speaks for no server: it is published nowhere, and judged by the room's state.
    """
    signatures = pdu.json["signatures"]
    return frozenset(
        (server, KeyID(key_id))
        for server in signatures_needed(pdu)
        for key_id in signatures.get(server, ())
        if key_id.startswith(f"{ALGORITHM}:") and key_id != POLICY_KEY_ID
    )


def verify_pdu(pdu: Pdu, keys: Mapping[tuple[ServerName, KeyID], VerifyKey]) -> Event:
    """Give the event, once every server needed has signed it by keys that count for it.

    `keys` holds those, and those alone, that were valid as the room version asks; signatures by others are
    passed over. Where the content hash is wrong, the event given is the redacted one, with
    `hash_mismatch` set.

    Raises InvalidSignature if a server's signature is missing or wrong.
    """
    for server in signatures_needed(pdu):
        _check_server(pdu, server, keys)
    if _hash_fits(pdu):
        return pdu.event
    version = pdu.event.version
    return evolve(pdu.event.with_pdu(redact(pdu.json, version)), hash_mismatch=True)


def _check_server(pdu: Pdu, server: ServerName, keys: Mapping[tuple[ServerName, KeyID], VerifyKey]) -> None:
    """See that a server signed, and rightly wherever its key is known; raises InvalidSignature."""
    found = False
    for key_id, text in pdu.json["signatures"].get(server, {}).items():
        key = keys.get((server, key_id))
        if key is None or key_id == POLICY_KEY_ID:
            continue
        try:
            signature = decode_base64_lax(text)
        except MatrixError:
            raise InvalidSignature(f"The signature of {server} is not base64") from None
        if len(signature) != SIGNATURE_BYTES:
            raise InvalidSignature(f"The signature of {server} has not {SIGNATURE_BYTES} bytes")
        key.verify(signature, pdu.essential)
        found = True
    if not found:
        raise InvalidSignature(f"{server} has not signed the event by a key that counts")


def _hash_fits(pdu: Pdu) -> bool:
    """Tell whether the content hash is that of the event as it came."""
    stated: str = pdu.json["hashes"]["sha256"]
    digest = content_hash(pdu.json, pdu.event.version)
    return stated == encode_base64(digest) or decode_base64_lax(stated) == digest
