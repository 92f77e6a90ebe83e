"""Aliases and the published room directory.

Source: client-server-api/_index.md, "Room aliases" and "Published room directory".
"""

from __future__ import annotations

from typing import Any

import msgspec
from attrs import frozen

from client_api.bodies import room_of
from client_api.paths import v3
from homeserver.events.heads import Heads
from homeserver.http.calls import EMPTY, Call, Reply
from homeserver.http.routing import Auth, RateClass, Route
from homeserver.rooms.aliases import Aliases
from homeserver.rooms.inviting import head_of
from homeserver.rooms.ports import RemoteDirectory
from homeserver.rooms.presets import Visibility
from homeserver.rooms.published import DirectoryQuery, Published
from protocol.errors import AliasTaken, Forbidden, InvalidParam, MissingToken, RoomInUse
from protocol.identifiers import RoomAlias, ServerName, parse_room_alias, parse_room_id, parse_server_name


class NewAlias(msgspec.Struct, frozen=True):
    """The body of a new alias."""

    room_id: str


class SetVisibility(msgspec.Struct, frozen=True):
    """The body of a change of the directory."""

    visibility: Visibility = Visibility.PUBLIC


class RoomFilter(msgspec.Struct, frozen=True):
    """Which rooms are asked for."""

    generic_search_term: str | None = None
    room_types: tuple[str | None, ...] | None = None


class PublicRooms(msgspec.Struct, frozen=True):
    """The body of a look into the directory."""

    limit: int = 100
    since: str | None = None
    filter: RoomFilter | None = None
    include_all_networks: bool = False
    third_party_instance_id: str | None = None


@frozen(eq=False)
class Directory:
    """Names of rooms, and rooms to be found."""

    server_name: ServerName
    aliases: Aliases
    published: Published
    remote: RemoteDirectory
    heads: Heads

    async def get_alias(self, call: Call[Any]) -> Reply:
        """GET /directory/room/{roomAlias}."""
        resolved = await self.aliases.resolve(_alias_of(call))
        return {"room_id": resolved.room_id, "servers": list(resolved.servers)}

    async def put_alias(self, call: Call[NewAlias]) -> Reply:
        """PUT /directory/room/{roomAlias}."""
        room_id = parse_room_id(call.body.room_id)
        head = await head_of(self.heads, self.aliases.nids, room_id)
        if call.requester.user_id not in head.local_members:
            raise Forbidden("You are not in this room")
        try:
            await self.aliases.add(_alias_of(call), room_id, call.requester.user_id)
        except RoomInUse as error:
            raise AliasTaken(error.error) from None
        return EMPTY

    async def delete_alias(self, call: Call[Any]) -> Reply:
        """DELETE /directory/room/{roomAlias}."""
        await self.aliases.remove(_alias_of(call), call.requester.user_id)
        return EMPTY

    async def aliases_of(self, call: Call[Any]) -> Reply:
        """GET …/rooms/{roomId}/aliases, for members."""
        room_id = room_of(call)
        head = await head_of(self.heads, self.aliases.nids, room_id)
        if call.requester.user_id not in head.local_members:
            raise Forbidden("You are not in this room")
        return {"aliases": list(await self.aliases.list(room_id))}

    async def get_visibility(self, call: Call[Any]) -> Reply:
        """GET /directory/list/room/{roomId}."""
        published = await self.published.is_published(room_of(call))
        return {"visibility": Visibility.PUBLIC if published else Visibility.PRIVATE}

    async def set_visibility(self, call: Call[SetVisibility]) -> Reply:
        """PUT /directory/list/room/{roomId}."""
        public = call.body.visibility is Visibility.PUBLIC
        await self.published.set_by(call.requester.user_id, room_of(call), public)
        return EMPTY

    async def list_rooms(self, call: Call[Any]) -> Reply:
        """GET /publicRooms."""
        limit = call.query.integer("limit", 100, least=1)
        return await self._page(call, PublicRooms(limit, call.query.get("since")))

    async def search_rooms(self, call: Call[PublicRooms]) -> Reply:
        """POST /publicRooms."""
        return await self._page(call, call.body)

    async def _page(self, call: Call[Any], wanted: PublicRooms) -> Reply:
        if wanted.limit < 1:
            raise InvalidParam("limit: must be at least 1")
        chosen = wanted.filter or RoomFilter()
        query = DirectoryQuery(
            wanted.limit,
            wanted.since,
            chosen.generic_search_term,
            chosen.room_types,
            wanted.include_all_networks,
            wanted.third_party_instance_id,
        )
        server = call.query.get("server")
        if server is None or server == self.server_name:
            return await self.published.page(query)
        if call.asker is None:  # else anybody could have this server knock at others' doors
            raise MissingToken("Only users of this server may look into the directories of others")
        return await self.remote.public_rooms(parse_server_name(server), query)

    def routes(self) -> tuple[Route, ...]:
        """List what this family serves."""
        alias, listed, writes = (
            v3("/directory/room/{roomAlias}"),
            "/directory/list/room/{roomId}",
            RateClass.WRITES,
        )
        return (
            Route("GET", alias, self.get_alias, auth=Auth.OPTIONAL),
            Route("PUT", alias, self.put_alias, body=NewAlias, limit=writes),
            Route("DELETE", alias, self.delete_alias, limit=writes),
            Route("GET", v3("/rooms/{roomId}/aliases"), self.aliases_of),
            Route("GET", v3(listed), self.get_visibility, auth=Auth.OPTIONAL),
            Route("PUT", v3(listed), self.set_visibility, body=SetVisibility, limit=writes),
            Route("GET", v3("/publicRooms"), self.list_rooms, auth=Auth.OPTIONAL),
            Route("POST", v3("/publicRooms"), self.search_rooms, body=PublicRooms),
        )


def _alias_of(call: Call[Any]) -> RoomAlias:
    return parse_room_alias(call.path["roomAlias"])
