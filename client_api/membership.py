"""Joining, leaving, inviting, kicking, banning, knocking, forgetting.

Source: client-server-api/_index.md, "Room membership"; "Knocking on rooms".
"""

from __future__ import annotations

from typing import Any

import msgspec
from attrs import frozen

from client_api import bodies
from client_api.bodies import Reason, room_of, vias_of
from client_api.paths import v3
from homeserver.http.calls import EMPTY, Call, Reply
from homeserver.http.routing import Auth, RateClass, Route
from homeserver.rooms.aliases import Aliases
from homeserver.rooms.forgetting import Forgetting
from homeserver.rooms.inviting import Inviting
from homeserver.rooms.membership import Memberships, Target
from protocol.canonical_json import JsonObject
from protocol.errors import MissingParam
from protocol.identifiers import parse_room_alias, parse_room_id, parse_user_id


class Invite(msgspec.Struct, frozen=True):
    """The body of an invite."""

    user_id: str | None = None
    reason: str | None = None


@frozen(eq=False)
class Membership:
    """Who is in a room."""

    memberships: Memberships
    inviting: Inviting
    aliases: Aliases
    forgetting: Forgetting

    async def join(self, call: Call[Reason]) -> Reply:
        """POST …/rooms/{roomId}/join."""
        target = Target(room_of(call), vias_of(call))
        return await self._join(call, target)

    async def join_named(self, call: Call[Reason]) -> Reply:
        """POST /join/{roomIdOrAlias}."""
        return await self._join(call, await self._target(call))

    async def knock(self, call: Call[Reason]) -> Reply:
        """POST /knock/{roomIdOrAlias}."""
        target = await self._target(call)
        user_id = call.requester.user_id
        return {"room_id": await self.memberships.knock(user_id, target, call.body.extra(), call.now)}

    async def leave(self, call: Call[Reason]) -> Reply:
        """POST …/rooms/{roomId}/leave."""
        await self.memberships.leave(call.requester.user_id, room_of(call), call.body.extra(), call.now)
        return EMPTY

    async def invite(self, call: Call[Invite]) -> Reply:
        """POST …/rooms/{roomId}/invite."""
        if call.body.user_id is None:
            raise MissingParam("user_id: missing")
        extra: JsonObject = {} if call.body.reason is None else {"reason": call.body.reason}
        target = parse_user_id(call.body.user_id)
        await self.inviting.invite(room_of(call), call.requester.user_id, target, extra, call.now)
        return EMPTY

    async def kick(self, call: Call[bodies.Target]) -> Reply:
        """POST …/rooms/{roomId}/kick."""
        body, sender = call.body, call.requester.user_id
        await self.memberships.kick(sender, room_of(call), body.user(), body.extra(), call.now)
        return EMPTY

    async def ban(self, call: Call[bodies.Target]) -> Reply:
        """POST …/rooms/{roomId}/ban."""
        body, sender = call.body, call.requester.user_id
        await self.memberships.ban(sender, room_of(call), body.user(), body.extra(), call.now)
        return EMPTY

    async def unban(self, call: Call[bodies.Target]) -> Reply:
        """POST …/rooms/{roomId}/unban."""
        body, sender = call.body, call.requester.user_id
        await self.memberships.unban(sender, room_of(call), body.user(), body.extra(), call.now)
        return EMPTY

    async def forget(self, call: Call[Any]) -> Reply:
        """POST …/rooms/{roomId}/forget."""
        await self.forgetting.forget(call.requester.user_id, room_of(call))
        return EMPTY

    async def joined_rooms(self, call: Call[Any]) -> Reply:
        """GET /joined_rooms."""
        return {"joined_rooms": await self.forgetting.joined_rooms(call.requester.user_nid)}

    async def _join(self, call: Call[Reason], target: Target) -> Reply:
        extra, user_id = call.body.extra(), call.requester.user_id
        return {"room_id": await self.memberships.join(user_id, target, extra, call.now)}

    async def _target(self, call: Call[Any]) -> Target:
        named = call.path["roomIdOrAlias"]
        if not named.startswith("#"):
            return Target(parse_room_id(named), vias_of(call))
        resolved = await self.aliases.resolve(parse_room_alias(named))
        return Target(resolved.room_id, tuple(dict.fromkeys((*vias_of(call), *resolved.servers))))

    def routes(self) -> tuple[Route, ...]:
        """List what this family serves."""
        room = "/rooms/{roomId}"
        joins, writes = RateClass.JOINS, RateClass.WRITES
        return (
            Route("POST", v3(f"{room}/join"), self.join, body=Reason, limit=joins, auth=Auth.GUEST),
            Route(
                "POST",
                v3("/join/{roomIdOrAlias}"),
                self.join_named,
                body=Reason,
                limit=joins,
                auth=Auth.GUEST,
            ),
            Route("POST", v3("/knock/{roomIdOrAlias}"), self.knock, body=Reason, limit=joins),
            Route(
                "POST",
                v3(f"{room}/leave"),
                self.leave,
                body=Reason,
                limit=writes,
                auth=Auth.GUEST,
                while_suspended=True,
            ),
            Route("POST", v3(f"{room}/invite"), self.invite, body=Invite, limit=RateClass.INVITES),
            Route("POST", v3(f"{room}/kick"), self.kick, body=bodies.Target, limit=writes),
            Route("POST", v3(f"{room}/ban"), self.ban, body=bodies.Target, limit=writes),
            Route("POST", v3(f"{room}/unban"), self.unban, body=bodies.Target, limit=writes),
            Route("POST", v3(f"{room}/forget"), self.forget, limit=writes, auth=Auth.GUEST),
            Route("GET", v3("/joined_rooms"), self.joined_rooms, auth=Auth.GUEST),
        )
