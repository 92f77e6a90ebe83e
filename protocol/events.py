"""Events: immutable, and one with the bytes in which they travel.

`build_event` makes events of this server from drafts, which is the only way to this server's signature on
an event. Events of others come through `protocol.checks`; `load_event` reads back what was stored.

Source: rooms/v1.md, v3.md, v11.md and v12.md, "Event format"; server-server-api.md, "Signing Events".
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from sys import intern
from typing import Any, cast

import msgspec
from attrs import evolve, field, frozen

from protocol.canonical_json import JsonObject, check_numbers, decode_own
from protocol.errors import EventTooLarge
from protocol.hashes import content_hash, encode_pdu, essential_bytes, event_id_of_hash, room_id_of_event_id
from protocol.identifiers import EventID, RoomID, ServerName, StateKey, UserID
from protocol.limits import MAX_DEPTH, MAX_EVENT_BYTES, MAX_ID_BYTES, MAX_INTEGER
from protocol.room_versions import RoomVersion
from protocol.signing import SigningKey, add_signature, encode_base64, encode_base64_urlsafe

_set = object.__setattr__


@frozen(eq=False)
class Event:
    """An event of a room; two are equal if they have one ID.

    `raw` is the canonical JSON of the PDU with hashes and signatures and without `unsigned`: what goes out
    over federation. All else is read from it once.
    """

    event_id: EventID
    room_id: RoomID
    version: RoomVersion = field(repr=False)
    type: str
    sender: UserID
    state_key: str | None
    origin_server_ts: int = field(repr=False)
    depth: int = field(repr=False)
    """As its sender claims, but at most `MAX_DEPTH`; nothing may rest on it."""
    prev_events: tuple[EventID, ...] = field(repr=False)
    auth_events: tuple[EventID, ...] = field(repr=False)
    redacts: EventID | None = field(repr=False)
    """What a redaction redacts, from wherever its room version names it."""
    raw: bytes = field(repr=False)
    hash_mismatch: bool = field(default=False, repr=False)
    """The content hash did not fit, so this is the redacted event."""
    too_long: bool = field(default=False, repr=False)
    """An identifier has more than 255 bytes but not more code points: to be kept as rejected."""
    _content: JsonObject | None = field(default=None, init=False, repr=False)

    @property
    def content(self) -> Mapping[str, Any]:
        """Give the content: read from `raw` when first asked for, never to be changed."""
        content = self._content
        if content is None:
            content = _CONTENT.decode(self.raw).content
            _set(self, "_content", content)
        return content

    @property
    def pdu(self) -> JsonObject:
        """Give the PDU as JSON, freshly read: the caller may change it."""
        return cast(JsonObject, decode_own(self.raw))

    @property
    def is_state(self) -> bool:
        """Tell whether this is a state event."""
        return self.state_key is not None

    @property
    def key(self) -> StateKey:
        """Give the place of a state event in the state; raises ValueError for any other event."""
        if self.state_key is None:
            raise ValueError(f"{self.event_id} is not a state event")
        return (self.type, self.state_key)

    @property
    def membership(self) -> str | None:
        """Give the membership that an `m.room.member` event states, if it is one and states one."""
        if self.type != "m.room.member" or self.state_key is None:
            return None
        membership = self.content.get("membership")
        return membership if isinstance(membership, str) else None

    def with_pdu(self, pdu: JsonObject) -> Event:
        """Give the same event with other JSON, such as its redacted form."""
        return evolve(self, raw=encode_pdu(pdu, self.version), redacts=_redacts(pdu, self.version))

    def __eq__(self, other: object) -> bool:
        """Compare by event ID."""
        return self is other or (isinstance(other, Event) and self.event_id == other.event_id)

    def __hash__(self) -> int:
        """Hash the event ID."""
        return hash(self.event_id)


class _Content(msgspec.Struct, frozen=True):
    content: dict[str, Any]


class _Envelope(msgspec.Struct, frozen=True):
    """What `load_event` reads; reference lists may hold pairs of ID and hash (versions 1 and 2)."""

    type: str
    sender: str
    origin_server_ts: int
    depth: int
    prev_events: list[Any]
    auth_events: list[Any]
    state_key: str | None = None
    redacts: Any = None


_CONTENT = msgspec.json.Decoder(_Content)
_ENVELOPE = msgspec.json.Decoder(_Envelope)


def load_event(raw: bytes, version: RoomVersion, *, event_id: EventID, room_id: RoomID) -> Event:
    """Read an event back from a row of our own database; nothing is checked again."""
    envelope = _ENVELOPE.decode(raw)
    redacts = None
    if envelope.type == "m.room.redaction":
        redacts = _redacts(decode_own(raw), version)
    return Event(
        event_id,
        room_id,
        version,
        intern(envelope.type),
        UserID(intern(envelope.sender)),
        envelope.state_key,
        clamp(envelope.origin_server_ts),
        clamp(envelope.depth),
        referenced_ids(envelope.prev_events, version),
        referenced_ids(envelope.auth_events, version),
        redacts,
        raw,
    )


def clamp(number: int) -> int:
    """Bring a time or depth of an old room into the range of integers that all parts can hold."""
    if -MAX_INTEGER <= number <= MAX_INTEGER:
        return number
    return MAX_INTEGER if number > 0 else -MAX_INTEGER


def referenced_ids(references: list[Any], version: RoomVersion) -> tuple[EventID, ...]:
    """Give the event IDs of `prev_events` or `auth_events`, which in versions 1 and 2 stand beside hashes."""
    if version.pairs_in_references:
        return tuple([reference[0] for reference in references])
    return tuple(references)


def _redacts(pdu: JsonObject, version: RoomVersion) -> EventID | None:
    """Give what a redaction redacts; a target that is no string counts as none."""
    if pdu["type"] != "m.room.redaction":
        return None
    found = (pdu["content"] if version.redacts_in_content else pdu).get("redacts")
    return EventID(found) if isinstance(found, str) else None


def event_of(
    pdu: JsonObject,
    raw: bytes,
    version: RoomVersion,
    event_id: EventID,
    *,
    content: JsonObject | None = None,
) -> Event:
    """Make an event of a PDU whose format is known to be right, and of its canonical JSON.

    `content` is the event's, if it has just been read from JSON and nobody will change it.
    """
    room_id = pdu.get("room_id")
    event = Event(
        event_id,
        RoomID(room_id) if room_id is not None else room_id_of_event_id(event_id),
        version,
        intern(pdu["type"]),
        UserID(intern(pdu["sender"])),
        pdu.get("state_key"),
        clamp(pdu["origin_server_ts"]),
        clamp(pdu["depth"]),
        referenced_ids(pdu["prev_events"], version),
        referenced_ids(pdu["auth_events"], version),
        _redacts(pdu, version),
        raw,
    )
    if content is not None:
        _set(event, "_content", content)
    return event


@frozen
class EventDraft:
    """What somebody wants to say in a room, before it has a place there.

    `room_id` is None for the create event of a room whose ID is made of that event. `redacts` is put where
    the room version wants it.
    """

    room_id: RoomID | None
    type: str
    sender: UserID
    content: Mapping[str, Any]
    state_key: str | None = None
    redacts: EventID | None = None


@frozen
class Links:
    """The place of an event in the graph: its parents, its authority, and how deep it lies.

    `hashes` gives reference hashes in base64 of events named, for room versions 1 and 2 alone.
    """

    prev_events: tuple[EventID, ...]
    auth_events: tuple[EventID, ...]
    depth: int
    hashes: Mapping[EventID, str] = field(factory=dict)


def build_event(
    draft: EventDraft,
    version: RoomVersion,
    links: Links,
    *,
    now: int,
    server_name: ServerName,
    key: SigningKey,
) -> Event:
    """Make an event of a draft: hashed, signed by this server, named.

    Raises:
        BadJson: the content holds what canonical JSON cannot.
        EventTooLarge: the event, or a field of it, breaks a size limit.
    """
    _check_fields(draft)
    pdu = _unsigned_pdu(draft, version, links, now)
    if not version.hashed_event_ids:
        pdu["event_id"] = _opaque_id(pdu, version, server_name)
    pdu["hashes"] = {"sha256": encode_base64(content_hash(pdu, version))}
    essential = essential_bytes(pdu, version)
    pdu["signatures"] = {server_name: {key.key_id: key.sign_base64(essential)}}
    raw = encode_pdu(pdu, version)
    if len(raw) > MAX_EVENT_BYTES:
        raise EventTooLarge(f"The event has {len(raw)} bytes; it may have {MAX_EVENT_BYTES}")
    event_id = pdu.get("event_id") or event_id_of_hash(sha256(essential).digest(), version)
    return event_of(pdu, raw, version, event_id)


def _check_fields(draft: EventDraft) -> None:
    """See that a draft's fields fit their limits; raises EventTooLarge."""
    for name, text in (("type", draft.type), ("sender", draft.sender), ("state_key", draft.state_key)):
        if text is not None and len(text) * 4 > MAX_ID_BYTES and len(text.encode()) > MAX_ID_BYTES:
            raise EventTooLarge(f"The {name} may not be longer than {MAX_ID_BYTES} bytes")


def _unsigned_pdu(draft: EventDraft, version: RoomVersion, links: Links, now: int) -> JsonObject:
    """Lay out a draft as a PDU that lacks hashes, signatures and, in versions 1 and 2, its ID."""
    content = dict(draft.content)
    if draft.redacts is not None and version.redacts_in_content:
        content["redacts"] = draft.redacts
    if version.strict_json:
        check_numbers(content)
    pdu: JsonObject = {
        "type": draft.type,
        "sender": draft.sender,
        "content": content,
        "origin_server_ts": now,
        "depth": min(links.depth, MAX_DEPTH),
        "prev_events": _references(links.prev_events, links, version),
        "auth_events": _references(links.auth_events, links, version),
    }
    if draft.room_id is not None:
        pdu["room_id"] = draft.room_id
    if draft.state_key is not None:
        pdu["state_key"] = draft.state_key
    if draft.redacts is not None and not version.redacts_in_content:
        pdu["redacts"] = draft.redacts
    return pdu


def _references(ids: tuple[EventID, ...], links: Links, version: RoomVersion) -> list[Any]:
    """Write references as the room version has them."""
    if not version.pairs_in_references:
        return list(ids)
    hashes = links.hashes
    return [[event_id, {"sha256": hashes[event_id]} if event_id in hashes else {}] for event_id in ids]


def _opaque_id(pdu: JsonObject, version: RoomVersion, server_name: ServerName) -> EventID:
    """Name an event of versions 1 and 2: no two events of a server have one content, time and place."""
    return EventID(f"${encode_base64_urlsafe(content_hash(pdu, version)[:24])}:{server_name}")


def countersign(event: Event, server_name: ServerName, key: SigningKey) -> Event:
    """Give an event with this server's signature added, as an invite or a restricted join needs it.

    The caller has made sure that the event is of the one kind that this server means to vouch for.
    Raises EventTooLarge if there is no room for the signature.
    """
    pdu = event.pdu
    signature = key.sign(essential_bytes(pdu, event.version))
    raw = encode_pdu(add_signature(pdu, server_name, key.key_id, signature), event.version)
    if len(raw) > MAX_EVENT_BYTES:
        raise EventTooLarge("The event has no room for another signature")
    return evolve(event, raw=raw)
