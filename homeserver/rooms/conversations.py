"""Private conversations: the one room of two users, found or made, never made twice.

A private conversation is a room of which both are members (or one is still invited) and which either of
them holds under the other's name in `m.direct`. What the other holds counts only if nobody else is in that
room: nobody can lead a user's words to them before an audience.

Source: protocol/spec.md, "Messages"; client-server-api/modules/dm.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from attrs import Factory, frozen

from homeserver.events.heads import Heads
from homeserver.events.write import TransactionRepeated
from homeserver.rooms.creation import Creation, RoomSpec
from homeserver.rooms.membership import Memberships, Target, membership_in
from homeserver.rooms.pairs import PairRooms
from homeserver.rooms.ports import DirectRooms
from homeserver.rooms.presets import Preset
from homeserver.turns import Turns
from protocol.errors import InvalidParam
from protocol.identifiers import RoomID, ServerName, UserID, server_of

_HERE = frozenset({"join", "invite"})

WAITS = 40
"""Looks for the invite into a room that is just being made elsewhere."""
WAIT_SECONDS = 0.05


@frozen(eq=False)
class Conversations:
    """Finds and makes private conversations."""

    server_name: ServerName
    heads: Heads
    pairs: PairRooms
    creation: Creation
    memberships: Memberships
    direct: DirectRooms
    _turns: Turns[tuple[UserID, ...]] = Factory(Turns)

    async def with_user(self, user_id: UserID, other: UserID, now: int) -> RoomID:
        """Give the private conversation of two users, making it if there is none, with `user_id` in it.

        Raises:
            InvalidParam: a user cannot have one with themselves.
            NotFound: the other is of this server and does not exist.
        """
        if user_id == other:
            raise InvalidParam("to: you cannot have a private conversation with yourself")
        pair = tuple(sorted((user_id, other)))
        await self._turns.take(pair)
        try:
            found = await self.find(user_id, other)
            if found is None:
                found = await self._make(user_id, other, now)
            await self._complete(found, user_id, other, now)
            return found
        finally:
            self._turns.give(pair)

    async def ready(self, user_id: UserID, other: UserID) -> RoomID | None:
        """Give the conversation of two users if `user_id` is in it, and the other at least invited."""
        found = await self.find(user_id, other)
        head = None if found is None else await self.heads.of_resident(found)
        if head is None or await membership_in(head, user_id) != "join":
            return None
        return None if await membership_in(head, other) is None else found

    async def find(self, user_id: UserID, other: UserID) -> RoomID | None:
        """Give the private conversation of two users, None if there is none."""
        for room_id in _rooms_with(await self.direct.get(user_id), other):
            if await self._is_conversation(room_id, user_id, other, alone=False):
                return room_id
        if server_of(other) != self.server_name:
            return None
        for room_id in _rooms_with(await self.direct.get(other), user_id):
            if await self._is_conversation(room_id, user_id, other, alone=True):
                return room_id
        return None

    async def _is_conversation(self, room_id: RoomID, user_id: UserID, other: UserID, *, alone: bool) -> bool:
        head = await self.heads.of_resident(room_id)
        if head is None:
            return False
        found = [await membership_in(head, user_id), await membership_in(head, other)]
        is_private = sum(head.servers.values()) == found.count("join")
        if found == ["join", None]:
            return is_private  # it was made, but the invite failed
        if alone and not is_private:
            return False
        return "join" in found and _HERE.issuperset(found)

    async def _complete(self, room_id: RoomID, user_id: UserID, other: UserID, now: int) -> None:
        """See that the user is in the room, and the other at least invited; raises why they cannot be."""
        head = await self.heads.of_resident(room_id)
        if head is not None and await membership_in(head, other) is None:
            await self.creation.inviting.invite(room_id, user_id, other, {"is_direct": True}, now)
        await self.memberships.join(user_id, Target(room_id), {}, now)

    async def _make(self, user_id: UserID, other: UserID, now: int) -> RoomID:
        spec = RoomSpec(
            user_id,
            self.creation.version_of(None),
            preset=Preset.TRUSTED_PRIVATE,
            invite=(other,),
            is_direct=True,
        )
        room_id = await self._claim(spec, (user_id, other), now)
        await self.direct.add(user_id, other, room_id)
        if server_of(other) == self.server_name:
            await self.direct.add(other, user_id, room_id)
        return room_id

    async def _claim(self, spec: RoomSpec, users: tuple[UserID, UserID], now: int) -> RoomID:
        """Make the room, or give the one that another worker makes at the same time."""
        room_id: RoomID | None = None
        while True:
            claim = await self.pairs.claim(sorted(users), room_id)
            room_id = await self.pairs.begun(claim)
            if room_id is None:
                try:
                    return await self.creation.create(spec, now, claim)
                except TransactionRepeated:
                    room_id = await self.pairs.begun(claim)
            if room_id is not None and await self._stands(room_id, *users):
                return room_id

    async def _stands(self, room_id: RoomID, user_id: UserID, other: UserID) -> bool:
        """Tell whether a room that was made for two users is their conversation, once it is complete."""
        for _ in range(WAITS):
            await self.pairs.wait(0)
            head = await self.heads.of_resident(room_id)
            if head is None or None not in [await membership_in(head, each) for each in (user_id, other)]:
                break
            await self.pairs.wait(WAIT_SECONDS)
        return await self._is_conversation(room_id, user_id, other, alone=True)


def _rooms_with(direct: Mapping[str, Any], other: UserID) -> Iterator[RoomID]:
    rooms = direct.get(other)
    for room_id in rooms if isinstance(rooms, list) else ():
        if isinstance(room_id, str):
            yield RoomID(room_id)
