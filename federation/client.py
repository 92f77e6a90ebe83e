"""Asking other servers for events, and sending them transactions.

Whatever of an answer is an event has been through `PduChecker` and is of the room asked for: no call here
gives raw JSON of an event.

Source: server-server-api.md, "Retrieving events", "Backfilling and retrieving missing events",
"Transactions".
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen
from twisted.internet.defer import DeferredSemaphore

from federation.failures import BadAnswer
from federation.large_answers import LargeAnswer
from federation.paths import V1, path, with_query
from federation.pdus import PduChecker
from federation.requests import ServerRequest, ServerRequests
from protocol.canonical_json import JsonObject, encode
from protocol.errors import MatrixError
from protocol.events import Event
from protocol.identifiers import EventID, RoomID, ServerName, parse_event_id
from protocol.room_versions import RoomVersion

LARGE = 64 * 1024 * 1024
"""Bytes of an answer that holds the state of a room."""
LARGE_SECONDS = 120.0
PAGE = 16 * 1024 * 1024
"""Bytes of an answer that holds some events."""
MAX_IDS = 200_000
"""Event IDs read from one answer."""


@frozen
class RoomRef:
    """A room as asked about: its ID and version."""

    room_id: RoomID
    version: RoomVersion


@frozen
class StateIds:
    """The state before an event, and its auth chain, as event IDs: a claim of the server asked."""

    state: Sequence[EventID]
    auth_chain: Sequence[EventID]


@frozen
class StateEvents:
    """The state before an event, and its auth chain, as events: a claim of the server asked."""

    state: Sequence[Event]
    auth_chain: Sequence[Event]


@frozen
class FederationClient:
    """Asks other servers for events."""

    requests: ServerRequests
    checker: PduChecker

    async def get_event(self, server: ServerName, room: RoomRef, event_id: EventID) -> Event | None:
        """Ask for one event; None if the server does not have it, or gives something else."""
        answer = await self._get(server, path(f"{V1}/event", event_id), PAGE)
        events = await self._events(server, answer, "pdus", room, backfill=True)
        return next((event for event in events if event.event_id == event_id), None)

    async def get_state_ids(self, server: ServerName, room: RoomRef, event_id: EventID) -> StateIds:
        """Ask for the IDs of the state before an event."""
        uri = with_query(path(f"{V1}/state_ids", room.room_id), [("event_id", event_id)])
        answer = await self._get(server, uri, LARGE)
        return StateIds(_ids(server, answer, "pdu_ids"), _ids(server, answer, "auth_chain_ids"))

    async def get_state(self, server: ServerName, room: RoomRef, event_id: EventID) -> StateEvents:
        """Ask for the state before an event."""
        uri = with_query(path(f"{V1}/state", room.room_id), [("event_id", event_id)])
        answer = await self._get_large(server, uri)
        state = await self._checked(await answer.listed("pdus"), room)
        return StateEvents(state, await self._checked(await answer.listed("auth_chain"), room))

    async def backfill(
        self, server: ServerName, room: RoomRef, event_ids: Sequence[EventID], limit: int
    ) -> list[Event]:
        """Ask for events before and including `event_ids`, at most `limit`."""
        query = [("v", event_id) for event_id in event_ids] + [("limit", str(limit))]
        answer = await self._get(server, with_query(path(f"{V1}/backfill", room.room_id), query), PAGE)
        events = await self._events(server, answer, "pdus", room, backfill=True)
        return events[:limit]

    async def get_missing_events(
        self,
        server: ServerName,
        room: RoomRef,
        between: tuple[Sequence[EventID], Sequence[EventID]],
        limit: int,
    ) -> list[Event]:
        """Ask for events after the first and before the second of `between`, at most `limit`."""
        earliest, latest = between
        body = encode(
            {"earliest_events": list(earliest), "latest_events": list(latest), "limit": limit, "min_depth": 0}
        )
        uri = path(f"{V1}/get_missing_events", room.room_id)
        answer = await self.requests.signed(ServerRequest(server, "POST", uri, body, max_bytes=PAGE))
        events = await self._events(server, answer, "events", room)
        return events[:limit]

    async def _get(self, server: ServerName, uri: str, max_bytes: int) -> JsonObject:
        seconds = LARGE_SECONDS if max_bytes == LARGE else None
        return await self.requests.signed(ServerRequest(server, "GET", uri, None, max_bytes, seconds))

    async def _get_large(self, server: ServerName, uri: str) -> LargeAnswer:
        request = ServerRequest(server, "GET", uri, None, LARGE, LARGE_SECONDS)
        return LargeAnswer.of(server, await self.requests.signed_bytes(request), self.requests.clock)

    async def _checked(self, raw: Sequence[bytes], room: RoomRef) -> list[Event]:
        return await self.checker.check_room(raw, room.version, room.room_id, backfill=True)

    async def _events(
        self, server: ServerName, answer: JsonObject, name: str, room: RoomRef, *, backfill: bool = False
    ) -> list[Event]:
        """Read a list of events; those that fail the checks or are of another room are left out."""
        raw = answer.get(name)
        if not isinstance(raw, list):
            raise BadAnswer(server, f"{name} is missing")
        return await self.checker.check_room(raw, room.version, room.room_id, backfill=backfill)


@frozen
class Transactions:
    """Sends transactions."""

    requests: ServerRequests
    slots: DeferredSemaphore
    """Bounds the transactions under way to all destinations."""

    async def send(self, server: ServerName, txn_id: str, body: bytes) -> JsonObject:
        """Send a transaction once, as soon as there is a slot; raises MatrixError."""
        await self.slots.acquire()
        try:
            return await self.requests.signed(
                ServerRequest(server, "PUT", path(f"{V1}/send", txn_id), body, seconds=60)
            )
        finally:
            self.slots.release()


def _ids(server: ServerName, answer: JsonObject, name: str) -> list[EventID]:
    """Read a list of event IDs; what is none is left out."""
    raw = answer.get(name)
    if not isinstance(raw, list) or len(raw) > MAX_IDS:
        raise BadAnswer(server, f"{name} is missing or too long")
    found: dict[EventID, None] = {}
    for item in raw:
        try:
            found[parse_event_id(item)] = None
        except MatrixError:
            continue
    return list(found)
