"""Asking other servers for what a room's graph lacks, as `homeserver.events.gaps` declares it."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from federation.client import FederationClient, RoomRef
from homeserver.events.nids import Room
from protocol.events import Event
from protocol.identifiers import EventID, ServerName


@frozen
class FetchedEvents:
    """Fetches events; all of them have been checked, and are of the room."""

    client: FederationClient

    async def event(self, server: ServerName, room: Room, event_id: EventID) -> Event | None:
        """Give one event, None if the server does not have it."""
        return await self.client.get_event(server, _ref(room), event_id)

    async def before(
        self,
        server: ServerName,
        room: Room,
        between: tuple[Sequence[EventID], Sequence[EventID]],
        limit: int,
    ) -> Sequence[Event]:
        """Give events between the earliest and the latest, the two of `between`."""
        return await self.client.get_missing_events(server, _ref(room), between, limit)

    async def state_ids(
        self, server: ServerName, room: Room, event_id: EventID
    ) -> tuple[Sequence[EventID], Sequence[EventID]]:
        """Give the state before an event, and its auth chain, as event IDs."""
        found = await self.client.get_state_ids(server, _ref(room), event_id)
        return found.state, found.auth_chain

    async def state(
        self, server: ServerName, room: Room, event_id: EventID
    ) -> tuple[Sequence[Event], Sequence[Event]]:
        """Give the state before an event, and its auth chain, as events."""
        found = await self.client.get_state(server, _ref(room), event_id)
        return found.state, found.auth_chain

    async def backfill(
        self, server: ServerName, room: Room, event_ids: Sequence[EventID], limit: int
    ) -> Sequence[Event]:
        """Give events before and including these."""
        return await self.client.backfill(server, _ref(room), event_ids, limit)


def _ref(room: Room) -> RoomRef:
    return RoomRef(room.room_id, room.version)
