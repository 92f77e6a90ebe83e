"""Fill the holes in a room's graph by asking other servers: before an event can be judged, and for history.

What a server says of the state at an event is its claim: each event of it is judged by its own authority,
and it enters the room's state by resolution alone. All asking is bounded, shared, and only of servers in
the room.

Source: server-server-api.md, "Backfilling and retrieving missing events"; security F14, F15, S1.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Sequence
from itertools import islice
from typing import Protocol

from attrs import define, field, frozen
from twisted.logger import Logger

from homeserver.clock import Clock
from homeserver.events.heads import Heads
from homeserver.events.nids import Nids, Room
from homeserver.events.past import Past
from homeserver.events.received import Course, Outcome
from homeserver.events.receiving import ReceivedEvents, in_order
from homeserver.single_flight import SingleFlight
from protocol.errors import MatrixError
from protocol.events import Event
from protocol.identifiers import EventID, ServerName, server_of

log = Logger()

MAX_SERVERS = 3
"""Servers asked, one after another, for the past of one event."""

MISSING_LIMIT = 20
"""Events asked for at once before an event."""

MAX_SINGLE = 50
"""Events of a state fetched one by one; if more are missing, the whole state is asked for."""

MAX_AUTHORITY = 500
"""Auth events fetched for one event."""

MAX_HOLES = 20
"""Parents of one event whose state is asked for."""

FORGIVEN_AFTER = 60_000
"""Milliseconds before an event that could not be had is asked for again."""

MAX_UNAVAILABLE = 10_000
BACKFILL_LIMIT = 100
MAX_CLAIMS = 5
"""States asked for in one backfill."""


class MissingEvents(Protocol):
    """Asks other servers for events, all of them checked and of the room; raises MatrixError."""

    async def event(self, server: ServerName, room: Room, event_id: EventID) -> Event | None:
        """Give one event, None if the server does not have it."""
        ...

    async def before(
        self, server: ServerName, room: Room, between: tuple[Sequence[EventID], Sequence[EventID]], limit: int
    ) -> Sequence[Event]:
        """Give events after the first and before the second of `between`."""
        ...

    async def state_ids(
        self, server: ServerName, room: Room, event_id: EventID
    ) -> tuple[Sequence[EventID], Sequence[EventID]]:
        """Give the state before an event, and its auth chain, as event IDs."""
        ...

    async def state(
        self, server: ServerName, room: Room, event_id: EventID
    ) -> tuple[Sequence[Event], Sequence[Event]]:
        """Give the state before an event, and its auth chain, as events."""
        ...

    async def backfill(
        self, server: ServerName, room: Room, event_ids: Sequence[EventID], limit: int
    ) -> Sequence[Event]:
        """Give events before and including these."""
        ...


@define(eq=False)
class _Unavailable:
    """Events that could not be had of a server, or of all that were asked (None), a short while ago."""

    until: OrderedDict[tuple[int, EventID, ServerName | None], int] = field(factory=OrderedDict)

    def has(self, room_nid: int, event_id: EventID, now: int, server: ServerName | None = None) -> bool:
        """Tell whether an event is not to be asked for now."""
        return self.until.get((room_nid, event_id, server), 0) > now

    def add(self, room_nid: int, event_id: EventID, now: int, server: ServerName | None = None) -> None:
        """Note that an event could not be had."""
        self.until[room_nid, event_id, server] = now + FORGIVEN_AFTER
        if len(self.until) > MAX_UNAVAILABLE:
            self.until.popitem(last=False)


@frozen(eq=False)
class Gaps:
    """Receives events, fetching what they need."""

    received: ReceivedEvents
    past: Past
    fetch: MissingEvents
    nids: Nids
    heads: Heads
    clock: Clock
    own_name: ServerName
    _unavailable: _Unavailable = field(factory=_Unavailable, init=False)
    _flights: SingleFlight[tuple[int, EventID, ServerName], None] = field(factory=SingleFlight, init=False)

    async def receive(
        self, room_nid: int, event: Event, *, origin: ServerName, course: Course = Course.RECEIVED
    ) -> Outcome:
        """Judge and place an event, asking servers in the room, `origin` first, until it has what it needs.

        The status of the outcome is None if it cannot be judged now. Raises what `ReceivedEvents.place` does.
        """
        (outcome,) = await self.received.place(room_nid, (event,), course)
        if not outcome.missing:
            return outcome
        room = await self.nids.room_of(room_nid)
        head = await self.heads.get(room_nid)
        for server in self._servers(event, origin, head.servers):
            try:
                await self._fill(room, event, server)
            except MatrixError as error:
                log.info("{event} lacks its past: {error}", event=event.event_id, error=error.error)
            (outcome,) = await self.received.place(room_nid, (event,), course)
            if not outcome.missing:
                break
        return outcome

    async def bridge(self, room_nid: int, event: Event, *, origin: ServerName) -> None:
        """Place an event whose parents nobody gives, on the state that a server says was before it.

        It is history then: nobody is told of it, but what follows it can be judged. Nothing is done if no
        server helps.
        """
        room = await self.nids.room_of(room_nid)
        head = await self.heads.get(room_nid)
        for server in self._servers(event, origin, head.servers):
            try:
                await self._claim(room, event, server)
            except MatrixError as error:
                log.info("{event} cannot be bridged: {error}", event=event.event_id, error=error.error)
            else:
                return

    def _servers(
        self, event: Event, origin: ServerName, present: Collection[ServerName]
    ) -> Sequence[ServerName]:
        """Give servers in the room that may know the past of an event, the likeliest first."""
        likely = dict.fromkeys((origin, server_of(event.sender), *present))
        others = (server for server in likely if server in present and server != self.own_name)
        return tuple(islice(others, MAX_SERVERS))

    async def _fill(self, room: Room, event: Event, server: ServerName) -> None:
        """Get the authority of an event, then its past: as events, and where those end, as states."""
        await self._authority(room, (event,), server)
        holes = await self.past.holes(room, (event,))
        if not holes:
            return
        head = await self.heads.get(room.nid)
        now = self.clock.now_ms()
        found: Sequence[Event] = ()
        if not self._unavailable.has(room.nid, event.event_id, now, server):
            self._unavailable.add(room.nid, event.event_id, now, server)
            earliest = head.place.prev_events[:MISSING_LIMIT]
            found = await self.fetch.before(server, room, (earliest, (event.event_id,)), MISSING_LIMIT)
        before = [each for each in in_order(found) if each.event_id != event.event_id][:MISSING_LIMIT]
        await self._authority(room, before, server)
        holes = await self.past.holes(room, (*before, event))
        for hole in holes[:MAX_HOLES]:
            await self._state_at(room, hole, server)
        await self.received.place(room.nid, before)

    async def _authority(self, room: Room, batch: Sequence[Event], server: ServerName) -> None:
        """Fetch auth events that are not here, and theirs, and keep them as outliers."""
        wanted = [each for event in batch for each in event.auth_events]
        await self._outliers(room, wanted, server, MAX_AUTHORITY)

    async def _outliers(
        self, room: Room, wanted: Collection[EventID], server: ServerName, limit: int
    ) -> None:
        """Fetch events one by one, with all their authority, as far as they are not here."""
        fetched: dict[EventID, Event] = {}
        waiting = await self.past.absent(room, wanted)
        while waiting and len(fetched) < limit:
            following: set[EventID] = set()
            for event_id in sorted(waiting)[: limit - len(fetched)]:
                event = await self._one(room, event_id, server)
                if event is not None:
                    fetched[event_id] = event
                    following.update(event.auth_events)
            waiting = await self.past.absent(room, following - fetched.keys())
        if fetched:
            await self.past.keep_outliers(room, list(fetched.values()))

    async def _one(self, room: Room, event_id: EventID, server: ServerName) -> Event | None:
        """Fetch one event, unless it could not be had just now."""
        now = self.clock.now_ms()
        if self._unavailable.has(room.nid, event_id, now, server):
            return None
        event = await self.fetch.event(server, room, event_id)
        if event is None:
            self._unavailable.add(room.nid, event_id, now, server)
        return event

    async def _state_at(self, room: Room, event_id: EventID, server: ServerName) -> None:
        """Get an event whose own past stays missing, with the state before it; once at a time."""
        now = self.clock.now_ms()
        if not self._unavailable.has(room.nid, event_id, now, server):
            flight = (room.nid, event_id, server)
            await self._flights.run(flight, lambda: self._get_state_at(room, event_id, server))

    async def _get_state_at(self, room: Room, event_id: EventID, server: ServerName) -> None:
        event = await self._one(room, event_id, server)
        if event is None:
            return
        try:
            await self._claim(room, event, server)
        except MatrixError:
            self._unavailable.add(room.nid, event_id, self.clock.now_ms(), server)
            raise

    async def _claim(self, room: Room, event: Event, server: ServerName) -> None:
        """Place an event as history on the state that a server says was before it."""
        await self._authority(room, (event,), server)
        state, chain = await self.fetch.state_ids(server, room, event.event_id)
        absent = await self.past.absent(room, (*state, *chain))
        if len(absent) > MAX_SINGLE:
            whole, authority = await self.fetch.state(server, room, event.event_id)
            await self.past.keep_outliers(room, (*authority, *whole))
        elif absent:
            await self._outliers(room, absent, server, MAX_AUTHORITY)
        await self.past.place(room, event, state)

    async def fill(self, room_nid: int, depth: int) -> bool:
        """Get history before the gaps at or below a depth; tells whether anything came.

        Servers in the room are asked one after another until one gives something.
        """
        missing = await self.past.gaps_below(room_nid, depth)
        now = self.clock.now_ms()
        missing = [each for each in missing if not self._unavailable.has(room_nid, each, now)]
        if not missing:
            return False
        room = await self.nids.room_of(room_nid)
        head = await self.heads.get(room_nid)
        for server in [each for each in head.servers if each != self.own_name][:MAX_CLAIMS]:
            try:
                found = await self.fetch.backfill(server, room, missing, BACKFILL_LIMIT)
                if found and await self._take_history(room, found[:BACKFILL_LIMIT], server):
                    return True
            except MatrixError as error:
                log.info("no history from {server}: {error}", server=server, error=error.error)
        for event_id in missing:
            self._unavailable.add(room_nid, event_id, now)
        return False

    async def _take_history(self, room: Room, found: Sequence[Event], server: ServerName) -> bool:
        """Place events of the past, oldest first; those whose parents are missing by a claimed state."""
        ordered = in_order(found)
        await self._authority(room, ordered, server)
        claims = 0
        any_placed = False
        for event in ordered:
            (outcome,) = await self.received.place(room.nid, (event,), Course.PAST)
            if outcome.missing and claims < MAX_CLAIMS:
                claims += 1
                await self._claim(room, event, server)
                any_placed = True
            any_placed = any_placed or outcome.stored is not None
        return any_placed
