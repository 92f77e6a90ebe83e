"""Events: immutable, parsed once, carrying the bytes that travel.

There are three ways to an `Event`: `build_event` makes and signs one of our own from a draft,
`protocol.checks` lets in what other servers send, and `load_event` reads a row of our own database.
Nothing else makes one, so storage and auth rules need not ask where an event was checked.

Source: server-server-api.md, "PDUs"; rooms/v1.md, v3.md, v12.md, "Event format".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec
from attrs import field, frozen

from protocol.canonical_json import JsonObject, decode_lax
from protocol.errors import EventTooLarge
from protocol.hashes import content_hash, essential_bytes, event_bytes, event_id_from, room_id_of_create
from protocol.identifiers import EventID, RoomID, ServerName, StateKey, UserID
from protocol.limits import MAX_DEPTH, MAX_EVENT_BYTES, MAX_ID_BYTES, MAX_INTEGER
from protocol.redaction import redact
from protocol.room_versions import RoomVersion
from protocol.signing import SigningKey, encode_base64

_EMPTY: Mapping[str, Any] = MappingProxyType({})


class Event:
    """An event of a room: known by its ID, never changed.

    Make none directly: see the module.
    """

    __slots__ = (
        "_content",
        "auth_events",
        "depth",
        "event_id",
        "hash_mismatch",
        "origin_server_ts",
        "prev_events",
        "raw",
        "redacts",
        "room_id",
        "sender",
        "state_key",
        "type",
        "version",
    )

    event_id: EventID
    room_id: RoomID
    version: RoomVersion
    type: str
    sender: UserID
    state_key: str | None
    origin_server_ts: int
    depth: int
    prev_events: tuple[EventID, ...]
    auth_events: tuple[EventID, ...]
    redacts: EventID | None
    raw: bytes
    hash_mismatch: bool

    def __init__(self, fields: EventFields, raw: bytes, content: Mapping[str, Any] | None) -> None:
        """Take fields already checked; `content` None is read from `raw` when it is wanted."""
        self.event_id = fields.event_id
        self.room_id = fields.room_id
        self.version = fields.version
        self.type = fields.type
        self.sender = fields.sender
        self.state_key = fields.state_key
        self.origin_server_ts = fields.origin_server_ts
        self.depth = fields.depth
        self.prev_events = fields.prev_events
        self.auth_events = fields.auth_events
        self.redacts = fields.redacts
        self.hash_mismatch = fields.hash_mismatch
        self.raw = raw
        self._content = content

    @property
    def content(self) -> Mapping[str, Any]:
        """Give the content; do not change it."""
        if self._content is None:
            self._content = _read_content(self)
        return self._content

    @property
    def pdu(self) -> JsonObject:
        """Read the whole event anew, as a dict of the caller's own."""
        found: JsonObject = decode_lax(self.raw)
        return found

    @property
    def is_state(self) -> bool:
        """Tell whether the event sets state."""
        return self.state_key is not None

    @property
    def key(self) -> StateKey:
        """Give the state the event sets.

        Raises:
            ValueError: it sets none.
        """
        if self.state_key is None:
            raise ValueError(f"{self.event_id} is not a state event")
        return (self.type, self.state_key)

    @property
    def membership(self) -> str | None:
        """Give the membership of a member event, None for others and for nonsense."""
        if self.type != "m.room.member":
            return None
        value = self.content.get("membership")
        return value if isinstance(value, str) else None

    def __eq__(self, other: object) -> bool:
        """Equal if the IDs are."""
        return isinstance(other, Event) and self.event_id == other.event_id

    def __hash__(self) -> int:
        """Hash the ID."""
        return hash(self.event_id)

    def __repr__(self) -> str:
        """Show ID, type and sender."""
        return f"<Event {self.event_id} {self.type} {self.state_key!r} by {self.sender}>"


@frozen
class EventFields:
    """What an event's constructor takes: the fields every reader needs, parsed."""

    event_id: EventID
    room_id: RoomID
    version: RoomVersion
    type: str
    sender: UserID
    state_key: str | None
    origin_server_ts: int
    depth: int
    prev_events: tuple[EventID, ...]
    auth_events: tuple[EventID, ...]
    redacts: EventID | None
    hash_mismatch: bool = False


@frozen
class EventDraft:
    """What a user or service wants to say: an event before it has a place in a room.

    `room_id` is None for the create event of a room whose ID is its hash.
    """

    room_id: RoomID | None
    type: str
    sender: UserID
    content: JsonObject
    state_key: str | None = None
    redacts: EventID | None = None


@frozen
class Links:
    """Where an event stands in the graph of its room."""

    prev_events: Sequence[EventID]
    auth_events: Sequence[EventID]
    depth: int


@frozen
class Author:
    """Who builds events: this server's name and key; `event_id` is the ID for versions that choose it."""

    server: ServerName
    key: SigningKey = field(repr=False)


def build_event(
    draft: EventDraft,
    version: RoomVersion,
    links: Links,
    author: Author,
    *,
    now: int,
    opaque_id: EventID | None = None,
) -> Event:
    """Place, hash and sign an event of this server; `now` is its `origin_server_ts` in milliseconds.

    `opaque_id` is its ID in room versions where IDs are chosen, and unused elsewhere.

    Raises:
        EventTooLarge: the event, or one of its identifiers, is over the limit.
        BadJson: the content cannot be canonical JSON.
    """
    pdu = _draft_pdu(draft, version, links, now, opaque_id)
    pdu["hashes"] = {"sha256": encode_base64(content_hash(pdu, version))}
    essential = essential_bytes(pdu, version)
    pdu["signatures"] = {author.server: {author.key.key_id: author.key.sign_base64(essential)}}
    raw = event_bytes(pdu, version)
    if len(raw) > MAX_EVENT_BYTES:
        raise EventTooLarge(f"the event has {len(raw)} bytes; {MAX_EVENT_BYTES} are allowed")
    event_id = event_id_from(essential, version) if version.hashed_event_ids else EventID(pdu["event_id"])
    room_id = room_id_of_create(event_id) if draft.room_id is None else draft.room_id
    fields = EventFields(
        event_id,
        room_id,
        version,
        draft.type,
        draft.sender,
        draft.state_key,
        now,
        pdu["depth"],
        tuple(links.prev_events),
        tuple(links.auth_events),
        redacts_of(pdu, version),
    )
    return Event(fields, raw, draft.content)


def _draft_pdu(
    draft: EventDraft, version: RoomVersion, links: Links, now: int, opaque_id: EventID | None
) -> JsonObject:
    pdu: JsonObject = {
        "auth_events": references(links.auth_events, version),
        "content": draft.content,
        "depth": min(links.depth, MAX_DEPTH),
        "origin_server_ts": now,
        "prev_events": references(links.prev_events, version),
        "sender": draft.sender,
        "type": draft.type,
    }
    if draft.room_id is not None:
        pdu["room_id"] = draft.room_id
    if draft.state_key is not None:
        pdu["state_key"] = draft.state_key
    if draft.redacts is not None:
        if version.redacts_in_content:
            pdu["content"] = {**draft.content, "redacts": draft.redacts}
        else:
            pdu["redacts"] = draft.redacts
    if not version.hashed_event_ids:
        if opaque_id is None:
            raise ValueError("this room version needs an event ID")
        pdu["event_id"] = opaque_id
    for name in ("sender", "type", "state_key", "room_id", "event_id"):
        if len(pdu.get(name, "").encode("utf-8", "surrogatepass")) > MAX_ID_BYTES:
            raise EventTooLarge(f"{name} is longer than {MAX_ID_BYTES} bytes")
    return pdu


def references(event_ids: Sequence[EventID], version: RoomVersion) -> list[Any]:
    """Write references to events as the version has them.

    Versions 1 and 2 ask for `[event ID, {hash}]` pairs; the hash may be left empty, since servers look
    at the ID alone.
    """
    if version.pairs_in_references:
        return [[event_id, {}] for event_id in event_ids]
    return list(event_ids)


def redacts_of(pdu: JsonObject, version: RoomVersion) -> EventID | None:
    """Give the event that a redaction names, from where the version has it."""
    if pdu.get("type") != "m.room.redaction":
        return None
    holder = pdu.get("content") if version.redacts_in_content else pdu
    target = holder.get("redacts") if isinstance(holder, dict) else None
    return EventID(target) if isinstance(target, str) else None


def with_signatures(event: Event, server: ServerName, key: SigningKey) -> Event:
    """Give the event with this server's signature added, where the protocol asks for it (invite, join)."""
    pdu = event.pdu
    signature = key.sign_base64(essential_bytes(pdu, event.version))
    signatures = pdu["signatures"]
    pdu["signatures"] = {**signatures, server: {**signatures.get(server, {}), key.key_id: signature}}
    return Event(fields_of(event), event_bytes(pdu, event.version), event._content)


def redact_event(event: Event) -> Event:
    """Give the redacted form of an event; ID and place stay."""
    pdu = redact(event.pdu, event.version)
    fields = fields_of(event)
    return Event(
        EventFields(
            fields.event_id,
            fields.room_id,
            fields.version,
            fields.type,
            fields.sender,
            fields.state_key,
            fields.origin_server_ts,
            fields.depth,
            fields.prev_events,
            fields.auth_events,
            redacts_of(pdu, event.version),
            fields.hash_mismatch,
        ),
        event_bytes(pdu, event.version),
        pdu.get("content", _EMPTY),
    )


def fields_of(event: Event) -> EventFields:
    """Give the parsed fields of an event."""
    return EventFields(
        event.event_id,
        event.room_id,
        event.version,
        event.type,
        event.sender,
        event.state_key,
        event.origin_server_ts,
        event.depth,
        event.prev_events,
        event.auth_events,
        event.redacts,
        event.hash_mismatch,
    )


class _Row(msgspec.Struct):
    """The fields of a stored PDU; its types were checked when it came in."""

    type: str
    sender: str
    origin_server_ts: Any
    depth: Any
    prev_events: list[Any]
    auth_events: list[Any]
    state_key: str | None = None
    redacts: Any = None


class _RowContent(msgspec.Struct):
    content: dict[str, Any]


_decode_row = msgspec.json.Decoder(_Row).decode
_decode_content = msgspec.json.Decoder(_RowContent).decode


def load_event(raw: bytes, version: RoomVersion, *, event_id: EventID, room_id: RoomID) -> Event:
    """Read an event of this server's own database, where only checked events are."""
    row = _decode_row(raw)
    redacts = row.redacts if isinstance(row.redacts, str) and not version.redacts_in_content else None
    fields = EventFields(
        event_id,
        room_id,
        version,
        row.type,
        UserID(row.sender),
        row.state_key,
        _clamped(row.origin_server_ts),
        _clamped(row.depth),
        reference_ids(row.prev_events, version),
        reference_ids(row.auth_events, version),
        EventID(redacts) if redacts is not None else None,
    )
    event = Event(fields, raw, None)
    if version.redacts_in_content and row.type == "m.room.redaction":
        target = event.content.get("redacts")
        event.redacts = EventID(target) if isinstance(target, str) else None
    return event


def reference_ids(found: Sequence[Any], version: RoomVersion) -> tuple[EventID, ...]:
    """Read references to events as the version has them."""
    if version.pairs_in_references:
        return tuple([EventID(pair[0]) for pair in found])
    return tuple(found)


def _clamped(number: Any) -> int:
    """Bring a time or depth of an old, lax room into the range every part of the server can hold."""
    return max(-MAX_INTEGER, min(int(number), MAX_INTEGER))


def _read_content(event: Event) -> Mapping[str, Any]:
    try:
        return _decode_content(event.raw).content
    except msgspec.MsgspecError:
        content: Mapping[str, Any] = decode_lax(event.raw)["content"]
        return content
