"""Where each room stands, in memory: the committed heads, moved by the feed alone.

A head is loaded once and then follows the feed's entries, whoever wrote them. What this process wrote is
followed at once; after an entry of another worker the head is *behind* and is brought forward by whoever
asks next, in the size of the difference. Heads on their way to the disk are no business of this module
(see `sending`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence

from attrs import frozen

from homeserver.events.members import MemberChange, Members, changes_between
from homeserver.events.nids import Nids, Room
from homeserver.events.place import HeadState, Place, events_of
from homeserver.events.room_state import RoomState
from homeserver.events.stored import Status, StoredEvent
from homeserver.single_flight import SingleFlight
from protocol.errors import NotFound
from protocol.events import Event
from protocol.identifiers import EventID, RoomID, ServerName, StateKey, UserID
from protocol.redaction import redact_event
from protocol.room_versions import RoomVersion
from storage import events, heads, memberships
from storage.database import Database, Transaction
from storage.feed import Entry, HeadMark, is_change
from storage.heads import HeadRow

HEAD_BYTES = 4_000
"""What a head costs in memory without members and state events, roughly."""

MEMBER_BYTES = 150
STATE_EVENT_BYTES = 2_000
"""The cache of events may hold it as well, or no longer."""


@frozen(eq=False)
class RoomHead:
    """A room's committed head; `local_members` and `servers` are live views that follow the feed."""

    place: Place
    cached: HeadState
    members: Members

    @property
    def room_id(self) -> RoomID:
        """Give the room's ID."""
        return self.place.room_id

    @property
    def room_nid(self) -> int:
        """Give the room's nid."""
        return self.place.room_nid

    @property
    def version(self) -> RoomVersion:
        """Give the room's version."""
        return self.place.version

    @property
    def seq(self) -> int:
        """Give the count of commits to the room."""
        return self.place.mark.seq

    @property
    def depth(self) -> int:
        """Give the greatest depth among the forward extremities."""
        return self.place.mark.depth

    @property
    def extremities(self) -> tuple[int, ...]:
        """Give the nids of the forward extremities."""
        return self.place.mark.extremities

    @property
    def root(self) -> bytes:
        """Give the root of the resolved state."""
        return self.place.root

    @property
    def local_members(self) -> Mapping[UserID, int]:
        """Give the joined users of this server, with their nids."""
        return self.members.local

    @property
    def size(self) -> int:
        """Tell the bytes it takes in memory, roughly."""
        members = len(self.members.local) + len(self.members.servers)
        return HEAD_BYTES + MEMBER_BYTES * members + STATE_EVENT_BYTES * len(self.cached)

    @property
    def servers(self) -> Mapping[ServerName, int]:
        """Give the servers in the room with their numbers of joined members, our own included."""
        return self.members.servers

    async def state(self, keys: Iterable[StateKey]) -> dict[StateKey, Event]:
        """Give the resolved state under `keys`; keys without state are absent."""
        return events_of(await self.cached.get(keys))

    async def shown(self, keys: Iterable[StateKey]) -> dict[StateKey, Event]:
        """Give the same as others may be shown it: as redactions leave it."""
        return {
            key: stored.event if stored.redacted_by is None else redact_event(stored.event)
            for key, stored in (await self.cached.get(keys)).items()
        }


@frozen(eq=False)
class _Loaded:
    """A head as read in one snapshot."""

    row: HeadRow
    event_ids: Mapping[int, str]
    local: Mapping[str, int]
    servers: Mapping[str, int]


def _read_head(tx: Transaction, room_nid: int) -> _Loaded | None:
    row = heads.get(tx, [room_nid]).get(room_nid)
    if row is None:
        return None
    return _Loaded(
        row,
        events.ids(tx, room_nid, row.mark.extremities),
        memberships.local_members(tx, room_nid),
        memberships.servers(tx, room_nid),
    )


class Heads:
    """The heads of active rooms."""

    def __init__(
        self, database: Database, nids: Nids, state: RoomState, server_name: ServerName, budget: int
    ) -> None:
        """Keep up to `budget` bytes of heads; `server_name` tells which users are local."""
        self._database = database
        self._nids = nids
        self._state = state
        self._server_name = server_name
        self._budget = budget
        self._bytes = 0
        self._heads: OrderedDict[int, RoomHead] = OrderedDict()
        self._sizes: dict[int, int] = {}
        self._behind: dict[int, Entry] = {}
        self._loading: SingleFlight[int, None] = SingleFlight()
        self._under_way: set[int] = set()

    def peek(self, room_nid: int) -> RoomHead | None:
        """Give a head if it is in memory and up to date."""
        return None if room_nid in self._behind else self._heads.get(room_nid)

    async def get(self, room_nid: int) -> RoomHead:
        """Give a room's head; raises `NotFound` if this server has no part in the room."""
        head = self.peek(room_nid)
        while head is None:
            await self._loading.run(room_nid, lambda: self._refresh(room_nid))
            head = self.peek(room_nid)
        return head

    async def of_resident(self, room_id: RoomID) -> RoomHead | None:
        """Give the head of a room that a user of this server is in, None for any other."""
        room_nid = await self._nids.room(room_id)
        if room_nid is None:
            return None
        try:
            head = await self.get(room_nid)
        except NotFound:
            return None
        return head if head.local_members else None

    def apply(self, entries: Sequence[Entry]) -> None:
        """Follow the feed."""
        for entry in entries:
            if entry.head is None or entry.room_nid is None:
                continue
            current = self._heads.get(entry.room_nid)
            if current is not None and is_change(entry):
                current.cached.forget()
            if current is None:
                if entry.room_nid in self._under_way:
                    self._behind[entry.room_nid] = entry
            elif entry.head.seq > current.seq:
                followed = None if entry.room_nid in self._behind else self._followed(current, entry)
                if followed is None:
                    self._behind[entry.room_nid] = entry
                else:
                    self._keep(followed)

    def forget(self, room_nid: int) -> None:
        """Drop a head that may not be what the database has; the next to ask loads it."""
        if self._heads.pop(room_nid, None) is not None:
            self._bytes -= self._sizes.pop(room_nid)
        if room_nid not in self._under_way:
            self._behind.pop(room_nid, None)

    def _followed(self, current: RoomHead, entry: Entry) -> RoomHead | None:
        """Give the head after an entry, if all that is needed for it is at hand."""
        assert entry.head is not None and entry.root is not None
        stored = entry.payload if isinstance(entry.payload, StoredEvent) else None
        ids = _ids_of(entry.head, current.place, stored)
        if ids is None:
            return None
        place = current.place.moved(entry.head, ids, entry.root)
        if entry.root == current.root:
            return RoomHead(place, current.cached, current.members)
        if stored is None or not _is_next_state(stored, current, entry.head):
            return None
        changes = self._member_changes(current, stored, entry.user_nid)
        if changes is None:
            return None
        current.members.apply(changes)
        return RoomHead(place, current.cached.after(stored, entry.root), current.members)

    def _member_changes(
        self, current: RoomHead, stored: StoredEvent, user_nid: int | None
    ) -> list[MemberChange] | None:
        """Tell whom the event makes a member or none; None if what it replaces is not in memory."""
        key = stored.event.key
        if key[0] != "m.room.member":
            return []
        before = current.cached.known([key])
        if before is None or user_nid is None:
            return None
        return changes_between(
            {key: (before.get(key), stored)}, {UserID(key[1]): user_nid}, self._server_name
        )

    async def _refresh(self, room_nid: int) -> None:
        """Load a head, or bring one forward to the last entry seen."""
        self._under_way.add(room_nid)
        try:
            while room_nid not in self._heads or room_nid in self._behind:
                current = self._heads.get(room_nid)
                if current is None:
                    await self._load(room_nid)
                else:
                    await self._catch_up(current, self._behind[room_nid])
        except BaseException:
            self._under_way.discard(room_nid)
            self.forget(room_nid)
            raise
        self._under_way.discard(room_nid)

    async def _load(self, room_nid: int) -> None:
        loaded = await self._database.read(_read_head, room_nid)
        if loaded is None:
            raise NotFound("This server is not in the room")
        room = await self._nids.room_of(room_nid)
        self._keep(self._head_of(room, loaded))
        entry = self._behind.get(room_nid)
        if entry is not None and entry.head is not None and entry.head.seq <= loaded.row.mark.seq:
            del self._behind[room_nid]

    def _head_of(self, room: Room, loaded: _Loaded) -> RoomHead:
        mark = loaded.row.mark
        ids = tuple(EventID(loaded.event_ids[nid]) for nid in mark.extremities)
        place = Place(room.room_id, room.nid, room.version, mark, ids, loaded.row.root)
        members = Members(
            {UserID(user_id): nid for user_id, nid in loaded.local.items()},
            {ServerName(server): count for server, count in loaded.servers.items()},
        )
        return RoomHead(place, HeadState(self._state, room.nid, place.root), members)

    async def _catch_up(self, current: RoomHead, entry: Entry) -> None:
        """Bring a head forward to an entry; it may be forgotten meanwhile, or another entry come."""
        await self._bring_forward(current, entry)
        if self._behind.get(current.room_nid) is entry:
            del self._behind[current.room_nid]

    async def _bring_forward(self, current: RoomHead, entry: Entry) -> None:
        """Make `current` the head after `entry`, reading only what differs."""
        assert entry.head is not None and entry.root is not None
        if entry.head.seq <= current.seq:
            return
        ids = _ids_of(entry.head, current.place, None)
        if ids is None:
            found = await self._database.read(events.ids, current.room_nid, entry.head.extremities)
            ids = tuple(EventID(found[nid]) for nid in entry.head.extremities)
        cached, changes = current.cached, list[MemberChange]()
        if entry.root != current.root:
            difference = await self._state.diff(current.room_nid, current.root, entry.root)
            changes = await self._changes_of(current.room_nid, difference)
            cached = cached.without(difference, entry.root)
        place = current.place.moved(entry.head, ids, entry.root)
        if self._heads.get(current.room_nid) is current:
            current.members.apply(changes)
            self._keep(RoomHead(place, cached, current.members))

    async def _changes_of(
        self, room_nid: int, difference: Mapping[StateKey, tuple[int | None, int | None]]
    ) -> list[MemberChange]:
        """Tell whose membership differs, loading the member events of both sides."""
        pairs = {key: nids for key, nids in difference.items() if key[0] == "m.room.member"}
        wanted = {nid for pair in pairs.values() for nid in pair if nid is not None}
        found = await self._state.stored.by_nid(room_nid, wanted) if wanted else {}
        users = await self._nids.users([UserID(key[1]) for key in pairs])
        both = {key: (found.get(one or 0), found.get(other or 0)) for key, (one, other) in pairs.items()}
        return changes_between(both, users, self._server_name)

    def _keep(self, head: RoomHead) -> None:
        """Keep a head in place of an older one; the least recently loaded rooms go past the budget."""
        size = head.size
        self._heads[head.room_nid] = head
        self._bytes += size - self._sizes.get(head.room_nid, 0)
        self._sizes[head.room_nid] = size
        if self._bytes <= self._budget:
            return
        for room_nid in list(self._heads):
            if self._bytes <= self._budget:
                break
            if room_nid != head.room_nid and room_nid not in self._under_way:
                self.forget(room_nid)


def _ids_of(mark: HeadMark, place: Place, stored: StoredEvent | None) -> tuple[EventID, ...] | None:
    """Give the event IDs of the extremities, if they are known from the old head and the new event."""
    if stored is not None and mark.extremities == (stored.nid,):
        return (stored.event.event_id,)
    known = dict(zip(place.mark.extremities, place.prev_events, strict=True))
    if stored is not None:
        known[stored.nid] = stored.event.event_id
    ids = tuple(known[nid] for nid in mark.extremities if nid in known)
    return ids if len(ids) == len(mark.extremities) else None


def _is_next_state(stored: StoredEvent, current: RoomHead, mark: HeadMark) -> bool:
    """Tell whether the state after the event is the current state with the event in it."""
    return (
        stored.event.is_state
        and stored.status is Status.ACCEPTED
        and stored.root_before == current.root
        and mark.extremities == (stored.nid,)
    )
