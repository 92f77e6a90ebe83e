"""One room of a delta.

Source: client-server-api/_index.md, "Syncing".
"""

from __future__ import annotations

import orjson
from attrs import field, frozen

from homeserver.sync.rooms import Section
from protocol.identifiers import RoomID


@frozen(eq=False)
class RoomPart:
    """A room's JSON, in its section of an answer."""

    section: Section
    room_id: RoomID
    body: bytes
    """The room's JSON object."""
    latest: int
    """Position of the newest thing in it: most recent rooms are sent first."""
    member: bytes = field(init=False)
    """The member of the section's object: room ID and body."""

    @member.default
    def _member(self) -> bytes:
        """Join it once: a part may go to many."""
        return b"%b:%b" % (orjson.dumps(self.room_id), self.body)
