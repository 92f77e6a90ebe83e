"""The summary of a room: counts and heroes, kept per room until its members change.

Source: client-server-api/_index.md, "Syncing" (RoomSummary).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence

import orjson

from homeserver.sync.spans import is_straight
from protocol.identifiers import UserID
from storage.database import Database
from storage.feed import Entry, Flag, Kind
from storage.summaries import Summary, summaries

MAX_HEROES = 5


class Summaries:
    """Summaries of rooms as they are now. Bound: `size` rooms."""

    def __init__(self, database: Database, size: int = 5000) -> None:
        """Start with none."""
        self._database = database
        self._size = size
        self._changes = 0
        self._held: OrderedDict[int, Summary] = OrderedDict()

    async def of(self, room_nids: Collection[int]) -> Mapping[int, Summary]:
        """Give the summaries of rooms, with one query for all that are not held."""
        found = {room: self._held[room] for room in room_nids if room in self._held}
        missing = [room for room in room_nids if room not in found]
        if missing:
            at = self._changes
            loaded = await self._database.read(summaries, missing)
            found |= loaded
            if at == self._changes:
                self._held |= loaded
                while len(self._held) > self._size:
                    self._held.popitem(last=False)
        return found

    def apply(self, entries: Sequence[Entry]) -> None:
        """Drop the rooms whose members change. A listener of the feed, before any session is woken."""
        for entry in entries:
            if entry.kind not in (Kind.EVENT, Kind.STATE) or entry.room_nid is None:
                continue
            if entry.flags & Flag.MEMBERSHIP or not is_straight(entry):
                self._changes += 1
                self._held.pop(entry.room_nid, None)


def heroes_of(summary: Summary, reader: UserID) -> tuple[UserID, ...]:
    """Give the heroes that one reader is told."""
    return tuple(UserID(user) for user in summary.heroes if user != reader)[:MAX_HEROES]


def anyones_heroes(summary: Summary) -> tuple[UserID, ...]:
    """Give all who may be heroes for some reader."""
    return tuple(UserID(user) for user in summary.heroes[: MAX_HEROES + 1])


def summary_bytes(summary: Summary, reader: UserID) -> bytes:
    """Give the `summary` object for one reader."""
    return b'{"m.heroes":%b,"m.joined_member_count":%d,"m.invited_member_count":%d}' % (
        orjson.dumps(heroes_of(summary, reader)),
        summary.joined,
        summary.invited,
    )
