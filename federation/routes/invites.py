"""Invites to our users, by both versions of the call.

Source: server-server-api.md, "Inviting to a room".
"""

from __future__ import annotations

from typing import Any

from attrs import frozen

from federation.resident.invited import Invitation, Invitations
from homeserver.http.calls import Call, Json
from homeserver.http.routing import Auth, RateClass, Route
from protocol.errors import BadJson
from protocol.identifiers import parse_event_id, parse_room_id

MAX_BODY = 4 * 1024 * 1024
"""Bytes of an invite with the state that is shown."""
OLD_VERSIONS = ("1", "2")
"""Room versions for which the first version of the call is made."""


@frozen(eq=False)
class InviteRoutes:
    """Takes invites."""

    invitations: Invitations

    async def invite(self, call: Call[dict[str, Any]]) -> Json:
        """Take an invite by the second version of the call."""
        version, shown = call.body.get("room_version"), call.body.get("invite_room_state", [])
        if not isinstance(version, str):
            raise BadJson("room_version must be a string")
        if not isinstance(shown, list):
            raise BadJson("invite_room_state must be a list")
        return Json(await self._take(call, version, call.body.get("event"), shown))

    async def invite_old(self, call: Call[dict[str, Any]]) -> Json:
        """Take an invite by the first version of the call, whose body is the event itself."""
        unsigned = call.body.get("unsigned")
        given = unsigned.get("invite_room_state") if isinstance(unsigned, dict) else None
        shown = given if isinstance(given, list) else []
        return Json(b"[200,%b]" % await self._take(call, _old_version(shown), call.body, shown))

    async def _take(self, call: Call[Any], version: str, event: object, shown: list[Any]) -> bytes:
        invitation = Invitation(
            call.origin,
            parse_room_id(call.path["room_id"]),
            parse_event_id(call.path["event_id"]),
            version,
            event,
            shown,
        )
        signed = await self.invitations.take(invitation, call.now)
        return b'{"event":%b}' % signed.raw

    def routes(self) -> tuple[Route, ...]:
        """List what this family serves."""
        end = "invite/{room_id}/{event_id}"
        limit = RateClass.FEDERATION
        return (
            Route("PUT", f"/_matrix/federation/v2/{end}", self.invite, dict, Auth.SERVER, limit, MAX_BODY),
            Route(
                "PUT", f"/_matrix/federation/v1/{end}", self.invite_old, dict, Auth.SERVER, limit, MAX_BODY
            ),
        )


def _old_version(shown: list[Any]) -> str:
    """Tell which of the old versions a room has: what its create event says, the oldest if nothing."""
    for event in shown:
        if isinstance(event, dict) and event.get("type") == "m.room.create":
            content = event.get("content")
            stated = content.get("room_version") if isinstance(content, dict) else None
            if stated in OLD_VERSIONS:
                return str(stated)
    return OLD_VERSIONS[0]
