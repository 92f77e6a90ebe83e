"""Servers through which a room that is not here can be reached."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from homeserver.events.event_store import Events
from homeserver.events.nids import Nids
from protocol.identifiers import RoomID, ServerName, UserID, server_of
from storage import memberships
from storage.database import Database


@frozen(eq=False)
class Vias:
    """Looks for servers that are in a room."""

    server_name: ServerName
    database: Database
    nids: Nids
    events: Events

    async def of_own_membership(self, user_id: UserID, room_id: RoomID) -> Sequence[ServerName]:
        """Give the server of whoever invited the user, or the server the user knocked through.

        The last resort is the domain of the room ID, which room versions up to 11 have.
        """
        found: dict[ServerName, None] = {}
        room_nid = await self.nids.room(room_id)
        if room_nid is not None:
            user_nid = await self.nids.user(user_id)
            row = await self.database.read(memberships.membership_of, room_nid, user_nid)
            stored = {} if row is None else await self.events.by_nid(room_nid, (row.event_nid,))
            for each in stored.values():
                found[server_of(each.event.sender)] = None
        if ":" in room_id:
            found[server_of(room_id)] = None
        found.pop(self.server_name, None)
        return list(found)
