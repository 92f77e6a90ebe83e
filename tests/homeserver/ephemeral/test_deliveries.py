"""Delivery marks: moved by what devices have, told to those who said it."""

from __future__ import annotations

from attrs import evolve

from homeserver.clock import Clock
from homeserver.core import make_core
from homeserver.ephemeral.deliveries import DeliveryMarks
from homeserver.events.write import Write
from protocol.identifiers import EventID, ServerName, UserID
from storage.database import DatabaseGone
from storage.feed import Entry, Kind
from storage.feed_writers import Writers
from tests.homeserver.ephemeral.helpers import OTHER, STRANGER, ZOE, Place, start_place
from tests.homeserver.events.helpers import ALICE, BOB, NOW, membership, message
from tests.storage.helpers import REACTOR, PostgresCase, SqliteCase

DELIVERED = "org.plait.delivered"


class DeliveriesContract:
    """What marks do on every engine, in a room of Alice, Bob and Zoe of another server."""

    place: Place

    @property
    def marks(self) -> DeliveryMarks:
        """Give the service."""
        return self.place.passing.deliveries

    async def _user(self, user_id: UserID) -> int:
        return await self.place.core.nids.user(user_id)

    async def _say(self, sender: UserID = ALICE, body: str = "x") -> EventID:
        stored = await self.place.core.events.send(message(self.place.room_id, body, sender), now=NOW)
        return stored.event.event_id

    async def _catches_up(self, user_id: UserID) -> None:
        """Let a device of a user show that it has everything, and do what is due a second later."""
        self.marks.arrived(await self._user(user_id), self.place.core.feed.position)
        await self.marks.move()

    async def _told(self, user_id: UserID, since: int) -> list[tuple[EventID, UserID]]:
        """Give the marks that a user is told of behind a position."""
        nid = await self._user(user_id)
        entries: list[Entry] = self.place.core.feed.since(since) or []
        refs = {entry.ref for entry in entries if entry.kind == Kind.DELIVERED and entry.user_nid == nid}
        found = await self.marks.of({self.place.room_nid: frozenset(ref for ref in refs if ref)})
        return [(each.event_id, each.user_id) for each in found.get(self.place.room_nid, ())]

    async def test_a_mark_moves_once_a_second(self) -> None:
        """The sender is told of the last event that came, once for all that came; others are not."""
        start = self.place.core.feed.position
        self.marks.arrived(await self._user(BOB), start)
        await self._say()
        self.marks.arrived(await self._user(BOB), self.place.core.feed.position)
        last = await self._say()
        self.assertEqual([call.getTime() - NOW / 1000 for call in self.place.time.getDelayedCalls()], [1.0])
        await self._catches_up(BOB)
        self.assertEqual(await self._told(ALICE, start), [(last, BOB)])
        self.assertEqual(await self._told(BOB, start), [])
        entries = self.place.core.feed.since(start) or []
        self.assertEqual(sum(entry.kind == Kind.DELIVERED for entry in entries), 1)
        self.assertEqual(self.place.world.edus, [])

    async def test_marks_outlast_a_database_that_is_away(self) -> None:
        """What could not be written a second ago is written later, though nothing new has come."""
        start = self.place.core.feed.position
        self.marks.arrived(await self._user(BOB), start)
        last = await self._say()
        persister = self.marks.stores.persister
        commit = persister.commit

        async def fail(_write: Write) -> None:
            self.patch(persister, "commit", commit)
            raise DatabaseGone("no answer")

        self.patch(persister, "commit", fail)
        with self.assertRaises(DatabaseGone):
            await self._catches_up(BOB)
        await self.marks.move()
        self.assertEqual(await self._told(ALICE, start), [(last, BOB)])

    async def test_other_servers_are_told(self) -> None:
        """Where a user of another server spoke, that server is told, and it alone."""
        self.marks.arrived(await self._user(BOB), self.place.core.feed.position)
        event_id = await self._say(ZOE)
        await self._catches_up(BOB)
        ((servers, edu_type, content),) = self.place.world.edus
        self.assertEqual((servers, edu_type), ({OTHER}, DELIVERED))
        self.assertEqual(content[self.place.room_id][BOB]["event_id"], event_id)

    async def test_a_first_sync_delivers(self) -> None:
        """Who had no device gets the past by a first sync; after a restart the database tells it."""
        last, start = await self._say(), self.place.core.feed.position
        for after_restart in (False, True):
            if after_restart:
                await self.place.core.events.send(membership(self.place.room_id, BOB, "join"), now=NOW)
                last = await self._say()
                author = self.place.core.author
                core = make_core(self.place.core.database, Clock(REACTOR), author, 10**8, Writers("x"))
                await core.feed.start()
                stores = evolve(self.marks.stores, feed=core.feed)
                self.place.passing = evolve(
                    self.place.passing,
                    deliveries=DeliveryMarks(
                        self.marks.server_name, 20, self.marks.clock, stores, self.marks.send_edu
                    ),
                )
            self.marks.begins(await self._user(BOB))
            await self._catches_up(BOB)
            self.assertEqual(await self._told(ALICE, start), [(last, BOB)])

    async def test_a_second_device_is_no_news(self) -> None:
        """A first sync of what another device had already tells nobody anything."""
        await self._say()
        self.marks.begins(await self._user(BOB))
        await self._catches_up(BOB)
        told, marks = self.place.core.feed.position, self.marks
        renewed = DeliveryMarks(marks.server_name, 20, marks.clock, marks.stores, marks.send_edu)
        self.place.passing = evolve(self.place.passing, deliveries=renewed)
        self.marks.begins(await self._user(BOB))
        await self._catches_up(BOB)
        self.assertEqual(self.place.core.feed.position, told)

    async def test_who_is_not_told(self) -> None:
        """Nobody in large rooms, nobody of what was there before, no ignored sender."""
        start = self.place.core.feed.position
        await self._catches_up(BOB)
        self.place.world.ignored = frozenset({ALICE})
        await self._say()
        await self._catches_up(BOB)
        self.place.world.ignored = frozenset()
        self.marks.most_members = 2
        await self._say()
        await self._catches_up(BOB)
        self.assertEqual(await self._told(ALICE, start), [])

    async def test_marks_of_others(self) -> None:
        """An EDU moves the mark of the origin's own member forward, and tells senders here; no more."""
        first, start = await self._say(), self.place.core.feed.position
        last, room_id = await self._say(), self.place.room_id

        def mark(user_id: str, event_id: object) -> dict[str, object]:
            return {room_id: {user_id: {"event_id": event_id, "ts": NOW}}}

        foreign = (
            (mark(ALICE, last), OTHER),
            (mark(ZOE, last), ServerName("third.test")),
            (mark(STRANGER, last), OTHER),
            (mark(ZOE, "$nowhere"), OTHER),
            (mark(ZOE, 5), OTHER),
            ({room_id: []}, OTHER),
            ({"!x:y": {ZOE: {"event_id": last}}}, OTHER),
        )
        for content, origin in foreign:
            await self.place.take(DELIVERED, content, origin)
        self.assertEqual(await self._told(ALICE, start), [])
        await self.place.take(DELIVERED, mark(ZOE, last))
        before = self.place.core.feed.position
        for event_id in (last, first):
            await self.place.take(DELIVERED, mark(ZOE, event_id))
        self.assertEqual(await self._told(ALICE, start), [(last, ZOE)])
        self.assertEqual(self.place.core.feed.position, before)


class SqliteDeliveriesTest(DeliveriesContract, SqliteCase):
    """On SQLite."""

    async def setUp(self) -> None:
        """Start the services."""
        await super().setUp()
        self.place = await start_place(self.database)


class PostgresDeliveriesTest(DeliveriesContract, PostgresCase):
    """On PostgreSQL."""

    async def setUp(self) -> None:
        """Start the services."""
        await super().setUp()
        self.place = await start_place(self.database)
