"""Where a user has read a room to the end, for that user's own devices alone.

Source: client-server-api/modules/read_markers.md.
"""

from __future__ import annotations

from attrs import frozen

from homeserver.accounts.account_data import AccountData
from homeserver.events.heads import Heads
from homeserver.events.nids import Nids
from protocol.errors import Forbidden
from protocol.identifiers import EventID, RoomID, UserID


@frozen(eq=False)
class FullyReadMarkers:
    """Keeps `m.fully_read`."""

    data: AccountData
    nids: Nids
    heads: Heads

    async def set_fully_read(self, user_id: UserID, room_id: RoomID, event_id: EventID) -> None:
        """Put the marker into the user's account data of the room; raises `Forbidden` for non-members."""
        room_nid = await self.nids.room(room_id)
        if room_nid is None or user_id not in (await self.heads.get(room_nid)).local_members:
            raise Forbidden("You are not in this room")
        user_nid = await self.nids.user(user_id)
        await self.data.set(user_nid, room_nid, "m.fully_read", {"event_id": event_id})
