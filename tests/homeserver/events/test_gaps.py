"""Tests of events whose past is missing: whom we ask for it, for what, and how often."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define

from homeserver.events.nids import Room
from homeserver.events.stored import Status
from protocol.errors import NotFound
from protocol.events import Event
from protocol.identifiers import EventID, ServerName, UserID, server_of
from protocol.limits import MAX_DEPTH
from protocol.room_versions import V11
from tests.homeserver.events.helpers import membership, message
from tests.homeserver.events.received_helpers import (
    CAROL,
    DAVE,
    Peer,
    ReceivingCase,
    entries_of,
    receive,
    stored_of,
    tip,
)
from tests.storage.helpers import PostgresCase, SqliteCase

EVE = UserID("@eve:third.test")


@define(eq=False)
class Knowing(Peer):
    """Other servers of which the third alone has what we ask for; the others fail, or give nothing."""

    failing: bool = False

    def has(self, server: ServerName) -> bool:
        """Tell whether a server has anything."""
        if server != server_of(EVE) and self.failing:
            raise NotFound("it is not here")
        return server == server_of(EVE)

    async def event(self, server: ServerName, room: Room, event_id: EventID) -> Event | None:
        """Give one event."""
        return await Peer.event(self, server, room, event_id) if self.has(server) else None

    async def before(
        self, server: ServerName, room: Room, between: tuple[Sequence[EventID], Sequence[EventID]], limit: int
    ) -> Sequence[Event]:
        """Give events between."""
        return await Peer.before(self, server, room, between, limit) if self.has(server) else ()


class MissingTests(ReceivingCase):
    """What must hold on every engine."""

    async def test_missing_parents_are_asked_for(self) -> None:
        """Events between are fetched and come into the feed in their order."""
        peer = Peer()
        worker, incoming, room, remote = await self.begin(V11, peer)
        last = await tip(worker, room.nid)
        line: list[Event] = []
        for number in range(5):
            last = [remote.build(message(room.room_id, str(number), CAROL), last)]
            line += last
        peer.events = {event.event_id: event for event in line}
        outcome = await receive(incoming, room.nid, line[-1])
        self.assertEqual(outcome.status, Status.ACCEPTED)
        found = await worker.stored.by_nid(
            room.nid, [entry.ref or 0 for entry in (await entries_of(worker, room.nid))[-5:]]
        )
        self.assertEqual([stored.event for _, stored in sorted(found.items())], line)
        self.assertEqual(await tip(worker, room.nid), [line[-1]])

    async def test_a_gap_too_wide_is_bridged_by_the_state_at_its_end(self) -> None:
        """After a long silence the state at the oldest parent is asked for; history stays open below."""
        peer = Peer()
        worker, incoming, room, remote = await self.begin(V11, peer)
        last = await tip(worker, room.nid)
        line: list[Event] = []
        dave = remote.put(membership(room.room_id, DAVE, "join"), last)
        line.append(dave)
        for number in range(40):
            line.append(remote.build(message(room.room_id, str(number), DAVE), line[-1:]))
        peer.events = {event.event_id: event for event in line}
        state = list(remote.state.values())
        peer.states = {event.event_id: state for event in line[1:]}
        outcome = await receive(incoming, room.nid, line[-1])
        self.assertEqual((outcome.status, outcome.reason), (Status.ACCEPTED, ""))
        head = await worker.heads.get(room.nid)
        self.assertEqual(dict(head.servers), {"plait.test": 1, "other.test": 2})
        self.assertIn(line[-1], await tip(worker, room.nid))
        self.assertTrue(await incoming.gaps.fill(room.nid, MAX_DEPTH))
        oldest = await stored_of(worker, room.nid, line[1])
        self.assertEqual(oldest.status, Status.ACCEPTED)
        self.assertLess(oldest.depth, (await stored_of(worker, room.nid, line[30])).depth)

    async def test_an_outlier_is_no_parent_until_it_has_a_place(self) -> None:
        """What is known only as an authority has no state, so nothing is built on it (security: S1)."""
        peer = Peer()
        worker, incoming, room, remote = await self.begin(V11, peer)
        parents = await tip(worker, room.nid)
        dave = remote.put(membership(room.room_id, DAVE, "join"), parents)
        peer.events = {dave.event_id: dave}
        said = remote.build(message(room.room_id, "hello", DAVE), parents)
        self.assertEqual((await receive(incoming, room.nid, said)).status, Status.REJECTED)
        outlier = await stored_of(worker, room.nid, dave)
        self.assertEqual((outlier.status, outlier.root_before), (Status.OUTLIER, None))
        child = remote.build(message(room.room_id, "on it", DAVE), [dave])
        (outcome,) = await incoming.received.place(room.nid, (child,))
        self.assertEqual(outcome.missing, {dave.event_id})
        self.assertEqual((await receive(incoming, room.nid, dave)).status, Status.ACCEPTED)
        placed = await stored_of(worker, room.nid, dave)
        self.assertEqual((placed.nid, placed.status), (outlier.nid, Status.ACCEPTED))
        self.assertEqual((await receive(incoming, room.nid, child)).status, Status.ACCEPTED)

    async def test_orphans_do_not_make_us_ask_without_end(self) -> None:
        """Many events with one missing parent cost a bounded number of requests (security: F15)."""
        peer = Peer()
        worker, incoming, room, remote = await self.begin(V11, peer)
        parents = await tip(worker, room.nid)
        absent = remote.build(message(room.room_id, "absent", CAROL), parents)
        for number in range(30):
            orphan = remote.build(message(room.room_id, str(number), CAROL), [absent])
            self.assertEqual((await receive(incoming, room.nid, orphan)).status, None)
            self.assertEqual((await receive(incoming, room.nid, orphan)).status, None)
        self.assertEqual(peer.asked.count("event"), 1)
        self.assertEqual(peer.asked.count("before"), 30)
        self.assertEqual(peer.asked.count("state_ids"), 0)

    async def test_the_next_server_is_asked_where_one_gives_nothing(self) -> None:
        """What the sending server has not, or fails to give, another server in the room is asked for."""
        peer = Knowing()
        worker, incoming, room, remote = await self.begin(V11, peer)
        last = remote.put(membership(room.room_id, EVE, "join"), await tip(worker, room.nid))
        self.assertEqual((await receive(incoming, room.nid, last)).status, Status.ACCEPTED)
        for peer.failing in (False, True):
            first = remote.build(message(room.room_id, "one", CAROL), [last])
            last = remote.build(message(room.room_id, "two", CAROL), [first])
            peer.events = {event.event_id: event for event in (first, last)}
            self.assertEqual((await receive(incoming, room.nid, last)).status, Status.ACCEPTED)
            self.assertEqual(await tip(worker, room.nid), [last])


class SqliteMissing(MissingTests, SqliteCase):
    """On SQLite."""


class PostgresMissing(MissingTests, PostgresCase):
    """On PostgreSQL."""
