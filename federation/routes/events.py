"""Events, states and history for servers in a room.

Source: server-server-api.md, "Retrieving events", "Backfilling and retrieving missing events".
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

from attrs import frozen

from federation.inbound.reading import MAX_BACKFILL, MAX_MISSING, MAX_NAMED, GraphReads, StateBefore
from homeserver.events.texts import EventTexts
from homeserver.http.calls import Call, Json, Response
from homeserver.http.routing import Auth, RateClass, Route
from protocol.canonical_json import dumps
from protocol.errors import BadJson, InvalidParam
from protocol.events import Event
from protocol.identifiers import EventID, ServerName, parse_event_id, parse_room_id

V1 = "/_matrix/federation/v1"
MAX_BODY = 256 * 1024


@frozen(eq=False)
class EventRoutes:
    """Serves the graph of rooms."""

    own_name: ServerName
    reads: GraphReads
    texts: EventTexts

    async def event(self, call: Call[None]) -> Json:
        """Give one event."""
        event = await self.reads.event(call.origin, parse_event_id(call.path["event_id"]))
        return self._pdus((event,), call.now)

    async def state(self, call: Call[None]) -> Response:
        """Give the state before an event, as events."""
        found = await self._state(call)
        return _streamed(found.room_nid, self.texts, pdus=found.state, auth_chain=found.auth_chain)

    async def state_ids(self, call: Call[None]) -> Json:
        """Give the state before an event, as event IDs."""
        found = await self._state(call)
        state = await self.texts.ids(found.room_nid, found.state)
        chain = await self.texts.ids(found.room_nid, found.auth_chain)
        return Json(dumps({"pdu_ids": state, "auth_chain_ids": chain}))

    async def event_auth(self, call: Call[None]) -> Response:
        """Give the auth chain of an event."""
        room_id, event_id = parse_room_id(call.path["room_id"]), parse_event_id(call.path["event_id"])
        room_nid, chain = await self.reads.auth_chain(call.origin, room_id, event_id)
        return _streamed(room_nid, self.texts, auth_chain=chain)

    async def backfill(self, call: Call[None]) -> Json:
        """Give events and what came before them."""
        room_id = parse_room_id(call.path["room_id"])
        named = call.query.all("v")
        if len(named) > MAX_NAMED:
            raise InvalidParam(f"At most {MAX_NAMED} events may be named")
        limit = call.query.integer("limit", MAX_BACKFILL, most=MAX_BACKFILL)
        ids = [parse_event_id(each) for each in named]
        return self._pdus(await self.reads.backfill(call.origin, room_id, ids, limit), call.now)

    async def missing(self, call: Call[dict[str, Any]]) -> Json:
        """Give the events between two places."""
        room_id, body = parse_room_id(call.path["room_id"]), call.body
        between = (_ids(body, "earliest_events"), _ids(body, "latest_events"))
        limit, depth = _integer(body, "limit", MAX_MISSING // 2), _integer(body, "min_depth", 0)
        if limit < 0:
            raise BadJson("limit must not be negative")
        found = await self.reads.missing(call.origin, room_id, between, limit, depth)
        return Json(b'{"events":%b}' % _list(found))

    async def _state(self, call: Call[None]) -> StateBefore:
        room_id = parse_room_id(call.path["room_id"])
        event_id = parse_event_id(call.query.required("event_id"))
        return await self.reads.state_before(call.origin, room_id, event_id)

    def _pdus(self, events: Iterable[Event], now: int) -> Json:
        """Lay events out in the form of a transaction."""
        rest = dumps({"origin": self.own_name, "origin_server_ts": now})
        return Json(b'{"pdus":%b,%b' % (_list(events), rest[1:]))

    def routes(self) -> tuple[Route, ...]:
        """List what this family serves."""
        reads = (
            ("event/{event_id}", self.event),
            ("state/{room_id}", self.state),
            ("state_ids/{room_id}", self.state_ids),
            ("event_auth/{room_id}/{event_id}", self.event_auth),
            ("backfill/{room_id}", self.backfill),
        )
        missing = f"{V1}/get_missing_events/{{room_id}}"
        server, limit = Auth.SERVER, RateClass.FEDERATION
        return (
            *(Route("GET", f"{V1}/{end}", handler, None, server, limit) for end, handler in reads),
            Route("POST", missing, self.missing, dict, server, limit, MAX_BODY),
        )


def _list(events: Iterable[Event]) -> bytes:
    return b"[%b]" % b",".join(event.raw for event in events)


def _integer(body: dict[str, Any], name: str, default: int) -> int:
    """Read an integer; raises BadJson."""
    number = body.get(name, default)
    if type(number) is not int:
        raise BadJson(f"{name} must be an integer")
    return number


def _ids(body: dict[str, Any], name: str) -> list[EventID]:
    """Read a list of event IDs; raises BadJson, InvalidParam."""
    raw = body.get(name, [])
    if not isinstance(raw, list):
        raise BadJson(f"{name} must be a list")
    if len(raw) > MAX_NAMED:
        raise InvalidParam(f"At most {MAX_NAMED} events may be named in {name}")
    return [parse_event_id(each) for each in raw]


def _streamed(room_nid: int, texts: EventTexts, **lists: Sequence[int]) -> Response:
    """Answer with lists of events by name, however many they are."""

    async def pieces() -> AsyncIterator[bytes]:
        before = b"{"
        for name, nids in lists.items():
            yield b"%b%b:" % (before, dumps(name))
            async for part in texts.listed(room_nid, nids):
                yield part
            before = b","
        yield b"}"

    return Response(200, b"", pieces=pieces())
