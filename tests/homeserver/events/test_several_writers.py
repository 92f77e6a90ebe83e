"""Tests of several workers that write to one room of one PostgreSQL."""

from __future__ import annotations

from collections import Counter

from twisted.internet.defer import Deferred, gatherResults

from homeserver.events.sending import CONTENDED_MS
from homeserver.events.stored import StoredEvent
from homeserver.feed.following import Follower
from protocol.errors import Forbidden
from protocol.events import EventDraft
from protocol.identifiers import UserID
from protocol.room_versions import V12
from storage import events, feed, heads, memberships
from storage.database import Database, Transaction
from storage.engines import open_database
from storage.events import EventRow
from storage.feed import Entry
from storage.migrate import migrate
from storage.transactions import TransactionKey
from tests.homeserver.events.helpers import (
    ALICE,
    BOB,
    NOW,
    SERVER,
    Worker,
    beginning,
    membership,
    message,
    start_worker,
)
from tests.storage.helpers import REACTOR, PostgresCase


def read_room(tx: Transaction, room_nid: int) -> tuple[list[Entry], dict[int, EventRow]]:
    """Read all entries of a room, and its events by nid."""
    entries = feed.room_between(tx, room_nid, 0, 1 << 40, 100_000)
    rows = events.by_nid(tx, room_nid, [entry.ref for entry in entries if entry.ref is not None])
    return entries, {row.event_nid: row for row in rows}


class SeveralWritersTests(PostgresCase):
    """Two or three workers, each with a connection pool and memory of its own."""

    async def workers(self, count: int) -> list[Worker]:
        """Start workers that follow each other only when they must (no polling)."""
        await migrate(self.database)
        databases: list[Database] = [self.database]
        for _ in range(count - 1):
            databases.append(await open_database(self.url, REACTOR, pool_size=4))
            self.addCleanup(databases[-1].close)
        return [await start_worker(database, str(n)) for n, database in enumerate(databases)]

    async def send_all(self, workers: list[Worker], drafts: list[EventDraft]) -> list[StoredEvent]:
        """Send drafts at the same time, by all workers in turn."""
        sends = [
            Deferred.fromCoroutine(workers[n % len(workers)].events.send(draft, now=NOW))
            for n, draft in enumerate(drafts)
        ]
        return await gatherResults(sends, consumeErrors=True)

    async def check_room(self, room_nid: int, acknowledged: list[StoredEvent]) -> None:
        """See that all acknowledged events are there once, in one line, with one extremity at the end."""
        entries, rows = await self.database.read(read_room, room_nid)
        counts = Counter(row.event_id for entry in entries if (row := rows[entry.ref or 0]))
        for stored in acknowledged:
            self.assertEqual(counts[stored.event.event_id], 1)
        self.assertEqual(max(counts.values()), 1)
        self.assertEqual(
            [entry.head.seq for entry in entries if entry.head], list(range(1, len(entries) + 1))
        )
        head = (await self.database.read(heads.get, [room_nid]))[room_nid]
        self.assertEqual(head.mark.extremities, (entries[-1].ref,))
        self.assertEqual(head.root, entries[-1].root)

    async def test_rooms_begun_alike_at_one_moment(self) -> None:
        """Two workers make rooms alike at one moment: each is a room of its own, under its own hash."""
        workers = await self.workers(2)
        drafts = beginning(None, V12, ALICE)
        makes = [Deferred.fromCoroutine(workers[n % 2].rooms.create(V12, drafts, now=NOW)) for n in range(6)]
        made = await gatherResults(makes, consumeErrors=True)
        self.assertEqual(len({each.room.room_id for each in made}), 6)
        for each in made:
            stored = await self.database.read(heads.get, [each.room.nid])
            self.assertEqual(stored[each.room.nid].mark.extremities, (each.events[-1].nid,))

    async def test_lost_heads_are_built_anew_in_order(self) -> None:
        """Two workers send to one room: all events are there, in one line, though many lost the race."""
        one, two = await self.workers(2)
        made = await one.room()
        room_id = made.room.room_id
        sent: list[StoredEvent] = []
        for n in range(6):
            sent += await self.send_all([one, two], [message(room_id, f"{n}.{i}") for i in range(10)])
        await self.check_room(made.room.nid, sent)
        entries, rows = await self.database.read(read_room, made.room.nid)
        order = [rows[entry.ref or 0].event_id for entry in entries]
        for worker in (0, 1):
            mine = [event.event.event_id for event in sent[worker::2]]
            self.assertEqual(sorted(mine, key=order.index), mine, "each worker's events keep their order")

    async def test_state_changes_of_two_workers_all_hold(self) -> None:
        """Joins and other state through two workers end in one state, and the tables follow it."""
        one, two = await self.workers(2)
        made = await one.room()
        room_id, room_nid = made.room.room_id, made.room.nid
        users = [UserID(f"@u{n}:plait.test") for n in range(20)]
        await self.send_all([one, two], [membership(room_id, user, "join") for user in users])
        topics = [EventDraft(room_id, "m.room.topic", ALICE, {"topic": str(n)}, "") for n in range(4)]
        sent = await self.send_all([two, one], topics)
        await self.check_room(room_nid, sent)
        for worker in (one, two):
            await worker.feed.catch_up()
            head = await worker.heads.get(room_nid)
            self.assertEqual(set(head.local_members), {ALICE, *users})
            self.assertEqual(dict(head.servers), {SERVER: 21})
            state = await head.state([("m.room.topic", ""), *[("m.room.member", user) for user in users]])
            self.assertEqual(len(state), 21)
        self.assertEqual(await self.database.read(memberships.servers, room_nid), {SERVER: 21})
        rows = (await self.database.read(read_room, room_nid))[1].values()
        places = [(row.chain, row.number) for row in rows if row.chain is not None]
        self.assertEqual(len(set(places)), len(places), "no two state events share a place on a chain")

    async def test_one_that_no_longer_passes_is_refused(self) -> None:
        """An event that was fine on the old head and is not on the new one gets its 403; others go on."""
        one, two = await self.workers(2)
        made = await one.room()
        room_id = made.room.room_id
        await one.events.send(membership(room_id, BOB, "join"), now=NOW)
        await two.feed.catch_up()
        await two.events.send(message(room_id, "warm", BOB), now=NOW)
        await one.feed.catch_up()
        await one.events.send(membership(room_id, BOB, "ban", ALICE), now=NOW)
        refused = Deferred.fromCoroutine(two.events.send(message(room_id, "too late", BOB), now=NOW))
        fine = Deferred.fromCoroutine(two.events.send(message(room_id, "fine"), now=NOW))
        await self.assertFailure(refused, Forbidden)
        await self.check_room(made.room.nid, [await fine])

    async def test_one_transaction_id_through_two_workers(self) -> None:
        """A request repeated through another worker, at the same time, is one event."""
        one, two = await self.workers(2)
        made = await one.room()
        room_id = made.room.room_id
        key = TransactionKey.of(await one.nids.user(ALICE), "D", ("send", room_id), "t")
        sends = [
            Deferred.fromCoroutine(worker.events.send(message(room_id, "x"), now=NOW, txn=key))
            for worker in (one, two)
        ]
        first, second = await gatherResults(sends)
        self.assertEqual(first.event.event_id, second.event.event_id)
        await self.check_room(made.room.nid, [first])

    async def test_a_contended_room_goes_straight_to_the_lock(self) -> None:
        """After a loss the next events are built under the lock; after a while on the head again."""
        one, two = await self.workers(2)
        made = await one.room()
        room_id = made.room.room_id
        await two.events.send(message(room_id, "a"), now=NOW)
        real = one.clock.now_ms()
        lost = await one.events.send(message(room_id, "b"), now=real)
        again = await one.events.send(message(room_id, "c"), now=real)
        later = await one.events.send(message(room_id, "d"), now=one.clock.now_ms() + CONTENDED_MS)
        await self.check_room(made.room.nid, [lost, again, later])

    async def test_a_follower_hears_of_everything(self) -> None:
        """A worker that polls sees another's events without writing anything itself."""
        one, two = await self.workers(2)
        made = await one.room()
        follower = Follower(two.feed, two.clock, poll_seconds=0.01)
        heard: Deferred[None] = Deferred()

        def listen(entries: object) -> None:
            if two.feed.position == 6 and not heard.called:
                heard.callback(None)

        two.feed.add_session_listener(listen)
        self.addCleanup(follower.stop)
        follower.start()
        sent = await one.events.send(message(made.room.room_id, "hear me"), now=NOW)
        await heard
        since = two.feed.room_since(made.room.nid, 0)
        assert since is not None
        self.assertEqual(since[-1].ref, sent.nid)
        self.assertEqual((await two.heads.get(made.room.nid)).extremities, (sent.nid,))
