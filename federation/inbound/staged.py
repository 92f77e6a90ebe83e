"""PDUs that could not be placed at once: worked on room by room, in the order of arrival.

They are rows, so a restart goes on where it was, and another process takes over what one that died has left.
A bounded number of rooms is worked on at a time; a room whose past cannot be had is tried again later, and
costs the others nothing.

Source: server-server-api.md, "Checks performed on receipt of a PDU"; security F14, F15, F18.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

from attrs import define, evolve, field
from twisted.logger import Logger

from federation.ports import ReceivedEvents
from homeserver.background import run_in_background
from homeserver.clock import Clock, Timer
from homeserver.events.nids import Nids
from protocol.errors import MatrixError, NotFound
from protocol.events import Event, load_event
from protocol.identifiers import EventID, ServerName
from protocol.pdu_format import is_too_long
from storage import staging
from storage.database import Database, DatabaseGone, Dialect
from storage.staging import Bounds, Staged, ToStage

MAX_ROOMS = 8
"""Rooms worked on at a time."""

STAGED_BOUNDS = Bounds(origin=16 * 1024 * 1024, room=4 * 1024 * 1024)
BATCH = 50
RETRY_SECONDS = 60.0
BRIDGE_AFTER = 600_000
"""Milliseconds after which an event is taken as history, if a server says what the state before it was.

What is never to be had, such as a parent that this server refuses, would keep out all that follows."""
GIVE_UP_AFTER = 3_600_000
"""Milliseconds after which an event whose past cannot be had is given up."""

log = Logger()


@define(eq=False)
class StagedPdus:
    """Places staged PDUs."""

    database: Database
    nids: Nids
    received: ReceivedEvents
    clock: Clock
    holder: str
    """The name of this process, unlike that of any other."""
    _until: dict[int, int] = field(factory=dict, init=False)
    """When the leases of rooms end."""
    _running: set[int] = field(factory=set, init=False)
    _waiting: OrderedDict[int, None] = field(factory=OrderedDict, init=False)
    _stopped: bool = field(default=False, init=False)
    _timer: Timer | None = field(default=None, init=False)

    async def resume(self) -> None:
        """Go on with what was staged before this process began, and watch for what others leave."""
        rooms = await self.database.read(staging.rooms)
        if rooms:
            await self.database.write(staging.seize, rooms, self.holder, self.clock.now_ms())
        self._begin(rooms)
        if self._is_shared:
            self._arm()

    def stop(self) -> None:
        """Begin no more rooms."""
        self._stopped = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._waiting.clear()

    async def stage(self, origin: ServerName, pdus: Sequence[ToStage], now: int) -> bool:
        """Keep PDUs and work on their rooms; False, and nothing is kept, if the server has too much here."""
        if not await self.database.write(staging.stage, origin, now, pdus, STAGED_BOUNDS, self.holder):
            return False
        self._begin({pdu.room_nid for pdu in pdus})
        return True

    @property
    def _is_shared(self) -> bool:
        """Tell whether other processes may be at work on the database."""
        return self.database.dialect is Dialect.POSTGRES

    def _arm(self) -> None:
        self._timer = self.clock.call_later(RETRY_SECONDS, self._watch)

    def _watch(self) -> None:
        self._arm()
        run_in_background(self._take_over(), "taking staged events over")

    async def _take_over(self) -> None:
        """Work on rooms that nobody works on."""
        try:
            rooms = await self.database.read(staging.left, self.clock.now_ms())
            if rooms:
                await self.database.write(staging.take_over, rooms, self.holder, self.clock.now_ms())
        except DatabaseGone as gone:
            log.info("nobody looks for staged events that were left: {error!r}", error=gone)
        else:
            self._begin(rooms)

    def _begin(self, rooms: Iterable[int]) -> None:
        """Work on rooms whose lease is new."""
        until = self.clock.now_ms() + staging.LEASE
        for room_nid in rooms:
            self._until[room_nid] = until
            self.work_on(room_nid)

    async def _keep(self, room_nid: int) -> None:
        """Keep the lease of a room that takes long."""
        now = self.clock.now_ms()
        if self._is_shared and self._until.get(room_nid, 0) < now + staging.LEASE // 2:
            self._until[room_nid] = now + staging.LEASE
            await self.database.write(staging.renew, room_nid, self.holder, now)

    def work_on(self, room_nid: int) -> None:
        """Place what is staged in a room, when it is its turn."""
        if self._stopped:
            return
        self._waiting[room_nid] = None
        self._next()

    def _next(self) -> None:
        """Begin rooms that wait, as far as there is room; one under way comes again when it is done."""
        for room_nid in list(self._waiting):
            if len(self._running) >= MAX_ROOMS:
                return
            if room_nid not in self._running:
                del self._waiting[room_nid]
                self._running.add(room_nid)
                run_in_background(self._work(room_nid), "placing staged events")

    async def _work(self, room_nid: int) -> None:
        try:
            again = await self._place_all(room_nid)
        except (MatrixError, DatabaseGone) as error:
            log.info("staged events of room {room} wait: {error!r}", room=room_nid, error=error)
            again = True
        finally:
            self._running.discard(room_nid)
            self._next()
        if again and not self._stopped:
            self.clock.call_later(RETRY_SECONDS, lambda: self.work_on(room_nid))

    async def _place_all(self, room_nid: int) -> bool:
        """Go through a room's staged PDUs once; tell whether some are left."""
        last, left = 0, False
        while not self._stopped:
            rows = await self.database.read(staging.after, room_nid, self.holder, last, BATCH)
            if not rows:
                break
            for row in rows:
                await self._keep(room_nid)
                if await self._is_done(row, first=not left):
                    await self.database.write(staging.drop, room_nid, self.holder, row.event_id)
                else:
                    left = True
                last = row.staged_nid
        if not left:
            self._until.pop(room_nid, None)
        return left

    async def _is_done(self, row: Staged, *, first: bool) -> bool:
        """Place an event; tell whether it need not be tried again. Only the first that waits is bridged."""
        age = self.clock.now_ms() - row.ts
        try:
            event = await self._event(row)
            origin = ServerName(row.origin)
            outcome = await self.received.receive(row.room_nid, event, origin=origin)
            if outcome.status is None and outcome.missing and first and age > BRIDGE_AFTER:
                await self.received.bridge(row.room_nid, event, origin=origin)
                outcome = await self.received.receive(row.room_nid, event, origin=origin)
        except NotFound:
            return True
        except (MatrixError, DatabaseGone):
            raise
        except Exception:  # one bad item never stops its neighbours
            log.failure("{event} cannot be placed yet", event=row.event_id)
        else:
            if outcome.status is not None or not outcome.missing:
                return True
        return age > GIVE_UP_AFTER

    async def _event(self, row: Staged) -> Event:
        """Read a staged event back; its signatures were checked when it came."""
        room = await self.nids.room_of(row.room_nid)
        event = load_event(row.pdu, room.version, event_id=EventID(row.event_id), room_id=room.room_id)
        return evolve(event, too_long=is_too_long(event.pdu))
