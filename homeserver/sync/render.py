"""Client bytes: an event as clients read it, rendered once to a body and finished with a tail.

The body has neither `room_id` nor `unsigned` and its brace is open; it is the same for everyone. The
tail is `unsigned` and the closing brace. What only one recipient may see (`transaction_id`,
`membership`, `prev_content`) is given by `Unsigned` and never kept with the event.

Source: client-server-api/_index.md, "Room event format"; rooms/v11.md, "Moving the redacts property".
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import msgspec
import orjson
from attrs import frozen

from homeserver.events.relations import NO_RELATION, relation_of
from homeserver.events.stored import StoredEvent
from protocol.identifiers import EventID, RoomID, UserID
from protocol.redaction import redact
from protocol.room_versions import RoomVersion, get_room_version
from storage.client_events import ClientEventRow
from storage.text import unescape

_CONTENT = b'{"content":'
_OVERHEAD = 400
"""Bytes an event costs in memory beside its body, roughly."""


class _Pdu(msgspec.Struct):
    """The fields of a PDU that clients see, as they stand."""

    content: msgspec.Raw
    origin_server_ts: msgspec.Raw
    sender: msgspec.Raw
    type: msgspec.Raw
    state_key: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    redacts: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Member(msgspec.Struct):
    """What a member event's content tells, if it is of the right type."""

    membership: Any = None


class _Url(msgspec.Struct):
    """Whether a content has a `url`."""

    url: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Redacts(msgspec.Struct):
    """Whether a redaction's content names its target."""

    redacts: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_decode_pdu = msgspec.json.Decoder(_Pdu).decode
_decode_member = msgspec.json.Decoder(_Member).decode
_decode_url = msgspec.json.Decoder(_Url).decode
_decode_redacts = msgspec.json.Decoder(_Redacts).decode


class ClientEvent(msgspec.Struct, frozen=True, eq=False):
    """An event rendered for clients, with what readers need to choose and order it.

    They are made by the thousand: a `msgspec.Struct` takes a fifth of the time that attrs takes.
    """

    room_nid: int
    nid: int
    event_id: EventID
    type: str
    sender: UserID
    state_key: str | None
    ts: int
    depth: int
    root_before: bytes | None
    redacted_by: int | None
    relates_to: EventID | None
    rel_type: str | None
    thread: str | None
    body: bytes
    """`{"content":…,…` with the brace still open."""
    content_end: int
    """Where the content ends in `body`."""
    membership: str | None
    """Of a member event: the membership it sets."""

    @property
    def content(self) -> bytes:
        """Give the content as JSON."""
        return self.body[len(_CONTENT) : self.content_end]

    @property
    def has_url(self) -> bool:
        """Tell whether the content has a `url`, as the filter `contains_url` asks."""
        return _decode_url(self.content).url is not msgspec.UNSET

    @property
    def size(self) -> int:
        """Tell the bytes it takes in memory, roughly."""
        return len(self.body) + _OVERHEAD

    @property
    def is_state(self) -> bool:
        """Tell whether it is a state event."""
        return self.state_key is not None


def render_stored(stored: StoredEvent) -> ClientEvent:
    """Render an event that was just committed or is held in memory."""
    event = stored.event
    raw = event.raw
    if stored.redacted_by is not None:
        raw = _redacted(raw, event.version)
    pdu = _decode_pdu(raw)
    body, content_end = _body(pdu, event.type, event.event_id)
    relation = NO_RELATION if stored.redacted_by is not None else relation_of(event.content)
    return ClientEvent(
        stored.room_nid,
        stored.nid,
        event.event_id,
        event.type,
        event.sender,
        event.state_key,
        event.origin_server_ts,
        stored.depth,
        stored.root_before,
        stored.redacted_by,
        None if relation.relates_to is None else EventID(relation.relates_to),
        relation.rel_type,
        stored.thread,
        body,
        content_end,
        _membership(pdu, event.type),
    )


def render_row(row: ClientEventRow, version: RoomVersion | None) -> ClientEvent:
    """Render a row of the database; `version` is needed for a redacted event alone."""
    room_nid, nid, event_id, depth, ts, root_before, redacted_by, thread, rel_type, relates_to, raw = row
    if redacted_by is not None:
        assert version is not None
        raw, rel_type, relates_to = _redacted(raw, version), None, None
    pdu = _decode_pdu(raw)
    kind = _text(bytes(pdu.type))
    body, content_end = _body(pdu, kind, event_id)
    return ClientEvent(
        room_nid,
        nid,
        event_id,
        kind,
        UserID(_text(bytes(pdu.sender))),
        None if pdu.state_key is msgspec.UNSET else _text(bytes(pdu.state_key)),
        ts,
        depth,
        root_before,
        redacted_by,
        None if relates_to is None else EventID(unescape(relates_to)),
        None if rel_type is None else unescape(rel_type),
        None if thread is None else unescape(thread),
        body,
        content_end,
        _membership(pdu, kind),
    )


def as_pdu(event: ClientEvent, row: ClientEventRow, version_id: str | None) -> ClientEvent:
    """Give an event whose body is the PDU as it travels; `version_id` is given for a redacted event."""
    raw = row.pdu if version_id is None else _redacted(row.pdu, get_room_version(version_id))
    whole = raw.encode() if isinstance(raw, str) else raw
    return msgspec.structs.replace(event, body=whole[:-1], content_end=len(_CONTENT))


def emptied(event: ClientEvent) -> ClientEvent:
    """Give an event without its content, as one by somebody the reader ignores."""
    body = _CONTENT + b"{}" + event.body[event.content_end :]
    return msgspec.structs.replace(event, body=body, content_end=len(_CONTENT) + 2)


def _redacted(raw: bytes | str, version: RoomVersion) -> bytes:
    """Redact a PDU for rendering."""
    return orjson.dumps(redact(orjson.loads(raw), version))


def _membership(pdu: _Pdu, kind: str) -> str | None:
    """Read the membership a member event sets."""
    if kind != "m.room.member" or pdu.state_key is msgspec.UNSET:
        return None
    value = _decode_member(pdu.content).membership
    return value if isinstance(value, str) else None


@lru_cache(maxsize=4096)
def _text(data: bytes) -> str:
    """Read a JSON string; lone surrogates, which old room versions allow, are read too.

    Cached: types and users are few, and come again and again.
    """
    if b"\\" not in data:
        return data[1:-1].decode()
    text = json.loads(data)
    assert isinstance(text, str)
    return text


def _body(pdu: _Pdu, kind: str, event_id: EventID) -> tuple[bytes, int]:
    """Make the body and tell where its content ends."""
    content, redacts = bytes(pdu.content), pdu.redacts
    if kind == "m.room.redaction":
        content, redacts = _both_redacts(content, redacts)
    key = b"" if pdu.state_key is msgspec.UNSET else b',"state_key":%b' % pdu.state_key
    target = b"" if redacts is msgspec.UNSET else b',"redacts":%b' % redacts
    body = b'{"content":%b,"event_id":%b,"origin_server_ts":%b,"sender":%b,"type":%b%b%b' % (
        content,
        orjson.dumps(event_id),
        pdu.origin_server_ts,
        pdu.sender,
        pdu.type,
        key,
        target,
    )
    return body, len(_CONTENT) + len(content)


def _both_redacts(
    content: bytes, redacts: msgspec.Raw | msgspec.UnsetType
) -> tuple[bytes, msgspec.Raw | msgspec.UnsetType]:
    """Name a redaction's target both at the top and in the content, for clients of either age."""
    within = _decode_redacts(content).redacts
    if redacts is msgspec.UNSET:
        return content, within
    if within is msgspec.UNSET:
        rest = content[1:] if content == b"{}" else b"," + content[1:]
        return b'{"redacts":' + bytes(redacts) + rest, redacts
    return content, redacts


@frozen(eq=False)
class Unsigned:
    """What the tail says beside the age. The first group may be shared, the second is one reader's own."""

    redacted_because: ClientEvent | None = None
    replaced: ClientEvent | None = None
    """The state event it replaced."""
    relations: bytes | None = None

    shows_replaced: bool = False
    """Whether the reader may see the content that was replaced."""
    membership: str | None = None
    transaction_id: str | None = None


PLAIN = Unsigned()
JOINED = Unsigned(shows_replaced=True, membership="join")
"""What nearly all events in a timeline say."""


def finish(event: ClientEvent, now: int, unsigned: Unsigned = PLAIN, room_id: RoomID | None = None) -> bytes:
    """Give the whole JSON of an event, with `room_id` where the endpoint wants it."""
    room = b"" if room_id is None else b',"room_id":' + orjson.dumps(room_id)
    if unsigned is PLAIN or unsigned is JOINED:
        member = b',"membership":"join"' if unsigned is JOINED else b""
        return b'%b%b,"unsigned":{"age":%d%b}}' % (event.body, room, max(0, now - event.ts), member)
    tail = [event.body, room, b',"unsigned":{"age":%d' % max(0, now - event.ts)]
    if unsigned.membership is not None:
        tail.append(b',"membership":' + orjson.dumps(unsigned.membership))
    if unsigned.replaced is not None:
        tail.append(b',"replaces_state":' + orjson.dumps(unsigned.replaced.event_id))
        if unsigned.shows_replaced:
            tail.append(b',"prev_content":' + unsigned.replaced.content)
    if unsigned.redacted_because is not None:
        because = unsigned.redacted_because
        age = max(0, now - because.ts)
        tail.append(b',"redacted_because":%b%b,"unsigned":{"age":%d}}' % (because.body, room, age))
    if unsigned.relations is not None:
        tail.append(b',"m.relations":' + unsigned.relations)
    if unsigned.transaction_id is not None:
        tail.append(b',"transaction_id":' + orjson.dumps(unsigned.transaction_id))
    tail.append(b"}}")
    return b"".join(tail)


def event_list(events: list[bytes]) -> bytes:
    """Give `{"events":[…]}`."""
    return b'{"events":[%b]}' % b",".join(events)


def keep_fields(event: bytes, paths: tuple[tuple[str, ...], ...]) -> bytes:
    """Keep only the fields that the filter's `event_fields` names; `event_id` and `type` are always given."""
    whole = orjson.loads(event)
    kept: dict[str, Any] = {}
    for path in (("event_id",), ("type",), *paths):
        _copy(whole, kept, path)
    return orjson.dumps(kept)


def _copy(whole: dict[str, Any], kept: dict[str, Any], path: tuple[str, ...]) -> None:
    """Copy what lies at one path, if there is anything."""
    at: Any = whole
    for key in path:
        if not isinstance(at, dict) or key not in at:
            return
        at = at[key]
    target = kept
    for key in path[:-1]:
        inner = target.setdefault(key, {})
        if not isinstance(inner, dict):
            return
        target = inner
    target[path[-1]] = at
