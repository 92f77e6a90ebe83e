"""Who may see whose presence: users who share a room.

The rooms of users who are heard of, or look, are read once and forgotten when a membership of theirs
changes. No room's head is needed: two users share a room if the rooms of both have one in common.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Sequence

from attrs import Factory, define

from homeserver.events.nids import Nids
from homeserver.single_flight import SingleFlight
from homeserver.sync.session import Session
from protocol.identifiers import ServerName, UserID
from storage import memberships
from storage.database import Database
from storage.feed import Entry, Flag
from storage.memberships import Membership

MAX_USERS = 20_000
_NOWHERE: frozenset[int] = frozenset()


@define(eq=False)
class RoomSharing:
    """Knows which rooms users are in, of those who are heard of or look."""

    database: Database
    nids: Nids
    _rooms: OrderedDict[int, frozenset[int]] = Factory(OrderedDict)
    _reading: dict[int, bool] = Factory(dict)
    """Users whose rooms are being read: whether a membership changed meanwhile."""
    _flights: SingleFlight[int, None] = Factory(SingleFlight)

    async def load(self, user_id: UserID) -> None:
        """Read a user's rooms, unless they are in memory."""
        await self._load(await self.nids.user(user_id))

    def knows(self, user_id: UserID) -> bool:
        """Tell whether a user's rooms are in memory: they are forgotten when one changes."""
        return self.nids.known_user(user_id) in self._rooms

    async def sight(self, session: Session) -> Collection[int]:
        """Give the rooms through which a session's user sees others."""
        await self._load(session.user_nid)
        return self._rooms.get(session.user_nid, _NOWHERE)

    def sees(self, sight: Collection[int], user_id: UserID) -> bool:
        """Tell whether one of the rooms is a room of a user of known presence."""
        return not self.rooms_of(user_id).isdisjoint(sight)

    async def servers_of(self, user_id: UserID) -> set[ServerName]:
        """Give the servers that share a room with a user, our own among them."""
        rooms = self.rooms_of(user_id)
        found = await self.database.read(memberships.servers_in, list(rooms)) if rooms else ()
        return {ServerName(server) for server in found}

    def rooms_of(self, user_id: UserID) -> frozenset[int]:
        """Give the nids of the rooms a user of known presence is in, as far as they were read."""
        user_nid = self.nids.known_user(user_id)
        return _NOWHERE if user_nid is None else self._rooms.get(user_nid, _NOWHERE)

    def apply(self, entries: Sequence[Entry]) -> None:
        """Follow the feed: who joined or left is to be read again."""
        for entry in entries:
            if entry.flags & Flag.MEMBERSHIP and entry.user_nid is not None:
                self._rooms.pop(entry.user_nid, None)
                if entry.user_nid in self._reading:
                    self._reading[entry.user_nid] = True

    async def _load(self, user_nid: int) -> None:
        """See that a user's rooms are in memory."""
        if user_nid in self._rooms:
            self._rooms.move_to_end(user_nid)
        else:
            await self._flights.run(user_nid, lambda: self._read(user_nid))

    async def _read(self, user_nid: int) -> None:
        """Read a user's rooms, again if one changed meanwhile."""
        while user_nid not in self._rooms:
            self._reading[user_nid] = False
            try:
                rows = await self.database.read(memberships.rooms_of_user, user_nid, [Membership.JOIN])
            finally:
                changed = self._reading.pop(user_nid)
            if not changed:
                self._rooms[user_nid] = frozenset(row.room_nid for row in rows)
        if len(self._rooms) > MAX_USERS:
            self._rooms.popitem(last=False)
