"""Receiving as a whole, wired for tests: joins are taken over or received, as the server edge does it."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from homeserver.events.building import Author
from homeserver.events.gaps import Gaps, MissingEvents
from homeserver.events.importing import RoomImport
from homeserver.events.outliers import OutlierJudge
from homeserver.events.outside import OutsideMemberships
from homeserver.events.past import Past
from homeserver.events.placing import Placing
from homeserver.events.policy import PolicyServers
from homeserver.events.received import Course, ImportedRoom, Outcome
from homeserver.events.received_store import Store
from homeserver.events.receiving import ReceivedEvents
from homeserver.events.resolution import Resolver
from homeserver.events.stored import Status, StoredEvent
from protocol.canonical_json import JsonObject
from protocol.errors import Forbidden, Unavailable
from protocol.events import Event
from protocol.identifiers import RoomID, ServerName, UserID
from protocol.room_versions import RoomVersion


class NoPolicyServers:
    """No policy server answers."""

    async def signature(self, server: ServerName, event: Event, *, insist: bool) -> str:
        """Fail."""
        raise Unavailable("there is no policy server")


@frozen(eq=False)
class IncomingEvents:
    """Takes events, rooms and invites of other servers in."""

    store: Store
    received: ReceivedEvents
    gaps: Gaps
    rooms: RoomImport
    outside: OutsideMemberships

    @classmethod
    def over(cls, store: Store, author: Author, fetch: MissingEvents) -> IncomingEvents:
        """Wire all parts of receiving over one store."""
        policies = PolicyServers(store.heads, store.state.stored, NoPolicyServers(), author.server_name)
        received = ReceivedEvents(store, Placing(Resolver(), author), policies)
        judge = OutlierJudge(author, store.clock)
        past = Past(store, received, judge, author)
        gaps = Gaps(received, past, fetch, store.nids, store.heads, store.clock, author.server_name)
        rooms = RoomImport(store, received, judge, author)
        return cls(store, received, gaps, rooms, OutsideMemberships(store, author))

    async def receive(
        self, room_nid: int, event: Event, *, origin: ServerName, now: int, federate: bool = False
    ) -> Outcome:
        """Judge and place an event, fetching what it needs; `federate`: we pass it on to the room.

        `status` of the outcome is None if it cannot be judged now. Raises `NotFound` for a room this
        server is not in, `Unavailable` when too much waits there.
        """
        course = Course.OWN if federate else Course.RECEIVED
        return await self.gaps.receive(room_nid, event, origin=origin, course=course)

    async def place_own(self, room_nid: int, event: Event, *, now: int) -> StoredEvent:
        """Commit an event of this server that another has seen, as it is; raises `Forbidden`."""
        return await self.received.place_own(room_nid, event, now=now)

    async def import_room(self, room: ImportedRoom, *, now: int) -> int:
        """Take over a room a local user has joined, and give its nid.

        Where this server is in the room already, what is given is not believed: the join is an event like
        others. Raises `Forbidden` if the room does not allow the join, `Unavailable` if it cannot be judged.
        """
        if not await self.rooms.is_here(room):
            taken = await self.rooms.take(room)
            if taken is not None:
                return taken
        room_nid = await self.store.nids.room(room.room_id)
        assert room_nid is not None
        outcome = await self.receive(room_nid, room.join, origin=room.resident, now=now)
        if outcome.status is None:
            raise Unavailable("The join cannot be judged now")
        if outcome.status is not Status.ACCEPTED:
            raise Forbidden(f"The room does not allow the join: {outcome.reason}")
        return room_nid

    async def record_outside(
        self, version: RoomVersion, event: Event, stripped_state: Sequence[JsonObject], *, now: int
    ) -> None:
        """Keep an invite to or knock by a local user in a room this server is not in, and tell the user."""
        await self.outside.begin(version, event, stripped_state, now=now)

    async def record_leave(self, room_id: RoomID, user_id: UserID, event: Event | None, *, now: int) -> None:
        """Keep that a local user has left a room this server is not in; None: no server has heard of it."""
        await self.outside.end(room_id, user_id, event, now=now)
