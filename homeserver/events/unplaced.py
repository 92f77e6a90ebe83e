"""Build an event on a room's head without committing it: one that another server must sign first.

An invite to a remote user, and the template of a join through this server, are such events. When the
other server has seen it, the event can no longer be built anew; it is placed as it is (`receiving`).
"""

from __future__ import annotations

from attrs import frozen

from homeserver.events.building import CREATE, Author, state_keys
from homeserver.events.heads import Heads
from homeserver.events.place import events_of
from protocol.auth_rules import check_auth
from protocol.errors import EventTooLarge
from protocol.events import Event, EventDraft, Links, build_event
from protocol.limits import MAX_DEPTH, MAX_EVENT_BYTES, MAX_PREV_EVENTS, SIGNATURE_ROOM


@frozen(eq=False)
class Unplaced:
    """Builds events that are not committed."""

    heads: Heads
    author: Author

    async def build(self, room_nid: int, draft: EventDraft, now: int) -> Event:
        """Build, authorize and sign an event on the room's head.

        Raises:
            NotFound: this server is not in the room.
            Forbidden: the rules refuse the event.
            EventTooLarge: it has no room for the signatures of others.
        """
        links, state = await self.links(room_nid, draft)
        head = await self.heads.get(room_nid)
        event = build_event(
            draft, head.version, links, now=now, server_name=self.author.server_name, key=self.author.key
        )
        if len(event.raw) + SIGNATURE_ROOM > MAX_EVENT_BYTES:
            raise EventTooLarge("The event has no room for the signatures of other servers")
        check_auth(event, state)
        return event

    async def links(self, room_nid: int, draft: EventDraft) -> tuple[Links, dict[tuple[str, str], Event]]:
        """Give where an event would stand on the room's head, and the state that judges it."""
        head = await self.heads.get(room_nid)
        keys = state_keys(head.version, draft)
        state = await head.cached.get({*keys, CREATE})
        auth = tuple(
            stored.event.event_id
            for key, stored in state.items()
            if key in keys and (head.version.create_in_auth_events or key != CREATE)
        )
        prev_events = head.place.prev_events[-MAX_PREV_EVENTS:]
        depth = min(head.depth + 1, MAX_DEPTH)
        return Links(prev_events, auth, depth), events_of(state)
