"""What changed for one session: the value that `/sync` answers with and the WebSocket cuts into frames.

Parts are bytes; those of rooms may be shared among many sessions. Nothing here computes: see `feed.py`.

Source: client-server-api/_index.md, "Syncing".
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from attrs import frozen

from homeserver.sync.room_part import RoomPart
from homeserver.sync.rooms import Section
from homeserver.sync.tokens import SyncToken


@frozen(eq=False)
class Delta:
    """What changed between two tokens."""

    next_batch: SyncToken
    rooms: Sequence[RoomPart] = ()
    """In the order of their ids' first sight; see `by_recency`."""
    account_data: bytes = b""
    """Events, comma-separated, as all the following."""
    presence: bytes = b""
    to_device: bytes = b""
    device_lists: bytes = b""
    """The object `device_lists`, or nothing."""
    key_counts: bytes = b""
    """Members `device_one_time_keys_count` and `device_unused_fallback_key_types`, comma-separated."""

    @property
    def is_empty(self) -> bool:
        """Tell whether there is nothing new; key counts alone are no news."""
        parts = (self.rooms, self.account_data, self.presence, self.to_device, self.device_lists)
        return not any(parts)

    def by_recency(self) -> list[RoomPart]:
        """Give the rooms, the most recent first."""
        return sorted(self.rooms, key=lambda part: -part.latest)

    def to_json(self) -> bytes:
        """Give the whole answer of `/sync`."""
        return self._json

    @cached_property
    def _json(self) -> bytes:
        """Join it once: a delta may go to many."""
        return self.frame(self.rooms, last=True)

    def frame(self, rooms: Sequence[RoomPart], *, last: bool) -> bytes:
        """Give an object of the same shape with some of the rooms; the last one has all else too.

        Only the last has `next_batch`, so a client that lost the rest begins again where it was. An answer
        of a megabyte is copied once.
        """
        pieces = [b"{"]
        if last:
            pieces.append(b'"next_batch":"%b"' % str(self.next_batch).encode())
            for member in self._beside_rooms():
                pieces += (b",", member)
        if rooms:
            pieces.append(b',"rooms":{' if last else b'"rooms":{')
            pieces += room_pieces(rooms)
            pieces.append(b"}")
        pieces.append(b"}")
        return b"".join(pieces)

    def _beside_rooms(self) -> list[bytes]:
        """Give the members that are not rooms and have anything in them."""
        members = [
            b'"%b":{"events":[%b]}' % (name, events)
            for name, events in (
                (b"account_data", self.account_data),
                (b"presence", self.presence),
                (b"to_device", self.to_device),
            )
            if events
        ]
        if self.device_lists:
            members.append(b'"device_lists":' + self.device_lists)
        if self.key_counts:
            members.append(self.key_counts)
        return members


def room_pieces(rooms: Sequence[RoomPart]) -> list[bytes]:
    """Give the members of `rooms` in pieces, one member for each section that has a room."""
    sections: dict[Section, list[bytes]] = {}
    for part in rooms:
        sections.setdefault(part.section, []).extend((b",", part.member))
    pieces: list[bytes] = []
    for section, parts in sections.items():
        parts[0] = b'%b"%b":{' % (b"," if pieces else b"", section.value.encode())
        pieces += parts
        pieces.append(b"}")
    return pieces
