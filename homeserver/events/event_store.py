"""Events in memory and in the database, always within a room.

A cache bounded in bytes: the event, its placement, and what points from its ID to it. Entries change by
the feed alone (a redaction that applies, an outlier that got a place). Nothing here decides who may see an
event.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TypeVar

from homeserver.events.nids import Nids
from homeserver.events.stored import Status, StoredEvent
from protocol.events import load_event
from protocol.identifiers import EventID, RoomID
from protocol.room_versions import RoomVersion
from storage import events
from storage.database import Database, Transaction
from storage.events import ClockRow, EventRow
from storage.feed import Entry, Flag, Kind

MAX_CLOCKS = 4_000
"""Auth clocks kept: those of the few events that authorise most others."""

_Key = tuple[int, int]
T = TypeVar("T", int, EventID)
_Read = Callable[[Transaction, int, Sequence[T]], list[EventRow]]


def stored_from_row(row: EventRow, room_id: RoomID, version: RoomVersion) -> StoredEvent:
    """Make the stored event of a row of our own database."""
    event = load_event(row.pdu, version, event_id=EventID(row.event_id), room_id=room_id)
    return StoredEvent(
        event,
        row.event_nid,
        row.room_nid,
        Status(row.status),
        row.root_before,
        row.depth,
        row.sender_nid,
        row.event_class,
        row.thread,
        row.redacted_by,
    )


class Events:
    """Read events of one room by nid or by ID."""

    def __init__(self, database: Database, nids: Nids, budget: int) -> None:
        """Keep up to `budget` bytes of events in memory."""
        self._database = database
        self._nids = nids
        self._budget = budget
        self._bytes = 0
        self._changes = 0
        self._events: OrderedDict[_Key, StoredEvent] = OrderedDict()
        self._by_id: dict[tuple[int, EventID], int] = {}
        self._clocks: OrderedDict[_Key, ClockRow] = OrderedDict()

    @property
    def size(self) -> int:
        """Tell the bytes in use, roughly."""
        return self._bytes

    def peek(self, room_nid: int, nid: int) -> StoredEvent | None:
        """Give an event if it is in memory."""
        return self._events.get((room_nid, nid))

    def is_at_hand(self, room_nid: int, event_id: EventID) -> bool:
        """Tell whether an event is in memory."""
        return (room_nid, event_id) in self._by_id

    async def by_nid(self, room_nid: int, nids: Iterable[int]) -> dict[int, StoredEvent]:
        """Give those events that the room has, by nid."""
        wanted = set(nids)
        found = {nid: event for nid in wanted if (event := self._touch((room_nid, nid))) is not None}
        if len(found) < len(wanted):
            missing = [nid for nid in wanted if nid not in found]
            found |= {event.nid: event for event in await self._load(room_nid, events.by_nid, missing)}
        return found

    async def by_id(self, room_nid: int, event_ids: Collection[EventID]) -> dict[EventID, StoredEvent]:
        """Give those events that the room has, by event ID."""
        found: dict[EventID, StoredEvent] = {}
        missing: list[EventID] = []
        for event_id in event_ids:
            nid = self._by_id.get((room_nid, event_id))
            event = None if nid is None else self._touch((room_nid, nid))
            if event is None:
                missing.append(event_id)
            else:
                found[event_id] = event
        if missing:
            loaded = await self._load(room_nid, events.by_id, missing)
            found |= {event.event.event_id: event for event in loaded}
        return found

    async def clocks(self, room_nid: int, nids: Sequence[int], replaced: int | None = None) -> list[ClockRow]:
        """Give the auth clocks of state events; the tail of its chain is up to date for `replaced` alone.

        A clock never changes, so all others may come from memory.
        """
        known = [self._clocks.get((room_nid, nid)) for nid in nids if nid != replaced]
        found = [row for row in known if row is not None]
        if len(found) < len(nids):
            here = {row.event_nid for row in found}
            read = await self._database.read(
                events.clocks, room_nid, [nid for nid in nids if nid not in here]
            )
            self._clocks.update(((room_nid, row.event_nid), row) for row in read)
            while len(self._clocks) > MAX_CLOCKS:
                self._clocks.popitem(last=False)
            found += read
        return found

    def put(self, stored: StoredEvent) -> None:
        """Keep a committed event in memory."""
        key = (stored.room_nid, stored.nid)
        if key not in self._events:
            self._bytes += stored.size
        self._events[key] = stored
        self._by_id[stored.room_nid, stored.event.event_id] = stored.nid
        while self._bytes > self._budget and len(self._events) > 1:
            self._drop(next(iter(self._events)))

    def apply(self, entries: Sequence[Entry]) -> None:
        """Follow the feed: keep new events, and forget those that are something else now."""
        for entry in entries:
            if entry.room_nid is None or entry.ref is None:
                continue
            if entry.kind == Kind.CHANGED:
                self._changes += 1
                self.forget(entry.room_nid, (entry.ref,))
            elif entry.kind == Kind.EVENT:
                if isinstance(entry.payload, StoredEvent):
                    self.put(entry.payload)
                if entry.flags & Flag.REDACTION:
                    self._changes += 1
                    self._forget_target(entry)

    def forget(self, room_nid: int, nids: Iterable[int]) -> None:
        """Forget events whose rows have changed."""
        for nid in nids:
            if (room_nid, nid) in self._events:
                self._drop((room_nid, nid))

    def forget_room(self, room_nid: int) -> None:
        """Forget all events of a room."""
        for key in [key for key in self._events if key[0] == room_nid]:
            self._drop(key)

    def _forget_target(self, entry: Entry) -> None:
        """Forget the event that a redaction names; if the redaction is not at hand, all of its room."""
        assert entry.room_nid is not None
        redaction = entry.payload if isinstance(entry.payload, StoredEvent) else None
        if redaction is None or redaction.event.redacts is None:
            self.forget_room(entry.room_nid)
            return
        nid = self._by_id.get((entry.room_nid, redaction.event.redacts))
        if nid is not None:
            self._drop((entry.room_nid, nid))

    def _touch(self, key: _Key) -> StoredEvent | None:
        event = self._events.get(key)
        if event is not None:
            self._events.move_to_end(key)
        return event

    def _drop(self, key: _Key) -> None:
        event = self._events.pop(key)
        self._bytes -= event.size
        self._by_id.pop((key[0], event.event.event_id), None)

    async def _load(self, room_nid: int, read: _Read[T], names: Sequence[T]) -> list[StoredEvent]:
        """Read events and keep them, unless one has changed meanwhile: the rows may be from before it."""
        changes = self._changes
        rows = await self._database.read(read, room_nid, names)
        if not rows:
            return []
        room = await self._nids.room_of(room_nid)
        loaded = [stored_from_row(row, room.room_id, room.version) for row in rows]
        for stored in loaded:
            if changes == self._changes and (room_nid, stored.nid) not in self._events:
                self.put(stored)
        return loaded
