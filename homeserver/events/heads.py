"""Where each room stands, in memory: the committed heads, moved by the feed alone.

A head is loaded once and then follows the feed's entries, whoever wrote them. Heads that are still on
their way to the disk are no business of this module (see `sending`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from attrs import define, frozen

from homeserver.events.place import HeadState, Place, events_of
from protocol.events import Event
from protocol.identifiers import RoomID, ServerName, StateKey, UserID
from protocol.room_versions import RoomVersion


@define(eq=False)
class Members:
    """Who is joined: this server's users with their nids, and every server with its number of members."""

    local: dict[UserID, int]
    servers: dict[ServerName, int]


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
    def servers(self) -> Mapping[ServerName, int]:
        """Give the servers in the room with their numbers of joined members, our own included."""
        return self.members.servers

    async def state(self, keys: Iterable[StateKey]) -> dict[StateKey, Event]:
        """Give the resolved state under `keys`; keys without state are absent."""
        return events_of(await self.cached.get(keys))
