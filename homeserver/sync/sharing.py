"""Room contents that all joined recipients share, rendered once and handed out as bytes.

Shared is what every recipient who was joined all the time is shown alike: the timeline without
transaction IDs and the state without lazily loaded members. Never kept: anything one recipient's
ignored users, history or device decides (security: C6). Bound: `budget` bytes; an event that changes (is
redacted) drops all of its room.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence

from attrs import frozen

from homeserver.sync.joined import RoomContent
from homeserver.sync.room_bytes import JoinedParts, joined_json
from homeserver.sync.room_part import RoomPart
from homeserver.sync.rooms import Section
from homeserver.sync.session import Options
from homeserver.sync.suppliers import UnreadCount
from protocol.identifiers import RoomID
from storage.feed import Entry, is_change


def share_key(span: tuple[int, int, int, bool], since: int | None, options: Options) -> Hashable:
    """Name a shared content within its room: by its span, the lower bound if that cut it, and the options."""
    return (span, since, options.filter, options.state_name)


@frozen(eq=False)
class SharedRoom:
    """A room's content with its bytes."""

    content: RoomContent
    timeline: bytes
    state: bytes
    """Without lazily loaded members."""

    def part(self, room_id: RoomID, latest: int, unread: UnreadCount, options: Options) -> RoomPart:
        """Make the part of a reader who is told nothing but this content and counts.

        `options` are those of the content's key, `latest` is its last position.
        """
        by_thread = options.filter.timeline.unread_thread_notifications
        parts = JoinedParts(self.timeline, self.state, options.state_name, unread=unread, by_thread=by_thread)
        return RoomPart(Section.JOIN, room_id, joined_json(parts), latest)

    @property
    def size(self) -> int:
        """Tell the bytes it takes, roughly."""
        return len(self.timeline) + len(self.state) + 1000


class SharedRooms:
    """Shared contents by span, filter and options."""

    def __init__(self, budget: int = 4 * 1024 * 1024) -> None:
        """Start empty; `budget` is in bytes."""
        self._budget = budget
        self._bytes = 0
        self._held: OrderedDict[tuple[int, Hashable], SharedRoom] = OrderedDict()
        self.changes = 0
        """Counts what was dropped for being out of date: what was made meanwhile is not to be kept."""

    def get(self, room_nid: int, key: Hashable) -> SharedRoom | None:
        """Give what is kept."""
        return self._held.get((room_nid, key))

    def keep(self, room_nid: int, key: Hashable, shared: SharedRoom) -> None:
        """Keep one more, letting the oldest go."""
        name = (room_nid, key)
        old = self._held.pop(name, None)
        self._bytes += shared.size - (0 if old is None else old.size)
        self._held[name] = shared
        while self._bytes > self._budget and len(self._held) > 1:
            self._bytes -= self._held.popitem(last=False)[1].size

    def apply(self, entries: Sequence[Entry]) -> None:
        """Drop rooms in which an event has changed. A listener of the feed, before any session is woken."""
        rooms = {entry.room_nid for entry in entries if is_change(entry)}
        self.changes += len(rooms)
        for name in [name for name in self._held if name[0] in rooms] if rooms else ():
            self._bytes -= self._held.pop(name).size
