"""Events known without the state before them: from auth chains, state answers, invites.

Each is judged by the events it names alone, in the order of authority; what fails is kept as rejected, so
that it stays so, and what names events that are nowhere is left out. They are no timeline.

Source: server-server-api.md, "Checks performed on receipt of a PDU"; security S1, S2.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from attrs import define, field, frozen
from twisted.logger import Logger

from homeserver.clock import Clock
from homeserver.events.building import Author, row_of
from homeserver.events.clocks import AuthClock, assign
from homeserver.events.judging import by_authority
from homeserver.events.received import Incoming
from homeserver.events.relations import NO_RELATION
from homeserver.events.stored import Status, StoredEvent
from protocol.events import Event
from protocol.identifiers import EventID
from protocol.limits import MAX_DEPTH
from storage.events import ClockRow, EventRow

log = Logger()

EVENTS_A_TURN = 100
"""Events judged before others have their turn."""


@frozen(eq=False)
class Known:
    """Events of the room that are here already, with the clocks of the state events among them."""

    events: Mapping[EventID, StoredEvent] = field(factory=dict)
    clocks: Mapping[int, ClockRow] = field(factory=dict)
    bare: Mapping[EventID, int] = field(factory=dict)
    """Nids of outliers that were kept unjudged (invites from outside); those are not in `events`."""


@define(eq=False)
class Judged:
    """Outliers that have been judged: all of them by event ID, and the rows of those that are new."""

    events: dict[EventID, StoredEvent]
    clocks: dict[int, AuthClock] = field(factory=dict)
    tails: dict[int, int] = field(factory=dict)
    """The last number on each chain that was begun in this bulk."""
    rows: list[EventRow] = field(factory=list)

    def accepted(self, event_ids: Iterable[EventID]) -> list[StoredEvent]:
        """Give those of these events that are here and not rejected."""
        found = [self.events[each] for each in event_ids if each in self.events]
        return [stored for stored in found if stored.status is not Status.REJECTED]

    def known_again(self, known: Known) -> list[int]:
        """Give the nids of those that were kept unjudged before."""
        bare = set(known.bare.values())
        return [row.event_nid for row in self.rows if row.event_nid in bare]


@frozen(eq=False)
class OutlierJudge:
    """Judges outliers in bulk."""

    author: Author
    clock: Clock

    async def judge(
        self, room_nid: int, incoming: Sequence[Incoming], known: Known, create: Event | None
    ) -> Judged:
        """Judge events of a room, those named by others first in `incoming`.

        `create` is the room's create event, which events do not name in some versions.
        """
        judged = Judged(dict(known.events))
        for index, one in enumerate(incoming):
            if index % EVENTS_A_TURN == EVENTS_A_TURN - 1:
                await self.clock.sleep(0)
            if one.event.event_id not in judged.events:
                self._judge_one(room_nid, one, judged, known, create)
        return judged

    def _judge_one(
        self, room_nid: int, one: Incoming, judged: Judged, known: Known, create: Event | None
    ) -> None:
        event = one.event
        events = judged.events
        auth = [events[each] for each in event.auth_events if each in events]
        if len(auth) < len(event.auth_events):
            log.debug("{event} is left out: it names events that are nowhere", event=event.event_id)
            return
        implied = None if event.version.create_in_auth_events else create
        try:
            against = by_authority(event, auth, implied)
            event_class = self.author.classify(event)
        except Exception:
            log.failure("{event} is left out: it cannot be judged", event=event.event_id)
            return
        stored = StoredEvent(
            event,
            one.nid,
            room_nid,
            Status.OUTLIER if against is None else Status.REJECTED,
            None,
            max(0, min(event.depth, MAX_DEPTH)),
            one.sender_nid,
            event_class,
        )
        clock = None
        if event.is_state and against is None:
            clock = add_clock(stored, auth, judged, known)
        events[event.event_id] = stored
        judged.rows.append(row_of(stored, NO_RELATION, clock))


def add_clock(stored: StoredEvent, auth: Sequence[StoredEvent], judged: Judged, known: Known) -> AuthClock:
    """Place an outlier among the auth chains; it may go on a chain that was begun in the same bulk."""
    made, key = judged.clocks, stored.event.key
    clocks: list[AuthClock] = []
    replaced: AuthClock | None = None
    for each in auth:
        clock = made.get(each.nid)
        if clock is not None:
            clocks.append(clock)
            if each.event.key == key:
                replaced = clock
        elif (row := known.clocks.get(each.nid)) is not None:
            clocks.append(AuthClock.unpack(row.chain, row.number, row.clock))
    tail = 0 if replaced is None else judged.tails.get(replaced.chain, 0)
    clock = assign(stored.nid, clocks, replaced, tail)
    judged.tails[clock.chain] = clock.number
    made[stored.nid] = clock
    return clock
