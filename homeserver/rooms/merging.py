"""Merging the branches of rooms in which no local user speaks.

Each event of others beside another leaves one more forward extremity, and state is resolved over all of
them with each event that comes. The next event of ours names them all and joins them; where none comes, a
dummy does it, from a local user who may send one. Of all servers in the room the first to do so spares the
others the trouble, so each waits for a while of its own.

Source: the type `org.matrix.dummy_event` is what other servers use; security S11.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import SystemRandom
from typing import Final

from attrs import define, field
from twisted.logger import Logger

from homeserver.background import run_in_background
from homeserver.clock import Clock, Timer
from homeserver.events.heads import Heads, RoomHead
from homeserver.rooms.ports import RoomEvents
from homeserver.rooms.powers import power_in
from protocol.errors import MatrixError
from protocol.events import EventDraft
from protocol.identifiers import UserID
from storage.database import DatabaseGone
from storage.feed import Entry

DUMMY: Final = "org.matrix.dummy_event"

MAX_BRANCHES = 10
"""Forward extremities a room may have for long."""

SHORTEST_WAIT = 5.0
LONGEST_WAIT = 60.0
"""Seconds within which somebody else may join the branches."""

MAX_WAITING = 1_000
"""Rooms that wait; others are seen again with their next event."""

log = Logger()


@define(eq=False)
class Merging:
    """Joins branches; each process looks after what it has received itself."""

    events: RoomEvents
    heads: Heads
    clock: Clock
    random: SystemRandom
    _waiting: dict[int, Timer] = field(factory=dict, init=False)
    _stopped: bool = field(default=False, init=False)

    def apply(self, entries: Sequence[Entry]) -> None:
        """Follow the feed; entries without payload are another process's business."""
        for entry in entries:
            if entry.head is not None and len(entry.head.extremities) > MAX_BRANCHES and entry.payload:
                self._wait(entry.room_nid)

    def stop(self) -> None:
        """Join no more."""
        self._stopped = True
        for timer in self._waiting.values():
            timer.cancel()
        self._waiting.clear()

    def _wait(self, room_nid: int | None) -> None:
        if (
            room_nid is None
            or room_nid in self._waiting
            or len(self._waiting) >= MAX_WAITING
            or self._stopped
        ):
            return
        seconds = self.random.uniform(SHORTEST_WAIT, LONGEST_WAIT)
        self._waiting[room_nid] = self.clock.call_later(seconds, lambda: self._due(room_nid))

    def _due(self, room_nid: int) -> None:
        del self._waiting[room_nid]
        run_in_background(self._merge(room_nid), "joining the branches of a room")

    async def _merge(self, room_nid: int) -> None:
        try:
            head = await self.heads.get(room_nid)
            sender = await _sender_in(head) if len(head.extremities) > MAX_BRANCHES else None
            if sender is not None:
                draft = EventDraft(head.room_id, DUMMY, sender, {})
                await self.events.send(draft, now=self.clock.now_ms())
        except (MatrixError, DatabaseGone) as error:
            log.info("the branches of room {room} stay: {error!r}", room=room_nid, error=error)


async def _sender_in(head: RoomHead) -> UserID | None:
    """Give a local member who may send a dummy, None if there is none."""
    power = await power_in(head)
    needed = power.event(DUMMY, is_state=False)
    return next((user_id for user_id in head.local_members if power.user(user_id) >= needed), None)
