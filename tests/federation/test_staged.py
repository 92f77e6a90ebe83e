"""Tests of events that are kept until they can be placed."""

from __future__ import annotations

from attrs import define
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock as TimersClock

from federation.inbound.staged import BRIDGE_AFTER, RETRY_SECONDS, STAGED_BOUNDS, StagedPdus
from homeserver.clock import Clock
from homeserver.events.gaps import Gaps
from homeserver.events.nids import Room
from homeserver.events.received import Course, Outcome
from homeserver.events.stored import Status
from protocol.errors import LimitExceeded
from protocol.events import Event
from protocol.identifiers import ServerName
from storage import staging
from storage.database import Transaction
from storage.staging import ToStage
from tests.federation.inbound_helpers import Here, InboundCase
from tests.homeserver.events.helpers import NOW
from tests.homeserver.events.received_helpers import (
    OTHER,
    Peer,
    entries_of,
    stored_of,
    tip,
)
from tests.storage.helpers import REACTOR, PostgresCase, SqliteCase


@define(eq=False)
class Faulty:
    """Receives events, but fails at one of them."""

    received: Gaps
    bad: Event

    async def receive(
        self, room_nid: int, event: Event, *, origin: ServerName, course: Course = Course.RECEIVED
    ) -> Outcome:
        """Receive an event."""
        if event == self.bad:
            raise RuntimeError("a fault")
        return await self.received.receive(room_nid, event, origin=origin, course=course)

    async def bridge(self, room_nid: int, event: Event, *, origin: ServerName) -> None:
        """Bridge nothing."""


def clock_at(ms: int) -> TimersClock:
    """Give timers that stand at a time."""
    time = TimersClock()
    time.advance(ms / 1000)
    return time


def leases(tx: Transaction) -> list[tuple[str, int]]:
    """Give who holds rooms, and until when."""
    return tx.all("SELECT holder, expires FROM staged_rooms")  # type: ignore[return-value]


class StagedTests(InboundCase):
    """What must hold on every engine."""

    async def stage_one(self, *, may_be_had: bool = True) -> tuple[Here, Room, Event]:
        """Let process "one" stage an event whose parent can be had by now, or not, and die."""
        peer = Peer()
        here, room, remote = await self.begin(peer)
        here.staged.stop()
        first = self.said(remote, room, "one", await tip(here.worker, room.nid))
        second = self.said(remote, room, "two", [first])
        self.assertEqual(await here.send([second.pdu]), {"pdus": {second.event_id: {}}})
        self.assertEqual(await self.database.read(staging.rooms), [room.nid])
        peer.events = {event.event_id: event for event in (first, second) if may_be_had}
        return here, room, second

    def process(self, here: Here, holder: str, time: TimersClock) -> StagedPdus:
        """Give the same part of a process on the same database."""
        return StagedPdus(here.database, here.worker.nids, here.incoming.gaps, Clock(time), holder)

    async def all_placed(self) -> None:
        """Wait until nothing is staged."""
        while await self.database.read(staging.rooms):
            pass
        self.assertEqual(await self.database.read(leases), [])

    async def test_what_lacks_its_past_is_staged_and_placed_later(self) -> None:
        """An event without its parents is answered, kept, and placed with them after a restart, at once."""
        here, room, event = await self.stage_one()
        await self.process(here, "two", clock_at(NOW)).resume()
        await self.all_placed()
        self.assertEqual(await tip(here.worker, room.nid), [event])

    async def test_a_parent_that_is_never_to_be_had_does_not_keep_out_what_follows(self) -> None:
        """After a while its child is history on the state a server claims, and the room goes on after it."""
        peer = Peer()
        here, room, remote = await self.begin(peer)
        here.staged.stop()
        (join,) = await tip(here.worker, room.nid)
        lost = self.said(remote, room, "refused here", [join])
        child = self.said(remote, room, "its child", [lost])
        after = self.said(remote, room, "after that", [child])
        await here.send([child.pdu, after.pdu])
        peer.states = {each.event_id: list(remote.state.values()) for each in (child, after)}
        early = self.process(here, "one", clock_at(NOW + BRIDGE_AFTER))
        self.assertTrue(await early._place_all(room.nid))
        self.assertEqual(await tip(here.worker, room.nid), [join])
        late = self.process(here, "one", clock_at(NOW + BRIDGE_AFTER + 1))
        self.assertEqual(await late._place_all(room.nid), False)
        self.assertIn(after, await tip(here.worker, room.nid))
        history = await stored_of(here.worker, room.nid, child)
        self.assertEqual(history.status, Status.ACCEPTED)
        told = [entry.ref for entry in await entries_of(here.worker, room.nid)]
        self.assertNotIn(history.nid, told)

    async def test_another_process_takes_over(self) -> None:
        """What a process that died has left is another's when the lease ends, and not before."""
        here, room, event = await self.stage_one()
        time = clock_at(NOW + staging.LEASE - 1)
        other = self.process(here, "two", time)
        await other._take_over()
        self.assertEqual(await self.database.read(leases), [("one", NOW + staging.LEASE)])
        time.advance(0.001)
        await other._take_over()
        await self.all_placed()
        self.assertEqual(await tip(here.worker, room.nid), [event])

    async def test_the_last_to_stage_has_the_room(self) -> None:
        """Whoever stages something in a room works on all of it from then on, and the other lets go."""
        here, room, _ = await self.stage_one()
        other = self.process(here, "two", clock_at(NOW))
        other.stop()
        await other.stage(OTHER, [ToStage(room.nid, "$another", b"{}")], NOW)
        for holder, count in (("one", 0), ("two", 2)):
            rows = await self.database.read(staging.after, room.nid, holder, 0, 9)
            self.assertEqual(len(rows), count)
        await self.database.write(staging.drop, room.nid, "two", "$another")
        self.assertEqual(await self.database.read(leases), [("two", NOW + staging.LEASE)])

    async def test_a_lease_costs_no_trip(self) -> None:
        """One process stages, places and drops as if there could be no other."""
        here, room, _ = await self.stage_one()
        one = self.process(here, "one", clock_at(NOW))
        one._until[room.nid] = NOW + staging.LEASE
        self.assertFalse(await one._place_all(room.nid))
        ours = [each for each in here.database.works if getattr(each, "__module__", "") == staging.__name__]
        self.assertEqual(
            ours[-6:],
            [staging.answer, staging.stage, staging.put_answer, staging.after, staging.drop, staging.after],
        )

    async def test_a_staged_event_that_cannot_be_placed_harms_no_neighbour(self) -> None:
        """A fault with one staged event costs that one, and those after it are placed (security: F2)."""
        peer = Peer()
        here, room, remote = await self.begin(peer)
        here.staged.stop()
        parents = await tip(here.worker, room.nid)
        absent = self.said(remote, room, "absent", parents)
        bad, good = (self.said(remote, room, text, [absent]) for text in ("bad", "good"))
        await here.send([bad.pdu, good.pdu])
        peer.events = {event.event_id: event for event in (absent, bad, good)}
        faulty = Faulty(here.incoming.gaps, bad)
        staged = StagedPdus(self.database, here.worker.nids, faulty, here.worker.clock, "one")
        await staged._place_all(room.nid)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual((await stored_of(here.worker, room.nid, good)).status, Status.ACCEPTED)

    async def test_staging_is_bounded_for_each_server(self) -> None:
        """A server that floods us with orphans is told to wait (security: F18)."""
        here, room, remote = await self.begin()
        here.staged.stop()
        parents = await tip(here.worker, room.nid)
        absent = self.said(remote, room, "absent", parents)
        refused = 0
        for number in range(12):
            orphans = [
                self.said(remote, room, f"{number} {n} " + "x" * 40_000, [absent]).pdu for n in range(10)
            ]
            try:
                await here.send(orphans)
            except LimitExceeded:
                refused += 1
        self.assertEqual(refused, 2)


class SqliteStaged(StagedTests, SqliteCase):
    """On SQLite."""


class PostgresStaged(StagedTests, PostgresCase):
    """On PostgreSQL, where other processes may be."""

    async def test_who_lives_keeps_its_room(self) -> None:
        """A process that cannot place its events yet goes on holding their room, and others look in vain."""
        here, room, _ = await self.stage_one(may_be_had=False)
        time = clock_at(NOW + staging.LEASE)
        one, other = self.process(here, "one", time), self.process(here, "two", time)
        self.assertTrue(await one._place_all(room.nid))
        await other._take_over()
        self.assertEqual(await self.database.read(leases), [("one", NOW + 2 * staging.LEASE)])

    async def test_a_lease_stays_for_what_is_staged_as_the_last_is_dropped(self) -> None:
        """Whoever stages while the last PDU before is dropped keeps the room, in whatever order they come."""
        _, room, event = await self.stage_one()

        def stage(tx: Transaction) -> None:
            staging.stage(tx, OTHER, NOW, [ToStage(room.nid, "$another", b"{}")], STAGED_BOUNDS, "one")
            self.assertIsNone(tx.one(waiting))
            REACTOR.callFromThread(is_staged.callback, None)
            while not tx.one(waiting):
                pass

        waiting = "SELECT 1 FROM pg_locks WHERE NOT granted"
        is_staged: Deferred[None] = Deferred()
        staged = Deferred.fromCoroutine(self.database.write(stage))
        await is_staged
        await self.database.write(staging.drop, room.nid, "one", event.event_id)
        await staged
        self.assertEqual(await self.database.read(leases), [("one", NOW + staging.LEASE)])

    async def test_others_look_for_what_is_left(self) -> None:
        """A process that runs looks on its own for rooms that nobody works on."""
        here, room, event = await self.stage_one()
        time = clock_at(NOW)
        other = self.process(here, "two", time)
        await self.database.write(staging.drop, room.nid, "one", event.event_id)
        await other.resume()
        await here.staged.stage(OTHER, [ToStage(room.nid, event.event_id, event.raw)], NOW)
        time.pump([RETRY_SECONDS] * 3)
        await self.all_placed()
        other.stop()
        self.assertEqual(await tip(here.worker, room.nid), [event])
        self.assertEqual(time.getDelayedCalls(), [])
