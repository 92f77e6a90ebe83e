"""Where a delta's entries come from: the ring in memory, or the database. One shape for both.

`RingSource` answers without waiting when the ring reaches back to the asked position; `DatabaseSource`
reads the same from the feed's table, in few queries. Everything after works on what they give.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from attrs import frozen

from homeserver.sync.spans import RoomSpan, cut, cut_ring
from storage import spans
from storage.database import Database, Transaction
from storage.feed import Entry, Kind
from storage.spans import Bounds

_CHANGES = (Kind.EVENT, Kind.STATE)
MAX_OWN = 10_000
"""Entries of the reader's own, receipts and device changes looked at in one delta, the newest."""


@frozen(eq=False)
class Personal:
    """What the feed says to one user, and of whom the devices changed."""

    own: tuple[Entry, ...]
    devices: frozenset[int]
    movers: frozenset[tuple[int, int]]
    """Other users whose membership changed in rooms the reader is joined in, with the room."""
    rooms: frozenset[int] | None
    """Rooms in which anything happened; None: not known, look at all."""


class Source(Protocol):
    """Gives stretches of the feed between two positions."""

    async def personal(self, user_nid: int, joined: Collection[int]) -> Personal:
        """Give a user's entries between the positions; `joined` are the user's rooms."""
        ...

    async def spans(self, wanted: Sequence[Bounds]) -> Mapping[int, RoomSpan]:
        """Give the newest entries of rooms; the bounds lie within the positions."""
        ...


@frozen(eq=False)
class RingSource:
    """The newest stretch of the feed, in memory."""

    entries: Sequence[Entry]
    """All entries between the positions, oldest first."""

    async def personal(self, user_nid: int, joined: Collection[int]) -> Personal:
        """Give a user's entries."""
        own: list[Entry] = []
        devices: set[int] = set()
        movers: set[tuple[int, int]] = set()
        rooms: set[int] = set()
        for entry in self.entries:
            if entry.room_nid is not None:
                rooms.add(entry.room_nid)
            if entry.user_nid is None:
                continue
            if entry.user_nid == user_nid:
                own.append(entry)
            elif entry.room_nid is not None and entry.room_nid in joined and entry.kind in _CHANGES:
                movers.add((entry.user_nid, entry.room_nid))
            if entry.kind == Kind.DEVICE_LIST:
                devices.add(entry.user_nid)
        return Personal(tuple(own), frozenset(devices), frozenset(movers), frozenset(rooms))

    async def spans(self, wanted: Sequence[Bounds]) -> Mapping[int, RoomSpan]:
        """Give the newest entries of rooms."""
        by_room: dict[int, list[Entry]] = {bounds.room_nid: [] for bounds in wanted}
        for entry in self.entries:
            if entry.room_nid in by_room:
                by_room[entry.room_nid].append(entry)
        return {bounds.room_nid: cut_ring(bounds, by_room[bounds.room_nid]) for bounds in wanted}


@frozen(eq=False)
class DatabaseSource:
    """The feed's table."""

    database: Database
    after: int
    upto: int

    async def personal(self, user_nid: int, joined: Collection[int]) -> Personal:
        """Give a user's entries."""
        return await self.database.read(read_personal, user_nid, list(joined), self.after, self.upto)

    async def spans(self, wanted: Sequence[Bounds]) -> Mapping[int, RoomSpan]:
        """Give the newest entries of rooms; receipts are looked for in stretches that begin somewhere."""
        entries, receipts = await self.database.read(read_spans, wanted)
        return {
            bounds.room_nid: cut(bounds, entries[bounds.room_nid], receipts.get(bounds.room_nid, ()))
            for bounds in wanted
        }


def read_personal(tx: Transaction, user_nid: int, joined: list[int], after: int, upto: int) -> Personal:
    """Read what the feed says to one user."""
    movers = spans.movers(tx, joined, after, upto, MAX_OWN)
    return Personal(
        tuple(spans.own(tx, user_nid, after, upto, MAX_OWN)),
        frozenset(spans.device_list_users(tx, after, upto, MAX_OWN)),
        frozenset(mover for mover in movers if mover[0] != user_nid),
        None,
    )


def read_spans(
    tx: Transaction, wanted: Sequence[Bounds]
) -> tuple[dict[int, list[Entry]], dict[int, set[int]]]:
    """Read one entry more than asked of each room, to tell whether there are more."""
    more = [Bounds(b.room_nid, b.after, b.upto, b.n + 1) for b in wanted]
    receipts: dict[int, set[int]] = {}
    by_bounds: dict[tuple[int, int], list[int]] = {}
    for bounds in wanted:
        if bounds.after > 0:
            by_bounds.setdefault((bounds.after, bounds.upto), []).append(bounds.room_nid)
    for (after, upto), rooms in by_bounds.items():
        receipts |= spans.receipts(tx, rooms, after, upto, MAX_OWN)
    return spans.newest(tx, more), receipts
