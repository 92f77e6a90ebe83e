"""Numbers for names: events get theirs from a block in memory, users and rooms by unique key.

Only this module hands numbers out; the database sees to it that no two workers hand out the same.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable
from typing import Generic, TypeVar

from attrs import frozen

from homeserver.background import run_in_background
from homeserver.single_flight import SingleFlight
from protocol.errors import NotFound
from protocol.identifiers import RoomID, UserID
from protocol.room_versions import RoomVersion, get_room_version
from storage import nids
from storage.database import Database

K = TypeVar("K")
V = TypeVar("V")

EVENT_BLOCK = 2_000
ROOM_BLOCK = 20
MAX_USERS = 50_000
MAX_ROOMS = 20_000


@frozen
class Room:
    """A room known here."""

    nid: int
    room_id: RoomID
    version: RoomVersion


class _Recent(OrderedDict[K, V], Generic[K, V]):
    """A dictionary that forgets the oldest entries beyond a bound."""

    def __init__(self, bound: int) -> None:
        super().__init__()
        self._bound = bound

    def __setitem__(self, key: K, value: V) -> None:
        super().__setitem__(key, value)
        if len(self) > self._bound:
            self.popitem(last=False)


class Block:
    """Numbers of one kind, taken from the database many at a time."""

    def __init__(self, database: Database, name: str, size: int) -> None:
        """Take `size` numbers at a time. Starts empty: `ready` must be awaited first."""
        self._database = database
        self._name = name
        self._size = size
        self._next = 0
        self._end = 0
        self._spare: tuple[int, int] | None = None
        self._filling: SingleFlight[None, None] = SingleFlight()
        self._refilling = False

    def take(self) -> int:
        """Give the next number; `ready` has seen to it that there is one."""
        if self._next == self._end:
            assert self._spare is not None, "await ready() first"
            self._next, self._end = self._spare
            self._spare = None
        number = self._next
        self._next += 1
        if 2 * (self._end - self._next) < self._size and self._spare is None and not self._refilling:
            self._refilling = True
            run_in_background(self._refill(self._size), "taking a block of numbers")
        return number

    def has(self, count: int) -> bool:
        """Tell whether `count` numbers can be taken now."""
        spare = 0 if self._spare is None else self._spare[1] - self._spare[0]
        return self._end - self._next + spare >= count

    async def ready(self, count: int) -> None:
        """See to it that `count` numbers can be taken until the next wait."""
        while not self.has(count):
            await self._refill(max(count, self._size))

    async def _refill(self, size: int) -> None:
        try:
            await self._filling.run(None, lambda: self._fetch(size))
        finally:
            self._refilling = False

    async def _fetch(self, size: int) -> None:
        """Take numbers; a spare that does not suffice is given up."""
        first = await self._database.write(nids.take, self._name, size)
        if self._next == self._end:
            self._next, self._end = first, first + size
        elif self._spare is None or self._spare[1] - self._spare[0] < size:
            self._spare = (first, first + size)


class Nids:
    """Look up and hand out the numbers of events, users and rooms."""

    def __init__(self, database: Database) -> None:
        """Keep numbers in `database`."""
        self._database = database
        self.events = Block(database, nids.EVENT_NUMBERS, EVENT_BLOCK)
        self.new_rooms = Block(database, nids.ROOM_NUMBERS, ROOM_BLOCK)
        self.receipts = Block(database, nids.RECEIPT_NUMBERS, EVENT_BLOCK)
        self.messages = Block(database, nids.MESSAGE_NUMBERS, EVENT_BLOCK)
        self._users: _Recent[UserID, int] = _Recent(MAX_USERS)
        self._user_ids: _Recent[int, UserID] = _Recent(MAX_USERS)
        self._rooms: _Recent[RoomID, Room] = _Recent(MAX_ROOMS)
        self._asking: SingleFlight[RoomID, Room | None] = SingleFlight()
        self._rooms_by_nid: _Recent[int, Room] = _Recent(MAX_ROOMS)

    def next_event(self) -> int:
        """Give a number for a new event; `await events.ready(n)` has come before."""
        return self.events.take()

    def remember_user(self, user_id: UserID, nid: int) -> None:
        """Keep a user's number that is committed."""
        self._users[user_id] = nid
        self._user_ids[nid] = user_id

    def known_user(self, user_id: UserID) -> int | None:
        """Give a user's number if it is in memory."""
        return self._users.get(user_id)

    async def user(self, user_id: UserID) -> int:
        """Give a user's number, making one for a user never seen."""
        nid = self._users.get(user_id)
        return nid if nid is not None else (await self.users((user_id,)))[user_id]

    async def users(self, user_ids: Collection[UserID]) -> dict[UserID, int]:
        """Give users' numbers, making those of users never seen."""
        found = await self.known_users(user_ids)
        unknown = [user_id for user_id in user_ids if user_id not in found]
        if unknown:
            found |= self._remember_users(await self._database.write(nids.new_users, unknown))
        return found

    async def known_users(self, user_ids: Collection[UserID]) -> dict[UserID, int]:
        """Give the numbers of those users that have one: strangers named by others leave no trace."""
        found = {user_id: self._users[user_id] for user_id in user_ids if user_id in self._users}
        missing = [user_id for user_id in user_ids if user_id not in found]
        if missing:
            found |= self._remember_users(await self._database.read(nids.users, missing))
        return found

    async def user_ids(self, user_nids: Iterable[int]) -> dict[int, UserID]:
        """Give the users of numbers; numbers never handed out are absent."""
        wanted = set(user_nids)
        found = {nid: self._user_ids[nid] for nid in wanted if nid in self._user_ids}
        missing = [nid for nid in wanted if nid not in found]
        if missing:
            loaded = await self._database.read(nids.user_ids, missing)
            self._remember_users({user_id: nid for nid, user_id in loaded.items()})
            found |= {nid: UserID(user_id) for nid, user_id in loaded.items()}
        return found

    async def room(self, room_id: RoomID) -> int | None:
        """Give a room's number, None for a room not known here."""
        room = await self.known_room(room_id)
        return None if room is None else room.nid

    def room_in_memory(self, room_id: RoomID) -> Room | None:
        """Give a room if it is in memory."""
        return self._rooms.get(room_id)

    async def known_room(self, room_id: RoomID) -> Room | None:
        """Look a room up by its ID; None for a room not known here."""
        room = self._rooms.get(room_id)
        return room if room is not None else await self._asking.run(room_id, lambda: self._find(room_id))

    async def _find(self, room_id: RoomID) -> Room | None:
        row = await self._database.read(nids.room_by_id, room_id)
        return None if row is None else self.remember_room(row)

    async def room_of(self, room_nid: int) -> Room:
        """Look a room up by its number; raises `NotFound` for a number never handed out."""
        room = self._rooms_by_nid.get(room_nid)
        if room is not None:
            return room
        row = await self._database.read(nids.room_by_nid, room_nid)
        if row is None:
            raise NotFound("There is no such room")
        return self.remember_room(row)

    async def intern_room(self, room_id: RoomID, version: RoomVersion) -> Room:
        """Give the room of this ID, making its number if it is new here."""
        known = await self.known_room(room_id)
        if known is not None:
            return known
        return self.remember_room(await self._database.write(nids.intern_room, room_id, version.id))

    def remember_room(self, row: nids.RoomRow) -> Room:
        """Keep a room in memory; call it for rows that are committed."""
        room = Room(row.room_nid, RoomID(row.room_id), get_room_version(row.version))
        self._rooms[room.room_id] = room
        self._rooms_by_nid[room.nid] = room
        return room

    def _remember_users(self, numbers: dict[str, int]) -> dict[UserID, int]:
        found = {UserID(name): nid for name, nid in numbers.items()}
        for user_id, nid in found.items():
            self.remember_user(user_id, nid)
        return found
