"""Forgetting rooms that were left, and listing those one is in.

Source: client-server-api/_index.md, "Leaving rooms".
"""

from __future__ import annotations

from attrs import frozen

from homeserver.events.nids import Nids
from homeserver.events.persister import Persister
from homeserver.events.write import Write
from protocol.errors import InvalidParam, NotFound
from protocol.identifiers import RoomID, UserID
from storage import memberships
from storage.database import Database
from storage.feed import Kind, NewEntry
from storage.memberships import Membership


@frozen(eq=False)
class Forgetting:
    """Which rooms a user has to do with."""

    database: Database
    nids: Nids
    persister: Persister

    async def joined_rooms(self, user_nid: int) -> list[RoomID]:
        """Give the rooms a user is in."""
        rows = await self.database.read(memberships.rooms_of_user, user_nid, [Membership.JOIN])
        return [(await self.nids.room_of(row.room_nid)).room_id for row in rows]

    async def forget(self, user_id: UserID, room_id: RoomID) -> None:
        """Let a room that the user has left vanish from their history.

        Raises:
            NotFound: the user never was in the room.
            InvalidParam: the user is in the room still.
        """
        room_nid, user_nid = await self.nids.room(room_id), await self.nids.user(user_id)
        row = None
        if room_nid is not None:
            row = await self.database.read(memberships.membership_of, room_nid, user_nid)
        if row is None or room_nid is None:
            raise NotFound("You have never been in this room")
        if row.membership not in (Membership.LEAVE, Membership.BAN):
            raise InvalidParam("You must leave the room before you forget it")
        if await self.database.write(memberships.forget, room_nid, user_nid):
            entry = NewEntry(Kind.FORGET, room_nid=room_nid, user_nid=user_nid)
            await self.persister.commit(Write(entries=(entry,)))
