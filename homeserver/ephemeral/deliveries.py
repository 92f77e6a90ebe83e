"""Delivery marks: how far what is said in small rooms has come to its readers' devices.

A device that comes back with a position has everything up to it; once a second the marks of all who did
are moved to the last event they then have, and those who said something on the way are told, here and on
other servers. One mark for each user and room: a message is delivered once any device of the user has it.

Source: protocol/spec.md, "Delivery".
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Final, Protocol

from attrs import Factory, define, frozen

from homeserver.background import run_in_background
from homeserver.clock import Clock
from homeserver.ephemeral.typing import SendEdu
from homeserver.events.event_store import Events
from homeserver.events.heads import Heads, RoomHead
from homeserver.events.nids import Nids
from homeserver.events.persister import Persister
from homeserver.events.stored import StoredEvent
from homeserver.events.write import Write
from homeserver.feed.tail import Feed
from homeserver.sync.ephemeral_events import DELIVERED
from homeserver.sync.suppliers import Delivery
from protocol.errors import MatrixError
from protocol.identifiers import EventID, RoomID, ServerName, UserID, server_of
from storage import deliveries, memberships, spans
from storage.database import Database, DatabaseGone
from storage.deliveries import DeliveryRow
from storage.feed import Entry, Kind, NewEntry
from storage.memberships import Membership
from storage.spans import Bounds

MAX_SPAN: Final = 50
"""Events of a room that one move of a mark looks at, the newest: their senders are told."""
MAX_USERS: Final = 20_000
MAX_ROOMS: Final = 100
"""Rooms of a user who was long away that are looked at."""
INTERVAL_SECONDS: Final = 1.0
_Stretch = tuple[int, int]
"""Two positions of the feed: what a user had, and has now."""
_Place = tuple[int, int]
"""A place in history: depth and nid."""
_NOWHERE: Final = (-1, 0)


class Ignored(Protocol):
    """Knows whom users ignore."""

    async def of(self, user_nid: int) -> frozenset[UserID]:
        """Give the ignored users: what they say is not delivered."""
        ...


@frozen(eq=False)
class DeliveryStores:
    """What marks are made of."""

    feed: Feed
    database: Database
    persister: Persister
    heads: Heads
    events: Events
    nids: Nids
    ignored: Ignored


@frozen(eq=False)
class _Moved:
    """A mark that moves."""

    head: RoomHead
    user_id: UserID
    user_nid: int
    event: StoredEvent
    senders: Set[UserID]


@define(eq=False)
class DeliveryMarks:
    """Moves the marks of local users, and takes those of others."""

    server_name: ServerName
    most_members: int
    """Members a room may have; 0: there are no marks at all."""
    clock: Clock
    stores: DeliveryStores
    send_edu: SendEdu
    _had: OrderedDict[int, int] = Factory(OrderedDict)
    """By user nid: the position up to which marks were moved."""
    _due: dict[int, int] = Factory(dict)
    _armed: bool = False

    def begins(self, user_nid: int) -> None:
        """Note that a device of a user starts from nothing: all it gets may be new to the user."""
        if user_nid not in self._had:
            self._note(user_nid, 0)

    def arrived(self, user_nid: int, pos: int) -> None:
        """Note that a device of a user has everything up to a position of the feed."""
        had = self._had.get(user_nid)
        if had is None:
            self._note(user_nid, pos)
        elif self.most_members and pos > max(had, self._due.get(user_nid, 0)):
            self._due[user_nid] = pos
            self._arm()

    async def of(self, wanted: Mapping[int, frozenset[int]]) -> Mapping[int, Sequence[Delivery]]:
        """Give the marks with these numbers, by room nid, without those that have moved since."""
        nids = sorted(nid for of_room in wanted.values() for nid in of_room)
        rows = await self.stores.database.read(deliveries.by_nids, nids)
        users = await self.stores.nids.user_ids({row.user_nid for row in rows})
        found: dict[int, list[Delivery]] = {}
        for row in sorted(rows, key=lambda row: row.delivery_nid):
            found.setdefault(row.room_nid, []).append(
                Delivery(EventID(row.event_id), users[row.user_nid], row.ts)
            )
        return found

    async def set_remote(
        self, origin: ServerName, room_id: RoomID, user_id: UserID, event_id: EventID, ts: int
    ) -> None:
        """Move the mark of another server's own user; others' users and non-members are passed over."""
        stores = self.stores
        room_nid = await stores.nids.room(room_id)
        if room_nid is None or server_of(user_id) != origin:
            return
        head, key = await self._small(room_nid), ("m.room.member", user_id)
        member = None if head is None else (await head.state([key])).get(key)
        event = (await stores.events.by_id(room_nid, (event_id,))).get(event_id)
        if head is None or event is None or member is None or member.membership != "join":
            return
        user_nid, place = await stores.nids.user(user_id), (event.depth, event.nid)
        nids = await stores.database.read(deliveries.senders_up_to, room_nid, user_nid, place, MAX_SPAN)
        senders = {sender for sender, nid in head.local_members.items() if nid in nids}
        if senders:
            await self._write([_Moved(head, user_id, user_nid, event, senders)], ts)

    def _note(self, user_nid: int, pos: int) -> None:
        self._had[user_nid] = pos
        self._had.move_to_end(user_nid)
        if len(self._had) > MAX_USERS:
            self._had.popitem(last=False)

    def _arm(self) -> None:
        if not self._armed:
            self._armed = True
            self.clock.call_later(INTERVAL_SECONDS, self._turn)

    def _turn(self) -> None:
        run_in_background(self.move(), "moving delivery marks")

    async def move(self) -> None:
        """Move the marks of all to whom something came, and tell; a timer calls it."""
        due, self._due = self._due, {}
        try:
            stretches = {user_nid: (self._had.get(user_nid, pos), pos) for user_nid, pos in due.items()}
            reach = max(1, self.stores.feed.reach)
            near = {user: stretch for user, stretch in stretches.items() if stretch[0] >= reach}
            await self._tell(await self._moved(near))
            for user_nid in near:
                self._note(user_nid, due[user_nid])
            for user_nid in stretches.keys() - near.keys():
                await self._tell(await self._moved_from_afar(user_nid, stretches[user_nid]))
                self._note(user_nid, due[user_nid])
        except DatabaseGone:
            self._due = due | self._due
            raise
        finally:
            self._armed = False
            if self._due:
                self._arm()

    async def _tell(self, moved: Sequence[_Moved]) -> None:
        """Write marks, and tell the senders here and on other servers."""
        if moved:
            await self._write(moved, self.clock.now_ms())
        for mark in moved:
            self._tell_servers(mark)

    async def _moved(self, near: Mapping[int, _Stretch]) -> list[_Moved]:
        """Find what came to users in their stretches of the feed, all of them in memory."""
        found: list[_Moved] = []
        entries = self.stores.feed.since(min(after for after, _ in near.values())) if near else None
        for room_nid, events in _by_room(entries or ()).items():
            head = await self._small(room_nid)
            for user_id, user_nid in () if head is None else list(head.local_members.items()):
                if head is not None and user_nid in near:
                    after, upto = near[user_nid]
                    nids = [entry.ref for entry in events if after < entry.pos <= upto and entry.ref]
                    found += await self._mark(head, user_id, user_nid, nids)
        return found

    async def _moved_from_afar(self, user_nid: int, stretch: _Stretch) -> list[_Moved]:
        """Find what came to a user who was away for longer than the feed is in memory, or has a new device.

        What another device had already is no news: only events behind the mark of their room count.
        """
        database = self.stores.database
        rooms = await database.read(memberships.rooms_of_user, user_nid, [Membership.JOIN])
        bounds = [Bounds(room.room_nid, *stretch, MAX_SPAN) for room in rooms[-MAX_ROOMS:]]
        newest = await database.read(spans.newest, bounds)
        marks = await database.read(deliveries.of_user, user_nid, [each.room_nid for each in bounds])
        user_id = (await self.stores.nids.user_ids([user_nid]))[user_nid]
        found: list[_Moved] = []
        for room_nid, events in _by_room(each for of_room in newest.values() for each in of_room).items():
            head = await self._small(room_nid)
            if head is not None and user_id in head.local_members:
                nids = [entry.ref for entry in events if entry.ref]
                found += await self._mark(head, user_id, user_nid, nids, marks.get(room_nid, _NOWHERE))
        return found

    async def _small(self, room_nid: int) -> RoomHead | None:
        """Give the head of a room that has marks: more than one member, but not too many."""
        try:
            head = await self.stores.heads.get(room_nid)
        except MatrixError:
            return None
        return head if 1 < sum(head.servers.values()) <= self.most_members else None

    async def _mark(
        self, head: RoomHead, user_id: UserID, user_nid: int, nids: Sequence[int], mark: _Place = _NOWHERE
    ) -> list[_Moved]:
        """Give the mark that moves from `mark` to the last of some events, if others sent any behind it."""
        found = await self.stores.events.by_nid(head.room_nid, nids[-MAX_SPAN:])
        new = [each for each in found.values() if (each.depth, each.nid) > mark]
        if not new:
            return []
        ignored = await self.stores.ignored.of(user_nid)
        senders = {each.event.sender for each in new} - ignored - {user_id}
        last = max(new, key=lambda each: (each.depth, each.nid))
        return [_Moved(head, user_id, user_nid, last, senders)] if senders else []

    async def _write(self, moved: Sequence[_Moved], now: int) -> None:
        """Write marks, and tell the senders who are here."""
        numbers = self.stores.nids.receipts
        await numbers.ready(len(moved))
        rows, entries = [], []
        for mark in moved:
            number, event, room_nid = numbers.take(), mark.event, mark.head.room_nid
            place = (event.depth, event.nid)
            rows.append(DeliveryRow(room_nid, mark.user_nid, number, event.event.event_id, *place, now))
            for sender in sorted(mark.senders & mark.head.local_members.keys()):
                nid = mark.head.local_members[sender]
                entries.append(NewEntry(Kind.DELIVERED, room_nid=room_nid, user_nid=nid, ref=number))
        await self.stores.persister.commit(Write((deliveries.delivery_rows(rows),), tuple(entries)))

    def _tell_servers(self, mark: _Moved) -> None:
        servers = {server_of(sender) for sender in mark.senders} - {self.server_name}
        if servers:
            room_id, event_id = mark.head.room_id, mark.event.event.event_id
            told = {"event_id": event_id, "ts": self.clock.now_ms()}
            key = ("delivered", room_id, mark.user_id)
            self.send_edu(servers, DELIVERED, key, {room_id: {mark.user_id: told}})


def _by_room(entries: Iterable[Entry]) -> dict[int, list[Entry]]:
    """Sort the entries of events by room, oldest first."""
    found: dict[int, list[Entry]] = {}
    for entry in sorted(entries, key=lambda entry: entry.pos):
        if entry.kind == Kind.EVENT and entry.room_nid is not None:
            found.setdefault(entry.room_nid, []).append(entry)
    return found
