"""Unread counts of users in rooms: taken from the database once, then moved by the feed.

The marker is the furthest of the receipts for the room, the user's own last event, and what was read of
the thread; nothing before the user's own join counts. Bound: `size` counts in memory, the least recently
used rooms go first; what is forgotten is counted again.

Source: client-server-api/modules/push.md, "Receiving notifications"; modules/receipts.md, "Threaded read
receipts".
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence, Set

from attrs import define, frozen

from homeserver.background import run_in_background
from homeserver.events.stored import StoredEvent
from homeserver.sync.session import Session
from homeserver.sync.spans import is_straight
from homeserver.sync.suppliers import UnreadCount
from homeserver.unread.evaluation import UnreadVerdicts
from protocol.identifiers import RoomID, UserID
from protocol.unread import EventClass, Masks, Verdict
from storage import client_events, feed, relations, unread
from storage.client_events import Place
from storage.database import Database, Transaction
from storage.feed import Entry, Flag, Kind
from storage.unread import Counted, Special

MAX_COUNTED = 1000
"""Events counted in a room: a greater count stops here."""
MAIN = "main"
_WHOLE_ROOM = ""
_NOTHING: Place = (-1, 0)


@define(eq=False)
class _Count:
    """A user's count in a room: notifications and highlights by thread."""

    masks: Masks
    ignored: frozenset[UserID]
    """Whom the user ignored when it was counted: what they say does not count."""
    upto: int
    """The position in the feed of the last entry that was counted when it was read: it may be told later."""
    threads: dict[str, tuple[int, int]]

    def add(self, thread: str, verdict: Verdict) -> None:
        """Count one more event."""
        if verdict.notify:
            notify, highlight = self.threads.get(thread, (0, 0))
            self.threads[thread] = (min(notify + 1, MAX_COUNTED), highlight + verdict.highlight)

    def given(self) -> UnreadCount:
        """Give the count as sync tells it."""
        notify, highlight = self.threads.get(MAIN, (0, 0))
        rest = {thread: counts for thread, counts in self.threads.items() if thread != MAIN}
        return UnreadCount(notify, highlight, rest)


@frozen(eq=False)
class _Read:
    """What one reading gives of a room."""

    masks: Masks
    events: Sequence[Counted]
    specials: Sequence[Special]
    markers: Mapping[str, Place]
    floor: Place
    """What is read of the whole room: nothing up to here counts."""
    ignored: Set[int]
    """The numbers of users whom the reader ignores."""
    upto: int
    """The feed's last position in what was read."""


class UnreadCounter:
    """Counts for sync."""

    def __init__(self, database: Database, verdicts: UnreadVerdicts, size: int = 100_000) -> None:
        """Start with no counts."""
        self._database = database
        self._verdicts = verdicts
        self._size = size
        self._held = 0
        self._changes = 0
        self._rooms: OrderedDict[int, dict[int, _Count]] = OrderedDict()

    async def of(
        self, session: Session, room_nids: Collection[int], ignored: frozenset[UserID] = frozenset()
    ) -> Mapping[int, UnreadCount]:
        """Give a user's counts in rooms, with one query for all that are not in memory."""
        found: dict[int, UnreadCount] = {}
        missing: list[int] = []
        for room_nid in room_nids:
            count = self._rooms.get(room_nid, {}).get(session.user_nid)
            if count is None or (count.ignored is not ignored and count.ignored != ignored):
                missing.append(room_nid)
            else:
                found[room_nid] = count.given()
        if missing:
            at = self._changes
            read = await self._database.read(self.read, session.user_nid, session.user_id, missing, ignored)
            for room_nid, each in read.items():
                count = _count(each, session.user_nid, ignored)
                found[room_nid] = count.given()
                if at == self._changes:
                    self._keep(room_nid, session.user_nid, count)
                self._drop_read(session.user_nid, room_nid, each)
        return found

    def read(
        self,
        tx: Transaction,
        user_nid: int,
        user_id: UserID,
        room_nids: Sequence[int],
        ignored: frozenset[UserID],
    ) -> dict[int, _Read]:
        """Read all that counts for a user in rooms (on a database thread)."""
        upto = feed.tail(tx)
        joins = unread.joins(tx, user_nid, room_nids)
        markers = unread.markers(tx, user_nid, room_nids)
        ids = {room: RoomID(text) for room, text in client_events.room_ids(tx, room_nids).items()}
        masks = self._verdicts.masks_of(tx, user_nid, user_id, ids)
        specials: dict[int, list[Special]] = {}
        for special in unread.verdicts(tx, user_nid, room_nids):
            specials.setdefault(special.room_nid, []).append(special)
        nowhere: dict[str, Place] = {}
        floors = {
            room: max(place, markers.get(room, nowhere).get(_WHOLE_ROOM, _NOTHING))
            for room, place in joins.items()
        }
        events = unread.after(tx, floors, MAX_COUNTED)
        nids = relations.user_nids(tx, list(ignored)) if ignored else frozenset()
        return {
            room: _Read(
                masks[room],
                events[room],
                specials.get(room, ()),
                markers.get(room, nowhere),
                floors[room],
                nids,
                upto,
            )
            for room in joins
        }

    def apply(self, entries: Sequence[Entry]) -> None:
        """Let counts follow the feed. A listener, before any session is woken."""
        for entry in entries:
            if entry.kind == Kind.EVENT:
                self._follow(entry)
            elif entry.kind == Kind.RECEIPT:
                self._forget(entry.room_nid, (entry.user_nid,))
            elif entry.kind in (Kind.STATE, Kind.CHANGED):
                self._forget_room(entry.room_nid)
            elif entry.kind == Kind.ACCOUNT_DATA and entry.room_nid is None:
                self._changes += 1
                for room_nid in list(self._rooms):
                    self._forget(room_nid, (entry.user_nid,))

    def _follow(self, entry: Entry) -> None:
        """Count one more event for all whose counts are in memory, or forget what it makes doubtful."""
        counts = None if entry.room_nid is None else self._rooms.get(entry.room_nid)
        self._changes += 1
        stored = entry.payload
        noted = self._verdicts.noted(entry.room_nid or 0, entry.ref or 0)
        if not counts:
            return
        doubtful = entry.flags & Flag.REDACTION or not is_straight(entry)
        if doubtful or noted is None or not isinstance(stored, StoredEvent):
            self._forget_room(entry.room_nid)
            return
        if entry.flags & Flag.MEMBERSHIP:
            self._forget(entry.room_nid, (entry.user_nid,))
            if self._is_small(entry.room_nid):
                self._forget_room(entry.room_nid)
        if noted.event_class is EventClass.NONE and not noted.verdicts:
            return
        thread = stored.thread or MAIN
        for user_nid, count in counts.items():
            if entry.pos <= count.upto:
                continue
            if user_nid == stored.sender_nid:
                if noted.event_class is not EventClass.NONE:
                    count.threads.pop(thread, None)
                continue
            if stored.event.sender in count.ignored:
                continue
            special = noted.verdicts.get(user_nid)
            count.add(thread, count.masks[noted.event_class] if special is None else special)

    def _is_small(self, room_nid: int | None) -> bool:
        """Tell whether a membership may make a room one of two, or no longer so."""
        return len(self._rooms.get(room_nid or 0, ())) <= 3

    def _drop_read(self, user_nid: int, room_nid: int, read: _Read) -> None:
        """Drop verdicts that can never count again."""
        if any((special.depth, special.nid) <= read.floor for special in read.specials):
            work = self._database.write(unread.drop_read, user_nid, room_nid, read.floor)
            run_in_background(work, "dropping verdicts on what was read")

    def _keep(self, room_nid: int, user_nid: int, count: _Count) -> None:
        """Keep one more count."""
        counts = self._rooms.setdefault(room_nid, {})
        self._held += user_nid not in counts
        counts[user_nid] = count
        self._rooms.move_to_end(room_nid)
        while self._held > self._size and len(self._rooms) > 1:
            self._held -= len(self._rooms.popitem(last=False)[1])

    def _forget_room(self, room_nid: int | None) -> None:
        """Forget all counts in a room."""
        self._changes += 1
        if room_nid is not None:
            self._held -= len(self._rooms.pop(room_nid, ()))

    def _forget(self, room_nid: int | None, users: Iterable[int | None]) -> None:
        """Forget some users' counts in a room."""
        self._changes += 1
        counts = self._rooms.get(room_nid or 0, {})
        for user_nid in users:
            if user_nid is not None and counts.pop(user_nid, None) is not None:
                self._held -= 1


def _count(read: _Read, user_nid: int, ignored: frozenset[UserID]) -> _Count:
    """Count what was read: events by mask, those with a verdict of their own by that."""
    specials = {each.nid: each for each in read.specials if each.sender_nid not in read.ignored}
    done: dict[str, bool] = {}
    count = _Count(read.masks, ignored, read.upto, {})
    places: dict[str, Place] = {}
    for event in read.events:
        if event.sender_nid in read.ignored:
            continue
        thread = event.thread or MAIN
        if done.get(thread):
            continue
        if event.sender_nid == user_nid:
            done[thread] = True
            places[thread] = (event.depth, event.nid)
            continue
        special = specials.pop(event.nid, None)
        if (event.depth, event.nid) > read.markers.get(thread, _NOTHING):
            mask = read.masks[EventClass(event.event_class)]
            count.add(thread, mask if special is None else _verdict(special))
    for special in specials.values():
        thread, place = special.thread or MAIN, (special.depth, special.nid)
        marker = max(read.floor, read.markers.get(thread, _NOTHING), places.get(thread, _NOTHING))
        if place > marker:
            count.add(thread, _verdict(special))
    return count


def _verdict(special: Special) -> Verdict:
    """Give a verdict as it was kept."""
    return Verdict(bool(special.notify), bool(special.highlight))
