"""Reading the state of a room, and its members.

Source: client-server-api/rooms.yaml.
"""

from __future__ import annotations

from attrs import frozen

from client_api.bodies import room_of
from client_api.history_calls import asker_of, session_of, token_of
from client_api.paths import v3
from homeserver.history.wiring import History
from homeserver.http.calls import Call, Json, Reply
from homeserver.http.routing import Auth, Route
from homeserver.sync.tokens import FeedToken, HistoryToken
from protocol.errors import InvalidParam

MEMBERSHIPS = ("join", "invite", "knock", "leave", "ban")


@frozen(eq=False)
class RoomStateReads:
    """Gives what holds in a room."""

    history: History

    async def everything(self, call: Call[None]) -> Reply:
        """GET …/rooms/{roomId}/state."""
        asker = await asker_of(call, self.history.askers)
        return Json(b"[%b]" % b",".join(await self.history.states.everything(asker)))

    async def one(self, call: Call[None]) -> Reply:
        """GET …/rooms/{roomId}/state/{eventType}/{stateKey}."""
        whole = call.query.choice("format", ("content", "event"), "content") == "event"
        asker = await asker_of(call, self.history.askers)
        key = call.path.get("stateKey", "")
        return Json(await self.history.states.one(asker, call.path["eventType"], key, whole=whole))

    async def members(self, call: Call[None]) -> Reply:
        """GET …/rooms/{roomId}/members."""
        at: FeedToken | HistoryToken | None = token_of(call, "at")
        wanted, unwanted = _membership(call, "membership"), _membership(call, "not_membership")
        asker = await asker_of(call, self.history.askers)
        found = await self.history.states.members(asker, at, wanted, unwanted)
        return Json(b'{"chunk":[%b]}' % b",".join(found))

    async def joined_members(self, call: Call[None]) -> Reply:
        """GET …/rooms/{roomId}/joined_members."""
        await self.history.askers.access.joined(session_of(call), room_of(call))
        asker = await asker_of(call, self.history.askers)
        return Json(await self.history.states.joined(asker))

    def routes(self) -> tuple[Route, ...]:
        """List what this family serves."""
        room, guest = "/rooms/{roomId}", Auth.GUEST
        one = (f"{room}/state/{{eventType}}", f"{room}/state/{{eventType}}/{{stateKey*}}")
        return (
            Route("GET", v3(f"{room}/state"), self.everything, auth=guest),
            Route("GET", v3(*one), self.one, auth=guest),
            Route("GET", v3(f"{room}/members"), self.members, auth=guest),
            Route("GET", v3(f"{room}/joined_members"), self.joined_members, auth=guest),
        )


def _membership(call: Call[None], name: str) -> str | None:
    """Read a membership of the query; raise InvalidParam for none of the five."""
    text = call.query.get(name)
    if text is not None and text not in MEMBERSHIPS:
        raise InvalidParam(f"The query field {name} must be one of {', '.join(MEMBERSHIPS)}")
    return text
