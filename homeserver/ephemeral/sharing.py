"""Who may see whose presence: users who share a room, as far as the rooms' heads are in memory.

The rooms of a user whose presence is known are read once and forgotten when a membership changes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence

from attrs import Factory, define

from homeserver.events.heads import Heads, RoomHead
from homeserver.events.nids import Nids
from homeserver.sync.session import Session
from protocol.identifiers import ServerName, UserID
from storage import memberships
from storage.database import Database
from storage.feed import Entry, Flag
from storage.memberships import Membership

MAX_USERS = 20_000
MAX_ROOMS = 500
"""Rooms of one user that are looked at."""


@define(eq=False)
class RoomSharing:
    """Knows which rooms users of known presence are in."""

    database: Database
    nids: Nids
    heads: Heads
    _rooms: OrderedDict[int, tuple[int, ...]] = Factory(OrderedDict)

    async def load(self, user_id: UserID) -> None:
        """Read a user's rooms, and see that their heads are in memory."""
        user_nid = await self.nids.user(user_id)
        if user_nid in self._rooms:
            return
        rows = await self.database.read(memberships.rooms_of_user, user_nid, [Membership.JOIN])
        rooms = tuple(row.room_nid for row in rows[:MAX_ROOMS])
        await self.heads.load(rooms)
        self._rooms[user_nid] = rooms
        if len(self._rooms) > MAX_USERS:
            self._rooms.popitem(last=False)

    def sees(self, session: Session, user_id: UserID) -> bool:
        """Tell whether the session's user shares a room with `user_id`."""
        return any(session.user_id in head.local_members for head in self._heads_of(user_id))

    def servers_of(self, user_id: UserID) -> set[ServerName]:
        """Give the servers that share a room with a user, our own among them."""
        return {server for head in self._heads_of(user_id) for server in head.servers}

    def rooms_of(self, user_id: UserID) -> tuple[int, ...]:
        """Give the nids of the rooms a user of known presence is in, as far as they were read."""
        user_nid = self.nids.known_user(user_id)
        return () if user_nid is None else self._rooms.get(user_nid, ())

    def apply(self, entries: Sequence[Entry]) -> None:
        """Follow the feed: who joined or left is to be read again."""
        for entry in entries:
            if entry.flags & Flag.MEMBERSHIP and entry.user_nid is not None:
                self._rooms.pop(entry.user_nid, None)

    def _heads_of(self, user_id: UserID) -> Iterator[RoomHead]:
        for room_nid in self.rooms_of(user_id):
            head = self.heads.peek(room_nid)
            if head is not None:
                yield head
