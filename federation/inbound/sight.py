"""What of a room another server may see: nothing unless it is in the room; there, event by event.

A server sees an event if one of its users could, by the history visibility and the memberships before the
event on its own branch. What it may not see is given redacted, so that the graph stays whole.

Source: client-server-api/modules/history_visibility.md; server-server-api.md, "Backfilling and retrieving
missing events"; security F10.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from federation.resident.access import RoomAccess
from homeserver.events.heads import RoomHead
from homeserver.events.room_state import RoomState
from homeserver.events.stored import StoredEvent
from protocol.errors import Forbidden
from protocol.events import Event
from protocol.identifiers import RoomID, ServerName, server_of
from protocol.redaction import redact_event
from protocol.visibility import VISIBILITY_KEY, memberships_needed, parse_visibility

MEMBER = "m.room.member"


@frozen(eq=False)
class Sight:
    """Judges what other servers see."""

    access: RoomAccess
    state: RoomState

    async def room(self, origin: ServerName, room_id: RoomID) -> RoomHead:
        """Give the head of a room that both servers are in.

        Raises:
            NotFound: this server is not in the room.
            Forbidden: `origin` is not in the room, or its ACL denies it.
        """
        head = await self.access.resident(origin, room_id)
        if origin not in head.servers:
            raise Forbidden(f"{origin} is not in the room")
        return head

    async def shown(self, origin: ServerName, events: Sequence[StoredEvent]) -> list[Event]:
        """Give events as a server in their room may see them."""
        verdicts: dict[bytes, bool] = {}
        shown: list[Event] = []
        for stored in events:
            visible = await self._visible(origin, stored, verdicts)
            as_is = visible and stored.redacted_by is None
            shown.append(stored.event if as_is else redact_event(stored.event))
        return shown

    async def _visible(self, origin: ServerName, stored: StoredEvent, verdicts: dict[bytes, bool]) -> bool:
        """Judge one event; `verdicts` are kept by the state before it."""
        root = stored.root_before
        if root is None:
            return stored.event.is_state  # of an auth chain: state is for all who are in the room
        if root not in verdicts:
            verdicts[root] = await self._visible_at(origin, stored.room_nid, root)
        return verdicts[root] or _is_of(stored.event, origin)

    async def _visible_at(self, origin: ServerName, room_nid: int, root: bytes) -> bool:
        found = await self.state.events(room_nid, root, (VISIBILITY_KEY,))
        value = found[VISIBILITY_KEY].event.content.get("history_visibility") if found else None
        needed = memberships_needed(parse_visibility(value))
        if needed is None:
            return True
        members = await self.state.members(room_nid, root)
        nids = [nid for user_id, nid in members.items() if server_of(user_id) == origin]
        events = await self.state.stored.by_nid(room_nid, nids)
        return any(each.event.membership in needed for each in events.values())


def _is_of(event: Event, origin: ServerName) -> bool:
    """Tell whether an event is about a membership of the server's own user."""
    return event.type == MEMBER and event.state_key is not None and server_of(event.state_key) == origin
