"""Tests of sending: one worker over a real database, then several writers to one room."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred, gatherResults

from homeserver.events.building import CREATE
from homeserver.events.rebuilding import Rebuild
from homeserver.events.stored import StoredEvent
from homeserver.events.write import Committed, Poisoned, TransactionRepeated
from protocol.errors import Forbidden, NotFound
from protocol.events import EventDraft
from protocol.identifiers import RoomID, UserID
from protocol.room_versions import ROOM_VERSIONS, V11
from storage import events, feed, heads, memberships
from storage.database import Database, Transaction
from storage.feed import HeadMark
from storage.memberships import Membership
from storage.migrate import migrate
from storage.transactions import TransactionKey
from tests.homeserver.events.helpers import (
    ALICE,
    BOB,
    NOW,
    Worker,
    membership,
    message,
    start_worker,
)
from tests.storage.helpers import PostgresCase, SqliteCase


def all_of(worker: Worker, drafts: list[EventDraft]) -> Deferred[list[StoredEvent]]:
    """Send all at the same time."""
    return gatherResults(
        [Deferred.fromCoroutine(worker.events.send(draft, now=NOW)) for draft in drafts], consumeErrors=True
    )


async def timeline(database: Database, room_nid: int) -> list[tuple[str, tuple[str, ...]]]:
    """Give event ID and parents of all entries of a room, in feed order."""

    def read(tx: Transaction) -> list[tuple[str, tuple[str, ...]]]:
        entries = feed.room_between(tx, room_nid, 0, 1 << 40, 10_000)
        nids = [entry.ref for entry in entries if entry.ref is not None]
        rows = {row.event_nid: row for row in events.by_nid(tx, room_nid, nids)}
        return [(rows[nid].event_id, ()) for nid in nids]

    return await database.read(read)


class SendingTests:
    """What must hold on every engine."""

    database: Database
    assertEqual: Callable[..., None]
    assertRaisesRegex: Callable[..., Any]
    assertTrue: Callable[..., None]
    assertIsInstance: Callable[..., None]

    async def begin(self) -> Worker:
        """Make the tables and wire one worker."""
        await migrate(self.database)
        return await start_worker(self.database)

    async def test_a_room_of_every_version_can_be_made_and_spoken_in(self) -> None:
        """In each room version the first events and a message are committed, each on the one before."""
        worker = await self.begin()
        for version in ROOM_VERSIONS.values():
            made = await worker.room(version)
            room_id = made.room.room_id
            said = await worker.events.send(message(room_id, "hello"), now=NOW)
            self.assertEqual(said.event.prev_events, (made.events[-1].event.event_id,))
            head = await worker.heads.get(made.room.nid)
            self.assertEqual(head.extremities, (said.nid,))
            self.assertEqual(head.seq, 6)
            self.assertEqual(dict(head.local_members), {ALICE: said.sender_nid})
            self.assertEqual(dict(head.servers), {"plait.test": 1})

    async def test_events_of_one_room_build_on_each_other(self) -> None:
        """Events sent at the same time form one line, and the feed has them in that order."""
        worker = await self.begin()
        made = await worker.room()
        sent = await all_of(worker, [message(made.room.room_id, str(n)) for n in range(40)])
        by_parent = {event.event.prev_events: event for event in sent}
        self.assertEqual(len(by_parent), 40)
        order = [event_id for event_id, _ in await timeline(self.database, made.room.nid)]
        self.assertEqual(order[5:], [event.event.event_id for event in sent])
        head = await worker.heads.get(made.room.nid)
        self.assertEqual(head.extremities, (sent[-1].nid,))
        self.assertEqual(head.seq, 45)

    async def test_state_is_found_at_the_head(self) -> None:
        """A state event changes the resolved state and the tables, in memory as in the database."""
        worker = await self.begin()
        made = await worker.room()
        room_id, room_nid = made.room.room_id, made.room.nid
        topic = EventDraft(room_id, "m.room.topic", ALICE, {"topic": "x"}, "")
        joined, set_topic, said = await all_of(
            worker, [membership(room_id, BOB, "join"), topic, message(room_id, "hi")]
        )
        head = await worker.heads.get(room_nid)
        state = await head.state([("m.room.topic", ""), ("m.room.member", BOB), ("m.room.name", "")])
        self.assertEqual(state, {("m.room.topic", ""): set_topic.event, ("m.room.member", BOB): joined.event})
        self.assertEqual(set(head.local_members), {ALICE, BOB})
        self.assertEqual(dict(head.servers), {"plait.test": 2})
        self.assertEqual(set(await self.database.read(memberships.local_members, room_nid)), {ALICE, BOB})
        self.assertEqual(said.event.depth, 8)
        await worker.events.send(membership(room_id, BOB, "leave"), now=NOW)
        head = await worker.heads.get(room_nid)
        self.assertEqual(set(head.local_members), {ALICE})
        self.assertEqual(await self.database.read(memberships.servers, room_nid), {"plait.test": 1})
        bob = await worker.nids.user(BOB)
        row = await self.database.read(memberships.membership_of, room_nid, bob)
        assert row is not None
        self.assertEqual(row.membership, Membership.LEAVE)

    async def test_what_is_loaded_is_what_was_kept(self) -> None:
        """A second worker that reads everything from the database stands where the first one does."""
        worker = await self.begin()
        made = await worker.room()
        await all_of(worker, [membership(made.room.room_id, BOB, "join"), message(made.room.room_id, "hi")])
        other = await start_worker(self.database, "two")
        one, two = await worker.heads.get(made.room.nid), await other.heads.get(made.room.nid)
        self.assertEqual(
            (one.seq, one.depth, one.extremities, one.root, one.place.prev_events),
            (two.seq, two.depth, two.extremities, two.root, two.place.prev_events),
        )
        self.assertEqual(dict(one.local_members), dict(two.local_members))
        self.assertEqual(dict(one.servers), dict(two.servers))

    async def test_a_message_needs_no_query(self) -> None:
        """Once a room is warm, a message costs one transaction and no read."""
        worker = await self.begin()
        made = await worker.room()
        await worker.events.send(message(made.room.room_id, "warm"), now=NOW)
        reads = self.count_reads(worker)
        await worker.events.send(message(made.room.room_id, "hot"), now=NOW)
        self.assertEqual(reads, [])

    async def test_a_join_needs_no_query(self) -> None:
        """Once others have joined, a newcomer's join costs one transaction; a second join reads one clock."""
        worker = await self.begin()
        room_id, carol = (await worker.room()).room.room_id, UserID("@carol:plait.test")
        await worker.events.send(membership(room_id, BOB, "join"), now=NOW)
        await worker.nids.user(carol)
        reads = self.count_reads(worker)
        await worker.events.send(membership(room_id, carol, "join"), now=NOW)
        self.assertEqual(reads, [])
        await worker.events.send(membership(room_id, carol, "leave"), now=NOW)
        await worker.events.send(membership(room_id, carol, "join"), now=NOW)
        self.assertEqual(reads, [events.clocks] * 2)

    def count_reads(self, worker: Worker) -> list[object]:
        """Note from now on what the worker reads from the database."""
        reads: list[object] = []
        read = self.database.read

        async def counted(work: Any, *args: Any, **kwargs: Any) -> Any:
            reads.append(work)
            return await read(work, *args, **kwargs)

        worker.stored._database = worker.heads._database = _Counting(self.database, counted)  # type: ignore[assignment]
        worker.state.tries.database = worker.nids._database = worker.stored._database
        return reads

    async def test_a_refused_event_leaves_no_trace(self) -> None:
        """An event that the rules refuse is told so, and the next one is sent as if it had never been."""
        worker = await self.begin()
        made = await worker.room()
        room_id = made.room.room_id
        await self.assert_fails(Forbidden, worker.events.send(message(room_id, "no", BOB), now=NOW))
        said = await worker.events.send(message(room_id, "yes"), now=NOW)
        self.assertEqual(said.event.prev_events, (made.events[-1].event.event_id,))

    async def test_an_unknown_room_is_not_found(self) -> None:
        """An event for a room that is not known here is refused."""
        worker = await self.begin()
        await self.assert_fails(
            NotFound, worker.events.send(message(RoomID("!none:plait.test"), "x"), now=NOW)
        )

    async def test_a_repeated_transaction_gives_the_first_event(self) -> None:
        """One transaction ID is one event: at the same time, later, and after a restart."""
        worker = await self.begin()
        made = await worker.room()
        room_id = made.room.room_id
        nid = await worker.nids.user(ALICE)
        key = TransactionKey.of(nid, "D", ("send", room_id, "m.room.message"), "t1")
        sends = [
            Deferred.fromCoroutine(worker.events.send(message(room_id, str(n)), now=NOW, txn=key))
            for n in range(5)
        ]
        ids = {stored.event.event_id for stored in await gatherResults(sends)}
        later = await worker.events.send(message(room_id, "later"), now=NOW, txn=key)
        again = await start_worker(self.database, "again")
        before = await again.events.send(message(room_id, "follow"), now=NOW)
        restarted = Deferred.fromCoroutine(again.events.send(message(room_id, "restarted"), now=NOW, txn=key))
        follower = Deferred.fromCoroutine(again.events.send(message(room_id, "after"), now=NOW))
        ids |= {later.event.event_id, (await restarted).event.event_id}
        self.assertEqual(len(ids), 1)
        self.assertEqual((await follower).event.prev_events, (before.event.event_id,))

    async def test_one_transaction_id_of_two_users(self) -> None:
        """The same transaction ID of two users is two events (security: C16)."""
        worker = await self.begin()
        made = await worker.room()
        room_id = made.room.room_id
        await worker.events.send(membership(room_id, BOB, "join"), now=NOW)
        ids = set()
        for user, device, kind in ((ALICE, "D", "a"), (BOB, "D", "a"), (ALICE, "E", "a"), (ALICE, "D", "b")):
            key = TransactionKey.of(await worker.nids.user(user), device, ("send", room_id, kind), "t")
            sent = await worker.events.send(message(room_id, "x", user), now=NOW, txn=key)
            ids.add(sent.event.event_id)
        self.assertEqual(len(ids), 4)

    async def test_a_poison_event_harms_only_itself(self) -> None:
        """An event the database refuses fails alone, in its room and in its batch (security: F2)."""
        worker = await self.begin()
        rooms = [await worker.room() for _ in range(5)]
        poison_nid = rooms[2].events[0].nid
        prepare = worker.events._preparation.prepare

        async def poisoned(room_nid: int, draft: EventDraft, txn: TransactionKey | None = None) -> Any:
            sending = await prepare(room_nid, draft, txn)
            if draft.content.get("body") == "poison":
                sending.nid = poison_nid
            return sending

        worker.events._preparation = _Prepared(worker.events._preparation, poisoned)  # type: ignore[assignment]
        sends = []
        for n in range(3):
            for place, made in enumerate(rooms):
                body = "poison" if place == 2 and n == 1 else f"{n}"
                send = worker.events.send(message(made.room.room_id, body), now=NOW)
                sends.append(Deferred.fromCoroutine(send))
        results = []
        for send in sends:
            try:
                results.append(await send)
            except Exception as error:
                results.append(error)
        self.flushLoggedErrors()
        self.assertIsInstance(results.pop(7), Poisoned)
        self.assertTrue(all(isinstance(result, StoredEvent) for result in results))
        for made in rooms:
            head = await self.database.read(heads.get, [made.room.nid])
            self.assertEqual(len(head[made.room.nid].mark.extremities), 1)
        self.assertEqual(len(await timeline(self.database, rooms[2].room.nid)), 7)

    async def test_a_transaction_twice_under_the_lock_is_one_event(self) -> None:
        """Of two events of one transaction ID built together, the second answers with the first."""
        worker = await self.begin()
        room = (await worker.room()).room
        key = TransactionKey.of(await worker.nids.user(ALICE), "D", ("send", room.room_id), "t1")
        rebuild = Rebuild(room, worker.events._author, worker.clock, worker.heads)
        for body in ("one", "two", "three"):
            draft, txn = message(room.room_id, body), None if body == "three" else key
            rebuild.waiting.append(await worker.events._preparation.prepare(room.nid, draft, txn))
        first, second, third = await worker.persister.commit_locked(rebuild)
        assert isinstance(first, Committed) and isinstance(first.entries[0].payload, StoredEvent)
        assert isinstance(second, TransactionRepeated)
        self.assertEqual(second.event_id, first.entries[0].payload.event.event_id)
        self.assertEqual(type(third), Committed)
        self.assertEqual(len(await timeline(self.database, room.nid)), 7)

    async def test_a_redaction_marks_its_target(self) -> None:
        """A redaction that applies is noted with its target, in memory and in the row."""
        worker = await self.begin()
        made = await worker.room()
        room_id = made.room.room_id
        said = await worker.events.send(message(room_id, "oops"), now=NOW)
        draft = EventDraft(room_id, "m.room.redaction", ALICE, {}, redacts=said.event.event_id)
        redaction = await worker.events.send(draft, now=NOW)
        found = await worker.stored.by_nid(made.room.nid, [said.nid])
        self.assertEqual(found[said.nid], evolve(said, redacted_by=redaction.nid))
        entries = worker.feed.room_since(made.room.nid, 0)
        assert entries is not None
        self.assertTrue(entries[-1].flags & feed.Flag.REDACTION)

    async def test_what_rules_the_room_is_not_redacted(self) -> None:
        """Redactions of the ACL and of the create event are refused with a sentence, of any level."""
        worker = await self.begin()
        made = await worker.room()
        room_id = made.room.room_id
        acl = EventDraft(room_id, "m.room.server_acl", ALICE, {"allow": ["*"]}, "")
        sent = await worker.events.send(acl, now=NOW)
        create = (await (await worker.heads.get(made.room.nid)).state([CREATE]))[CREATE]
        for target in (sent.event, create):
            draft = EventDraft(room_id, "m.room.redaction", ALICE, {}, redacts=target.event_id)
            with self.assertRaisesRegex(Forbidden, f"{target.type} events are not redacted"):
                await worker.events.send(draft, now=NOW)

    async def test_a_thousand_forks_are_merged_twenty_at_a_time(self) -> None:
        """However many forward extremities there are, an event names at most 20 (security: S11)."""
        worker = await self.begin()
        made = await worker.room()
        room_id, room_nid = made.room.room_id, made.room.nid
        said = await all_of(worker, [message(room_id, str(n)) for n in range(100)])
        await self.fork(room_nid, [event.nid for event in said])
        worker.heads.forget(room_nid)
        for _ in range(6):
            merged = await worker.events.send(message(room_id, "merge"), now=NOW)
            self.assertTrue(len(merged.event.prev_events) <= 20)
        head = await worker.heads.get(room_nid)
        self.assertEqual(head.extremities, (merged.nid,))

    async def test_a_room_without_extremities_takes_no_event(self) -> None:
        """An event that is no create event needs a parent (security: S12)."""
        worker = await self.begin()
        made = await worker.room()
        await self.fork(made.room.nid, [])
        worker.heads.forget(made.room.nid)
        await self.assert_fails(Forbidden, worker.events.send(message(made.room.room_id, "x"), now=NOW))

    async def test_names_are_numbered_once(self) -> None:
        """Many that intern the same names at the same time agree on their numbers (security: S13)."""
        worker = await self.begin()
        others = [await start_worker(self.database, str(n)) for n in range(4)]
        names = [UserID(f"@u{n}:plait.test") for n in range(30)]
        answers = await gatherResults(
            [Deferred.fromCoroutine(other.nids.users(names)) for other in (worker, *others)]
        )
        self.assertEqual(len({tuple(sorted(answer.items())) for answer in answers}), 1)
        self.assertEqual(len(set(answers[0].values())), 30)
        made = await gatherResults(
            [
                Deferred.fromCoroutine(other.nids.intern_room(RoomID("!r:plait.test"), V11))
                for other in (worker, *others)
            ]
        )
        self.assertEqual(len({room.nid for room in made}), 1)

    async def test_rooms_with_equal_states_share_nothing(self) -> None:
        """A root of one room leads to nothing in another of the same entries (security: S13)."""
        worker = await self.begin()
        one, two = await worker.room(), await worker.room()
        root = (await worker.heads.get(one.room.nid)).root
        await self.assert_fails(Exception, worker.state.all(two.room.nid, root))

    async def fork(self, room_nid: int, nids: list[int]) -> None:
        """Make these the forward extremities of a room, as forks would."""

        def change(tx: Transaction) -> None:
            head = heads.get(tx, [room_nid])[room_nid]
            mark = HeadMark(head.mark.seq + 1, head.mark.depth, tuple(nids))
            heads.compare_and_set(tx, [heads.HeadUpdate(room_nid, head.mark.seq, mark, head.root)])

        await self.database.write(change)

    async def assert_fails(self, kind: type[Exception], work: Any) -> None:
        """See that `work` raises `kind`."""
        try:
            await work
        except kind:
            return
        raise AssertionError(f"{kind.__name__} was not raised")

    flushLoggedErrors: Callable[..., list[object]]


class _Counting:
    def __init__(self, database: Database, read: Any) -> None:
        self.read = read
        self.write = database.write
        self.dialect = database.dialect


class _Prepared:
    def __init__(self, preparation: Any, prepare: Any) -> None:
        self.nids = preparation.nids
        self.prepare = prepare


class SqliteSendingTests(SendingTests, SqliteCase):
    """On SQLite."""


class PostgresSendingTests(SendingTests, PostgresCase):
    """On PostgreSQL."""
