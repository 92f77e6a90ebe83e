"""Making and upgrading rooms.

Source: client-server-api/_index.md, "Creation"; modules/room_upgrades.md.
"""

from __future__ import annotations

from typing import Any

import msgspec
from attrs import frozen

from client_api.bodies import room_of
from client_api.paths import v3
from homeserver.http.calls import Call, Reply
from homeserver.http.routing import RateClass, Route
from homeserver.rooms.creation import Creation, InitialState, RoomSpec
from homeserver.rooms.presets import Preset, Visibility
from homeserver.rooms.upgrades import Upgrades
from protocol.errors import InvalidParam
from protocol.identifiers import RoomAlias, ServerName, parse_room_alias, parse_user_id
from protocol.room_versions import get_room_version


class StateEvent(msgspec.Struct, frozen=True):
    """A state event to begin with."""

    type: str
    content: dict[str, Any]
    state_key: str = ""


class CreateRoom(msgspec.Struct, frozen=True):
    """The body of `createRoom`."""

    visibility: Visibility = Visibility.PRIVATE
    room_alias_name: str | None = None
    name: str | None = None
    topic: str | None = None
    invite: tuple[str, ...] = ()
    invite_3pid: tuple[dict[str, Any], ...] = ()
    room_version: str | None = None
    creation_content: dict[str, Any] = {}
    initial_state: tuple[StateEvent, ...] = ()
    preset: Preset | None = None
    is_direct: bool = False
    power_level_content_override: dict[str, Any] = {}


class UpgradeRoom(msgspec.Struct, frozen=True):
    """The body of an upgrade."""

    new_version: str
    additional_creators: tuple[str, ...] = ()


@frozen(eq=False)
class Rooms:
    """Rooms come and are replaced."""

    server_name: ServerName
    creation: Creation
    upgrades: Upgrades

    async def create(self, call: Call[CreateRoom]) -> Reply:
        """POST /createRoom."""
        body = call.body
        if body.invite_3pid:
            raise InvalidParam("invite_3pid: this server has no identity server")
        spec = RoomSpec(
            call.requester.user_id,
            self.creation.version_of(body.room_version),
            body.visibility,
            body.preset,
            body.name,
            body.topic,
            None if body.room_alias_name is None else self._alias(body.room_alias_name),
            tuple(parse_user_id(user) for user in body.invite),
            body.is_direct,
            body.creation_content,
            tuple(InitialState(event.type, event.content, event.state_key) for event in body.initial_state),
            body.power_level_content_override,
        )
        return {"room_id": await self.creation.create(spec, call.now)}

    async def upgrade(self, call: Call[UpgradeRoom]) -> Reply:
        """POST …/rooms/{roomId}/upgrade."""
        version = get_room_version(call.body.new_version)
        creators = [parse_user_id(user) for user in call.body.additional_creators]
        new_id = await self.upgrades.upgrade(
            call.requester.user_id, room_of(call), version, creators, call.now
        )
        return {"replacement_room": new_id}

    def _alias(self, localpart: str) -> RoomAlias:
        if not localpart or ":" in localpart or any(character.isspace() for character in localpart):
            raise InvalidParam("room_alias_name: must be a localpart")
        return parse_room_alias(f"#{localpart}:{self.server_name}")

    def routes(self) -> tuple[Route, ...]:
        """List what this family serves."""
        return (
            Route("POST", v3("/createRoom"), self.create, body=CreateRoom, limit=RateClass.ROOMS),
            Route(
                "POST",
                v3("/rooms/{roomId}/upgrade"),
                self.upgrade,
                body=UpgradeRoom,
                limit=RateClass.ROOMS,
            ),
        )
