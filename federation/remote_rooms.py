"""What the rooms' services ask of other servers, as they declare it (`homeserver.rooms.ports`)."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from federation.asking import told
from federation.inviting import Inviting
from federation.joining import Joining
from federation.knocking import Knocking
from federation.leaving import Leaving
from federation.queries import FederationQueries
from federation.templates import Wish
from homeserver.rooms.published import DirectoryQuery
from protocol.canonical_json import JsonObject
from protocol.errors import MatrixError, NotFound
from protocol.events import Event
from protocol.identifiers import RoomAlias, RoomID, ServerName, UserID


@frozen
class RemoteMemberships:
    """Acts in rooms through other servers."""

    joining: Joining
    knocking: Knocking
    leaving: Leaving
    inviting: Inviting

    async def join(
        self, user_id: UserID, room_id: RoomID, via: Sequence[ServerName], content: JsonObject
    ) -> None:
        """Join a room this server has no part in, through one of `via`; the room is then known here."""
        await self.joining.join(Wish(room_id, user_id, content), via)

    async def knock(
        self, user_id: UserID, room_id: RoomID, via: Sequence[ServerName], content: JsonObject
    ) -> None:
        """Knock on a room this server has no part in."""
        await self.knocking.knock(Wish(room_id, user_id, content), via)

    async def leave(
        self, user_id: UserID, room_id: RoomID, via: Sequence[ServerName], content: JsonObject
    ) -> None:
        """Reject an invite or take back a knock, through the server it goes to."""
        await self.leaving.leave(Wish(room_id, user_id, content), via)

    async def invite(self, event: Event, stripped_state: Sequence[Event]) -> Event:
        """Have the invited user's server sign an invite."""
        return await self.inviting.invite(event, stripped_state)


@frozen
class RemoteDirectories:
    """Asks other servers for their names of rooms."""

    queries: FederationQueries

    async def resolve_alias(self, alias: RoomAlias) -> tuple[RoomID, Sequence[ServerName]]:
        """Give the room of another server's alias and servers to join through; `NotFound` if none."""
        try:
            target = await self.queries.directory(alias)
        except MatrixError as error:
            reason = told(error)
            raise (
                NotFound(f"There is no room with the alias {alias}")
                if isinstance(reason, NotFound)
                else reason
            ) from None
        return target.room_id, target.servers

    async def public_rooms(self, server: ServerName, query: DirectoryQuery) -> JsonObject:
        """Give a page of another server's published rooms."""
        try:
            return await self.queries.public_rooms(server, query)
        except MatrixError as error:
            raise told(error) from None
