"""Reading a room's history: pages, single events, context, events by time.

Source: client-server-api/message_pagination.yaml, rooms.yaml, event_context.yaml,
room_event_by_timestamp.yaml.
"""

from __future__ import annotations

from attrs import frozen

from client_api.bodies import event_of
from client_api.history_calls import (
    asker_of,
    asker_of_event,
    event_filter_of,
    is_backwards,
    limit_of,
    token_of,
)
from client_api.paths import v1, v3
from homeserver.history.messages import PageRequest
from homeserver.history.wiring import History
from homeserver.http.calls import Call, Json, Reply
from homeserver.http.routing import Auth, Route
from protocol.errors import MissingParam


@frozen(eq=False)
class HistoryReads:
    """Gives what was said."""

    history: History

    async def messages(self, call: Call[None]) -> Reply:
        """GET …/rooms/{roomId}/messages."""
        if call.query.get("dir") is None:
            raise MissingParam("The query lacks the field dir")
        request = PageRequest(
            token_of(call, "from"),
            token_of(call, "to"),
            is_backwards(call, "b"),
            limit_of(call),
            event_filter_of(call),
        )
        asker = await asker_of(call, self.history.askers)
        return Json((await self.history.messages.page(asker, request)).to_json())

    async def event(self, call: Call[None]) -> Reply:
        """GET …/rooms/{roomId}/event/{eventId}."""
        asker = await asker_of_event(call, self.history.askers)
        return Json(await self.history.events.event(asker, event_of(call)))

    async def context(self, call: Call[None]) -> Reply:
        """GET …/rooms/{roomId}/context/{eventId}."""
        limit, wanted = limit_of(call, least=0), event_filter_of(call)
        asker = await asker_of(call, self.history.askers)
        return Json(await self.history.events.context(asker, event_of(call), limit, wanted))

    async def by_time(self, call: Call[None]) -> Reply:
        """GET …/rooms/{roomId}/timestamp_to_event."""
        call.query.required("ts")
        ts, backwards = call.query.integer("ts", 0), is_backwards(call, "f")
        asker = await asker_of(call, self.history.askers)
        event = await self.history.events.nearest(asker, ts, later=not backwards)
        return {"event_id": event.event_id, "origin_server_ts": event.ts}

    def routes(self) -> tuple[Route, ...]:
        """List what this family serves."""
        room, guest = "/rooms/{roomId}", Auth.GUEST
        tail = f"{room}/timestamp_to_event"
        by_time = (*v1(tail), f"/_matrix/client/unstable/org.matrix.msc3030{tail}")
        return (
            Route("GET", v3(f"{room}/messages"), self.messages, auth=guest),
            Route("GET", v3(f"{room}/event/{{eventId}}"), self.event, auth=guest),
            Route("GET", v3(f"{room}/context/{{eventId}}"), self.context, auth=guest),
            Route("GET", by_time, self.by_time, auth=guest),
        )
