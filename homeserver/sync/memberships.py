"""Which rooms a user is in, in memory for users who sync, moved by the feed.

What an entry tells for certain is applied; where a fork was resolved, the users concerned are forgotten
and read again. Bound: `size` users, the least recently used go first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence

from attrs import define, frozen

from homeserver.events.stored import StoredEvent
from homeserver.single_flight import SingleFlight
from homeserver.sync.spans import is_straight
from homeserver.sync.tokens import Positions
from protocol.identifiers import RoomID
from storage import client_events, memberships
from storage.database import Database, Transaction
from storage.feed import Entry, Flag, Kind, tail
from storage.memberships import BY_NAME, Membership

ALL = (Membership.LEAVE, Membership.JOIN, Membership.INVITE, Membership.KNOCK, Membership.BAN)
_FORGETTING = (Kind.INVITE, Kind.FORGET)


@frozen
class UserRoom:
    """A user's present relation to a room."""

    room_nid: int
    room_id: RoomID
    membership: Membership
    event_nid: int
    forgotten: bool


@define(eq=False)
class _Held:
    """One user's rooms in memory."""

    rooms: dict[int, UserRoom]


class UserRooms:
    """The rooms of users: every membership they have or had."""

    def __init__(self, database: Database, feed: Positions, size: int = 5000) -> None:
        """Start with nobody."""
        self._database = database
        self._feed = feed
        self._size = size
        self._held: OrderedDict[int, _Held] = OrderedDict()
        self._by_room: dict[int, set[int]] = {}
        self._reading: SingleFlight[int, None] = SingleFlight()
        self._stale: dict[int, bool] = {}
        """Users whose rooms are being read, and whether one has changed since that began."""
        self._unsettled: set[int] = set()
        self._roots: dict[int, bytes] = {}

    async def of(self, user_nid: int) -> Mapping[int, UserRoom]:
        """Give a user's rooms as of the feed's position, by room nid."""
        held = self._held.get(user_nid)
        while held is None:
            await self._reading.run(user_nid, lambda: self._read(user_nid))
            held = self._held.get(user_nid)
        self._held.move_to_end(user_nid)
        return held.rooms

    async def _read(self, user_nid: int) -> None:
        """Read a user's rooms, and keep them unless one has changed meanwhile; once at a time for a user."""
        self._stale[user_nid] = False
        try:
            pos, rooms = await self._database.read(read_rooms, user_nid)
            if pos > self._feed.position:
                await self._feed.catch_up()
        finally:
            is_stale = self._stale.pop(user_nid)
        if pos <= self._feed.position and not is_stale:
            self._hold(user_nid, rooms)

    def known_users(self, room_nid: int) -> Collection[int]:
        """Give the users held who have anything to do with a room."""
        return self._by_room.get(room_nid, ())

    def is_joined(self, user_nid: int, room_nid: int) -> bool:
        """Tell whether a user is held and joined in a room."""
        held = self._held.get(user_nid)
        room = None if held is None else held.rooms.get(room_nid)
        return room is not None and room.membership is Membership.JOIN

    def take_unsettled(self) -> set[int]:
        """Give the users no longer held since the last call: anything may concern them."""
        unsettled, self._unsettled = self._unsettled, set()
        return unsettled

    def apply(self, entries: Sequence[Entry]) -> None:
        """Follow the feed. A listener, before any session is woken."""
        for entry in entries:
            if entry.room_nid is None:
                continue
            if entry.kind in _FORGETTING:
                self._drop(entry.user_nid)
            elif entry.kind == Kind.STATE or (entry.kind == Kind.EVENT and not is_straight(entry)):
                if self._roots.get(entry.room_nid) != entry.root:
                    self._drop_room(entry.room_nid)
                self._drop(entry.user_nid)
            elif entry.kind == Kind.EVENT and entry.flags & Flag.MEMBERSHIP:
                self._change(entry)
            if entry.root is not None and entry.room_nid in self._by_room:
                self._roots[entry.room_nid] = entry.root

    def _change(self, entry: Entry) -> None:
        """Apply a membership change that is certain, if the event is at hand."""
        if entry.user_nid in self._stale:
            self._stale[entry.user_nid] = True
        held = None if entry.user_nid is None else self._held.get(entry.user_nid)
        if held is None or entry.room_nid is None or entry.user_nid is None:
            return
        stored = entry.payload
        known = held.rooms.get(entry.room_nid)
        name = stored.event.membership if isinstance(stored, StoredEvent) else None
        if name not in BY_NAME or not isinstance(stored, StoredEvent):
            self._drop(entry.user_nid)
            return
        room_id = stored.event.room_id if known is None else known.room_id
        room = UserRoom(entry.room_nid, room_id, BY_NAME[name], stored.nid, False)
        held.rooms = {**held.rooms, entry.room_nid: room}
        self._by_room.setdefault(entry.room_nid, set()).add(entry.user_nid)

    def _hold(self, user_nid: int, rooms: dict[int, UserRoom]) -> None:
        """Keep one more user's rooms."""
        self._held[user_nid] = _Held(rooms)
        for room_nid in rooms:
            self._by_room.setdefault(room_nid, set()).add(user_nid)
        if len(self._held) > self._size:
            self._drop(next(iter(self._held)))

    def _drop_room(self, room_nid: int) -> None:
        """Forget everybody who has to do with a room."""
        self._stale = dict.fromkeys(self._stale, True)
        for user_nid in list(self._by_room.get(room_nid, ())):
            self._drop(user_nid)

    def _drop(self, user_nid: int | None) -> None:
        """Forget one user."""
        if user_nid in self._stale:
            self._stale[user_nid] = True
        held = self._held.pop(user_nid, None) if user_nid is not None else None
        if held is not None and user_nid is not None:
            self._unsettled.add(user_nid)
        for room_nid in held.rooms if held is not None else ():
            users = self._by_room.get(room_nid)
            if users is not None and user_nid is not None:
                users.discard(user_nid)
                if not users:
                    del self._by_room[room_nid]
                    self._roots.pop(room_nid, None)


def read_rooms(tx: Transaction, user_nid: int) -> tuple[int, dict[int, UserRoom]]:
    """Read a user's rooms, and the position of the feed they are of."""
    rows = memberships.rooms_of_user(tx, user_nid, ALL)
    ids = client_events.room_ids(tx, [row.room_nid for row in rows])
    return tail(tx), {
        row.room_nid: UserRoom(
            row.room_nid,
            RoomID(ids[row.room_nid]),
            Membership(row.membership),
            row.event_nid,
            bool(row.forgotten),
        )
        for row in rows
        if row.room_nid in ids
    }
