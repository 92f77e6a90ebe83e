"""Rooms that replace others: what a user has set for the old room is set for the new one too, on joining it.

A room is believed to replace another only if that one says so: else anybody could give a room of their own
the place of a user's favourite, or of a private conversation.

Source: client-server-api/modules/room_upgrades.md, "Server behaviour".
"""

from __future__ import annotations

from typing import Final

from attrs import frozen

from homeserver.events.heads import Heads
from homeserver.rooms.ports import RoomSettings
from homeserver.rooms.powers import CREATE
from protocol.errors import InvalidParam
from protocol.identifiers import RoomID, StateKey, UserID, parse_room_id

TOMBSTONE: Final[StateKey] = ("m.room.tombstone", "")


@frozen(eq=False)
class Succession:
    """Carries settings over."""

    heads: Heads
    settings: RoomSettings

    async def joined(self, user_id: UserID, room_id: RoomID) -> None:
        """Carry over what a user, who is in the room now, has set for the room it replaces, if it does."""
        old = await self._replaced(room_id)
        if old is not None:
            await self.settings.carry(user_id, old, room_id)

    async def _replaced(self, room_id: RoomID) -> RoomID | None:
        head = await self.heads.of_resident(room_id)
        create = None if head is None else (await head.state([CREATE])).get(CREATE)
        predecessor = None if create is None else create.content.get("predecessor")
        if not isinstance(predecessor, dict):
            return None
        try:
            old = parse_room_id(predecessor.get("room_id"))
        except InvalidParam:
            return None
        before = await self.heads.of_resident(old)
        tombstone = None if before is None else (await before.state([TOMBSTONE])).get(TOMBSTONE)
        if tombstone is None or tombstone.content.get("replacement_room") != room_id:
            return None
        return old
