"""Servers through which a room that is not here can be reached."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from homeserver.events.event_store import Events
from homeserver.events.nids import Nids
from homeserver.events.outside import servers_named
from protocol.identifiers import RoomID, ServerName, UserID, server_of
from storage import memberships, stripped_states
from storage.database import Database
from storage.memberships import Membership, UserRoom


@frozen(eq=False)
class Vias:
    """Knows what users have to do with rooms that are elsewhere, and which servers are in them."""

    server_name: ServerName
    database: Database
    nids: Nids
    events: Events

    async def of_own_membership(self, user_id: UserID, room_id: RoomID) -> Sequence[ServerName]:
        """Give servers that know of a user's invite or knock: the inviter's, and those the room has shown.

        The last resort is the domain of the room ID, which room versions up to 11 have.
        """
        found: dict[ServerName, None] = {}
        row = await self._membership(user_id, room_id)
        stored = {} if row is None else await self.events.by_nid(row.room_nid, (row.event_nid,))
        for each in stored.values():
            found[server_of(each.event.sender)] = None
        if row is not None:
            found |= dict.fromkeys(await self._shown_to(user_id, row.room_nid))
        if ":" in room_id:
            found[server_of(room_id)] = None
        found.pop(self.server_name, None)
        return list(found)

    async def _shown_to(self, user_id: UserID, room_nid: int) -> Sequence[ServerName]:
        """Give the servers of those whom an invite, or the answer to a knock, has shown."""
        user_nid = await self.nids.user(user_id)
        shown = await self.database.read(stripped_states.of_user, user_nid, [room_nid])
        return servers_named(shown.get(room_nid, b"[]"))

    async def own_membership(self, user_id: UserID, room_id: RoomID) -> Membership | None:
        """Give what a user has to do with a room, here or elsewhere; None: nothing, and never had."""
        row = await self._membership(user_id, room_id)
        return None if row is None else Membership(row.membership)

    async def _membership(self, user_id: UserID, room_id: RoomID) -> UserRoom | None:
        room_nid = await self.nids.room(room_id)
        if room_nid is None:
            return None
        user_nid = await self.nids.user(user_id)
        return await self.database.read(memberships.membership_of, room_nid, user_nid)
