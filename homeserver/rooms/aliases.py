"""Room aliases: making, resolving, removing them, and checking those a room claims.

Source: client-server-api/_index.md, "Room aliases"; modules of `m.room.canonical_alias`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen

from homeserver.events.heads import Heads
from homeserver.events.nids import Nids
from homeserver.rooms.ports import RemoteDirectory
from homeserver.rooms.powers import power_in
from protocol.errors import BadAlias, Forbidden, InvalidParam, MatrixError, NotFound, RoomInUse
from protocol.identifiers import RoomAlias, RoomID, ServerName, UserID, parse_room_alias, server_of
from storage import directory
from storage.database import Database

MAX_VIA = 20


@frozen
class Resolved:
    """The room of an alias, and servers to join it through."""

    room_id: RoomID
    servers: Sequence[ServerName]


@frozen(eq=False)
class Aliases:
    """Names of rooms."""

    server_name: ServerName
    database: Database
    nids: Nids
    heads: Heads
    remote: RemoteDirectory

    async def require_free(self, alias: RoomAlias) -> None:
        """Raise `InvalidParam` for another server's alias and `RoomInUse` for one that is taken."""
        self._require_own(alias)
        if await self.database.read(directory.alias, alias) is not None:
            raise RoomInUse(f"The alias {alias} is taken")

    async def add(self, alias: RoomAlias, room_id: RoomID, creator: UserID) -> None:
        """Make an alias of this server.

        Raises:
            InvalidParam: it is not of this server.
            NotFound: the room is not known here.
            RoomInUse: it is taken.
        """
        self._require_own(alias)
        room_nid = await self.nids.room(room_id)
        if room_nid is None:
            raise NotFound("This server does not know the room")
        creator_nid = await self.nids.user(creator)
        if not await self.database.write(directory.add_alias, alias, room_nid, creator_nid):
            raise RoomInUse(f"The alias {alias} is taken")

    async def resolve(self, alias: RoomAlias) -> Resolved:
        """Give the room of any server's alias; raises `NotFound`."""
        if server_of(alias) == self.server_name:
            return await self.resolve_own(alias)
        room_id, servers = await self.remote.resolve_alias(alias)
        return Resolved(room_id, list(dict.fromkeys((*servers, server_of(alias))))[:MAX_VIA])

    async def resolve_own(self, alias: RoomAlias) -> Resolved:
        """Give the room of an alias of this server; raises `NotFound`."""
        row = await self.database.read(directory.alias, alias)
        if row is None:
            raise NotFound(f"There is no room with the alias {alias}")
        room = await self.nids.room_of(row.room_nid)
        return Resolved(room.room_id, await self._servers_in(row.room_nid))

    async def remove(self, alias: RoomAlias, user_id: UserID) -> None:
        """Remove an alias of this server, as its maker or with the power to set the canonical alias.

        Raises:
            NotFound: there is no such alias.
            Forbidden: the user may not.
        """
        self._require_own(alias)
        row = await self.database.read(directory.alias, alias)
        if row is None:
            raise NotFound(f"There is no room with the alias {alias}")
        if row.creator_nid != await self.nids.user(user_id):
            await self._require_power(row.room_nid, user_id)
        await self.database.write(directory.remove_alias, alias)

    async def list(self, room_id: RoomID) -> Sequence[str]:
        """Give this server's aliases of a room."""
        room_nid = await self.nids.room(room_id)
        return [] if room_nid is None else await self.database.read(directory.aliases_of, room_nid)

    async def move(self, old: RoomID, new: RoomID) -> None:
        """Let all aliases of a room that was upgraded point at the new one."""
        old_nid, new_nid = await self.nids.room(old), await self.nids.room(new)
        if old_nid is not None and new_nid is not None:
            await self.database.write(directory.move_aliases, old_nid, new_nid)

    async def check_canonical(self, room_id: RoomID, content: Mapping[str, Any]) -> None:
        """Check the aliases that a new `m.room.canonical_alias` claims; an empty `alias` is none.

        Raises:
            InvalidParam: one is no alias.
            BadAlias: one does not point at the room.
        """
        first = content.get("alias")
        for text in (*([] if first in (None, "") else [first]), *_listed(content.get("alt_aliases"))):
            alias = parse_room_alias(text)
            try:
                resolved = await self.resolve(alias)
            except MatrixError as error:
                raise BadAlias(f"The alias {alias} does not point at the room: {error.error}") from None
            if resolved.room_id != room_id:
                raise BadAlias(f"The alias {alias} points at another room")

    def _require_own(self, alias: RoomAlias) -> None:
        if server_of(alias) != self.server_name:
            raise InvalidParam(f"The alias must be of this server, {self.server_name}")

    async def _require_power(self, room_nid: int, user_id: UserID) -> None:
        try:
            head = await self.heads.get(room_nid)
        except NotFound:
            raise Forbidden("You may not remove this alias") from None
        power = await power_in(head)
        allowed = user_id in head.local_members and power.user(user_id) >= power.event(
            "m.room.canonical_alias", True
        )
        if not allowed:
            raise Forbidden("You may not remove this alias")

    async def _servers_in(self, room_nid: int) -> Sequence[ServerName]:
        try:
            head = await self.heads.get(room_nid)
        except NotFound:
            return [self.server_name]
        by_size = sorted(head.servers, key=lambda server: -head.servers[server])
        return list(dict.fromkeys((self.server_name, *by_size)))[:MAX_VIA]


def _listed(value: object) -> Sequence[object]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise InvalidParam("alt_aliases: must be a list")
    return value
