"""Relations of events, and the threads of a room.

Source: client-server-api/relations.yaml, threads_list.yaml.
"""

from __future__ import annotations

from attrs import frozen

from client_api.bodies import event_of
from client_api.history_calls import (
    asker_of,
    asker_of_event,
    history_token_of,
    is_backwards,
    limit_of,
    token_of,
)
from client_api.paths import v1
from homeserver.history.relations import RelationsRequest
from homeserver.history.wiring import History
from homeserver.http.calls import Call, Json, Reply
from homeserver.http.routing import Route


@frozen(eq=False)
class RelationReads:
    """Gives what relates to what."""

    history: History

    async def children(self, call: Call[None]) -> Reply:
        """GET …/rooms/{roomId}/relations/{eventId}[/{relType}[/{eventType}]]."""
        query = call.query
        request = RelationsRequest(
            event_of(call),
            call.path.get("relType"),
            call.path.get("eventType"),
            token_of(call, "from"),
            token_of(call, "to"),
            is_backwards(call, "b"),
            limit_of(call, 50),
            query.boolean("recurse") or query.boolean("org.matrix.msc3981.recurse"),
        )
        asker = await asker_of_event(call, self.history.askers)
        return Json(await self.history.relations.children(asker, request))

    async def threads(self, call: Call[None]) -> Reply:
        """GET …/rooms/{roomId}/threads."""
        participated = call.query.choice("include", ("all", "participated"), "all") == "participated"
        start, limit = history_token_of(call, "from"), limit_of(call, 20)
        asker = await asker_of(call, self.history.askers)
        return Json(await self.history.relations.threads(asker, start, limit, participated=participated))

    def routes(self) -> tuple[Route, ...]:
        """List what this family serves."""
        event = "/rooms/{roomId}/relations/{eventId}"
        threads = "/rooms/{roomId}/threads"
        old_threads = f"/_matrix/client/unstable/org.matrix.msc3856{threads}"
        tails = (event, f"{event}/{{relType}}", f"{event}/{{relType}}/{{eventType}}")
        return (
            Route("GET", v1(*tails), self.children),
            Route("GET", (*v1(threads), old_threads), self.threads),
        )
