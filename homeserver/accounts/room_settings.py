"""What users have set for rooms: tags, push rules, and whose private conversation it is.

Source: client-server-api/modules/room_upgrades.md, "Server behaviour".
"""

from __future__ import annotations

from contextlib import suppress

from attrs import frozen

from homeserver.accounts.account_data import DirectRooms
from homeserver.accounts.push_rules import UserPushRules
from homeserver.accounts.tags import Tags
from homeserver.events.nids import Nids
from protocol.errors import InvalidParam
from protocol.identifiers import RoomID, UserID


@frozen(eq=False)
class RoomSettings:
    """The settings of local users."""

    nids: Nids
    tags: Tags
    push_rules: UserPushRules
    direct: DirectRooms

    async def carry(self, user_id: UserID, old: RoomID, new: RoomID) -> None:
        """Set for a room what is set for the one it replaces, where nothing is set for it yet."""
        user_nid = await self.nids.user(user_id)
        tags = await self.tags.get(user_nid, old)
        if tags and not await self.tags.get(user_nid, new):
            for tag, content in tags.items():
                await self.tags.put(user_nid, new, tag, content)
        with suppress(InvalidParam):  # with more rules there would be too many
            await self.push_rules.edit(user_id, user_nid, lambda rules: rules.copied(old, new))
        for other, rooms in (await self.direct.get(user_id)).items():
            if isinstance(rooms, list) and old in rooms:
                await self.direct.add(user_id, UserID(other), new)
