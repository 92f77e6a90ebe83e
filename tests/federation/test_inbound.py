"""Tests of what other servers send us and read from us, over a whole core and without a network."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from typing import Any, cast

from attrs import define, field
from twisted.internet.defer import Deferred, gatherResults, succeed

from federation.inbound.edus import Edus
from federation.inbound.reading import GraphReads
from federation.inbound.sight import Sight
from federation.inbound.staged import StagedPdus
from federation.inbound.transactions import InboundTransactions, Transaction
from federation.key_ring import KeyNeed, KeyRing
from federation.pdus import PduChecker
from federation.ports import RunOnThread
from federation.resident.access import RoomAccess
from homeserver.events.auth_chains import AuthChains
from homeserver.events.commit_batch import commit_batch
from homeserver.events.gaps import Gaps
from homeserver.events.nids import Room
from homeserver.events.received import Course, Outcome
from homeserver.events.stored import Status
from protocol.canonical_json import JsonObject
from protocol.errors import BadJson, Forbidden, LimitExceeded, MatrixError, NotFound
from protocol.events import Event, EventDraft
from protocol.identifiers import EventID, RoomID, ServerName, UserID
from protocol.room_versions import V11, V12
from protocol.signing import VerifyKey
from storage import memberships, staging
from storage.database import Database, Dialect
from storage.memberships import Membership
from storage.migrate import migrate
from tests.homeserver.events.helpers import ALICE, BOB, NOW, Worker, membership, message, start_worker
from tests.homeserver.events.incoming import IncomingEvents
from tests.homeserver.events.received_helpers import (
    CAROL,
    OTHER,
    OTHER_KEY,
    Peer,
    Remote,
    entries_of,
    incoming_of,
    remote_in,
    remote_room,
    stored_of,
    tip,
)
from tests.storage.helpers import PostgresCase, SqliteCase

DAVE = UserID(f"@dave:{OTHER}")
STRANGER = ServerName("stranger.test")


@define(eq=False)
class Keys:
    """Knows the key of the one other server."""

    async def find(self, needs: Collection[KeyNeed]) -> dict[KeyNeed, VerifyKey]:
        """Give its key for all that it has signed."""
        return {need: OTHER_KEY.verify_key for need in needs if need.server == OTHER}


def run_now(work: Callable[..., Any], *args: Any) -> Deferred[Any]:
    """Run work at once, where a thread would."""
    return succeed(work(*args))


@define(eq=False)
class Watched:
    """A database that notes what it is asked."""

    inner: Database
    works: list[object] = field(factory=list)

    @property
    def dialect(self) -> Dialect:
        """Tell the engine."""
        return self.inner.dialect

    async def read(self, work: Any, *args: Any, **kwargs: Any) -> Any:
        """Note and read."""
        self.works.append(work)
        return await self.inner.read(work, *args, **kwargs)

    async def write(self, work: Any, *args: Any, **kwargs: Any) -> Any:
        """Note and write."""
        self.works.append(work)
        return await self.inner.write(work, *args, **kwargs)

    async def close(self) -> None:
        """Leave the closing to who opened it."""


@define(eq=False)
class Here:
    """Our server, with the inbound edge."""

    database: Watched

    worker: Worker
    incoming: IncomingEvents
    transactions: InboundTransactions
    staged: StagedPdus
    reads: GraphReads
    edus: list[JsonObject]
    sent: int = field(default=0)

    async def send(self, pdus: Sequence[object], edus: Sequence[object] = (), txn_id: str = "") -> Any:
        """Hand a transaction in."""
        self.sent += 1
        body = {"pdus": list(pdus), "edus": list(edus), "origin": "lie.test"}
        transaction = Transaction.of(OTHER, txn_id or f"t{self.sent}", body)
        return json.loads(await self.transactions.take(transaction, NOW))


async def start(database: Database, peer: Peer | None = None) -> Here:
    """Wire our server over a database."""
    await migrate(database)
    database = watched = Watched(database)
    worker = await start_worker(database)
    incoming = incoming_of(worker, peer)
    access = RoomAccess(worker.nids, worker.heads)
    staged = StagedPdus(database, worker.nids, incoming.gaps, worker.clock)
    taken: list[JsonObject] = []

    async def take(origin: ServerName, content: JsonObject, now: int) -> None:
        if content.get("fail"):
            raise RuntimeError("a handler that fails")
        taken.append(content)

    transactions = InboundTransactions(
        database,
        access,
        PduChecker(cast(KeyRing, Keys()), cast(RunOnThread, run_now)),
        incoming.received,
        incoming.outside,
        staged,
        Edus({"m.test": take}),
    )
    reads = GraphReads(
        database, worker.state, AuthChains(database, worker.stored), Sight(access, worker.state)
    )
    return Here(watched, worker, incoming, transactions, staged, reads, taken)


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


class InboundTests:
    """What must hold on every engine."""

    database: Database
    assertEqual: Callable[..., None]
    assertTrue: Callable[..., None]
    assertIn: Callable[..., None]
    assertNotIn: Callable[..., None]
    flushLoggedErrors: Callable[..., list[Any]]

    async def begin(self, peer: Peer | None = None) -> tuple[Here, Room, Remote]:
        """Make a room of ours that Carol of the other server is in."""
        here = await start(self.database, peer)
        room = (await here.worker.room(V11)).room
        remote = await remote_in(here.worker, room.nid, V11)
        join = remote.put(membership(room.room_id, CAROL, "join"), await tip(here.worker, room.nid))
        self.assertEqual(await here.send([join.pdu]), {"pdus": {join.event_id: {}}})
        return here, room, remote

    def said(self, remote: Remote, room: Room, body: str, parents: Sequence[Event]) -> Event:
        """Have Carol say something."""
        return remote.build(message(room.room_id, body, CAROL), parents)

    async def refused(self, kind: type[MatrixError], asking: Any) -> JsonObject:
        """Give the error that an answer is."""
        try:
            await asking
        except kind as error:
            return error.to_json() if hasattr(error, "to_json") else {"error": error.error}
        raise AssertionError("it was answered")

    async def test_a_transaction_is_placed_and_answered_once(self) -> None:
        """The same transaction again, also at the same time, has the same answer and no further effect."""
        here, room, remote = await self.begin()
        said = self.said(remote, room, "hello", await tip(here.worker, room.nid))
        content = {"edu_type": "m.test", "content": {"n": 1}}
        both = await gatherResults(
            [Deferred.fromCoroutine(here.send([said.pdu], [content], "same")) for _ in range(2)]
        )
        both.append(await here.send([said.pdu], [content], "same"))
        self.assertEqual(both, [{"pdus": {said.event_id: {}}}] * 3)
        self.assertEqual(here.edus, [{"n": 1}])
        self.assertEqual(await tip(here.worker, room.nid), [said])

    async def test_an_ordinary_transaction_is_one_commit(self) -> None:
        """Events that are news, of one warm room, are placed and answered by one write without a read."""
        here, room, remote = await self.begin()
        await here.send([self.said(remote, room, "warm", await tip(here.worker, room.nid)).pdu])
        said = self.said(remote, room, "hot", await tip(here.worker, room.nid))
        here.database.works.clear()
        self.assertEqual(await here.send([said.pdu], (), "hot"), {"pdus": {said.event_id: {}}})
        self.assertEqual(here.database.works, [commit_batch])
        self.assertEqual(
            await self.database.read(staging.answer, OTHER, "hot"),
            b'{"pdus":{"%b":{}}}' % said.event_id.encode(),
        )

    async def test_a_repetition_after_a_restart_has_the_same_answer(self) -> None:
        """Another process knows that a transaction was answered, and how, whatever stands in it now."""
        here, room, remote = await self.begin()
        parents = await tip(here.worker, room.nid)
        said, late = self.said(remote, room, "one", parents), self.said(remote, room, "two", parents)
        refused = remote.build(message(room.room_id, "no", DAVE), parents)
        first = await here.send([said.pdu, refused.pdu], (), "same")
        self.assertEqual(first["pdus"][said.event_id], {})
        self.assertIn("error", first["pdus"][refused.event_id])
        again = await start(self.database)
        for pdus in ([said.pdu, refused.pdu], [refused.pdu], [late.pdu], []):
            self.assertEqual(await again.send(pdus, (), "same"), first)
        self.assertEqual(await tip(again.worker, room.nid), [said])

    async def test_what_is_known_is_not_placed_again(self) -> None:
        """An event in another transaction, to a process that has just begun, is answered and not doubled."""
        here, room, remote = await self.begin()
        said = self.said(remote, room, "one", await tip(here.worker, room.nid))
        await here.send([said.pdu])
        again = await start(self.database)
        before = len(await entries_of(again.worker, room.nid))
        after = self.said(remote, room, "two", [said])
        answer = await again.send([said.pdu, after.pdu], (), "another")
        self.assertEqual(answer, {"pdus": {said.event_id: {}, after.event_id: {}}})
        self.assertEqual(await tip(again.worker, room.nid), [after])
        self.assertEqual(len(await entries_of(again.worker, room.nid)), before + 1)

    async def test_a_redaction_waits_for_its_target(self) -> None:
        """The target of a redaction that came first is redacted as it comes."""
        here, room, remote = await self.begin()
        parents = await tip(here.worker, room.nid)
        said = self.said(remote, room, "regretted", parents)
        redaction = remote.build(
            EventDraft(room.room_id, "m.room.redaction", CAROL, {}, redacts=said.event_id), parents
        )
        await here.send([redaction.pdu])
        await here.send([said.pdu])
        redactor = await stored_of(here.worker, room.nid, redaction)
        self.assertEqual((await stored_of(here.worker, room.nid, said)).redacted_by, redactor.nid)

    async def test_any_broken_pdu_costs_itself_alone(self) -> None:
        """A broken PDU is dropped or answered with an error, the rest is placed (security: F2)."""
        here, room, remote = await self.begin()
        parents = await tip(here.worker, room.nid)
        good = [self.said(remote, room, str(n), parents) for n in range(30)]
        broken: list[Any] = [None, 7, "pdu", [], {}, {"room_id": room.room_id}, {"room_id": 3}]
        for name, value in (
            ("type", 5),
            ("sender", "nobody"),
            ("content", []),
            ("depth", "deep"),
            ("depth", -1),
            ("prev_events", {}),
            ("auth_events", [1]),
            ("hashes", None),
            ("signatures", {}),
            ("signatures", {OTHER: {"ed25519:2": "AAAA"}}),
            ("origin_server_ts", 1.5),
            ("room_id", "!nowhere:else.test"),
        ):
            broken.append({**good[0].pdu, name: value})
        pdus: list[Any] = [event.pdu for event in good]
        for index, pdu in enumerate(broken):
            pdus.insert(index * 2, pdu)
        answer = await here.send(pdus)
        for event in good:
            self.assertEqual(answer["pdus"][event.event_id], {})
            self.assertEqual((await stored_of(here.worker, room.nid, event)).status, Status.ACCEPTED)

    async def test_too_much_in_a_transaction_is_refused(self) -> None:
        """More than 50 PDUs or 100 EDUs, or no lists at all, are an error of the whole."""
        here, _, _ = await self.begin()
        bodies: tuple[dict[str, Any], ...] = (
            {"pdus": [{}] * 51},
            {"edus": [{}] * 101},
            {"pdus": {}},
            {"edus": 3},
        )
        for body in bodies:
            with_error = False
            try:
                Transaction.of(OTHER, "t", body)
            except BadJson:
                with_error = True
            self.assertTrue(with_error)
        self.assertEqual(await here.send([]), {"pdus": {}})

    async def test_edus_harm_no_neighbours(self) -> None:
        """A failing handler, an unknown type and nonsense are passed over (security: F2)."""
        here, _, _ = await self.begin()
        edus = [
            {"edu_type": "m.test", "content": {"fail": True}},
            {"edu_type": "m.other", "content": {}},
            7,
            {"edu_type": ["m.test"]},
            {"edu_type": "m.test", "content": {"good": True}},
        ]
        self.assertEqual(await here.send([], edus), {"pdus": {}})
        self.assertEqual(here.edus, [{"good": True}])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    async def test_what_lacks_its_past_is_staged_and_placed_later(self) -> None:
        """An event without its parents is answered, kept, and placed with them after a restart."""
        peer = Peer()
        here, room, remote = await self.begin(peer)
        here.staged.stop()
        first = self.said(remote, room, "one", await tip(here.worker, room.nid))
        second = self.said(remote, room, "two", [first])
        self.assertEqual(await here.send([second.pdu]), {"pdus": {second.event_id: {}}})
        self.assertEqual(await self.database.read(staging.rooms), [room.nid])
        peer.events = {event.event_id: event for event in (first, second)}
        again = StagedPdus(self.database, here.worker.nids, here.incoming.gaps, here.worker.clock)
        self.assertEqual(await again._place_all(room.nid), False)
        self.assertEqual(await tip(here.worker, room.nid), [second])
        self.assertEqual(await self.database.read(staging.rooms), [])

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
        staged = StagedPdus(self.database, here.worker.nids, faulty, here.worker.clock)
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

    async def test_a_denied_server_and_a_stranger_place_nothing(self) -> None:
        """PDUs of a denied server get an error each; those of rooms we are not in are dropped."""
        here, room, remote = await self.begin()
        acl = EventDraft(room.room_id, "m.room.server_acl", ALICE, {"allow": ["*"], "deny": [OTHER]}, "")
        await here.worker.events.send(acl, now=NOW)
        denied = self.said(remote, room, "denied", await tip(here.worker, room.nid))
        answer = await here.send([denied.pdu])
        self.assertIn("error", answer["pdus"][denied.event_id])
        elsewhere = remote.build(message(RoomID("!elsewhere:other.test"), "x", CAROL), [denied])
        self.assertEqual(await here.send([elsewhere.pdu]), {"pdus": {}})

    async def test_an_invite_is_withdrawn_by_its_server(self) -> None:
        """A leave of an invited user comes by transaction, though we are not in the room."""
        here, _, _ = await self.begin()
        remote, timeline = remote_room(V12)
        room_id = timeline[0].room_id
        invite = remote.put(membership(room_id, BOB, "invite", CAROL), timeline[-1:])
        await here.incoming.record_outside(V12, invite, [], now=NOW)
        kick = remote.build(membership(room_id, BOB, "leave", CAROL), [invite])
        self.assertEqual(await here.send([kick.pdu]), {"pdus": {kick.event_id: {}}})
        room_nid = await here.worker.nids.room(room_id)
        assert room_nid is not None
        row = await self.database.read(memberships.membership_of, room_nid, await here.worker.nids.user(BOB))
        assert row is not None
        self.assertEqual(row.membership, Membership.LEAVE)

    async def test_reads_tell_a_stranger_nothing(self) -> None:
        """An event of a room one is not in is as unknown as one that is nowhere (security: F10)."""
        here, room, _ = await self.begin()
        secret = (await here.worker.room(V11)).room
        (inside,) = await tip(here.worker, secret.nid)
        (shared,) = await tip(here.worker, room.nid)
        nowhere = EventID("$" + "A" * 43)
        reads = here.reads
        unknown = await self.refused(NotFound, reads.event(OTHER, nowhere))
        self.assertEqual(await self.refused(NotFound, reads.event(OTHER, inside.event_id)), unknown)
        self.assertEqual(await self.refused(NotFound, reads.event(STRANGER, shared.event_id)), unknown)
        for ask in (reads.state_before, reads.auth_chain):
            absent = await self.refused(NotFound, ask(OTHER, room.room_id, nowhere))
            wrong = await self.refused(NotFound, ask(OTHER, room.room_id, inside.event_id))
            self.assertEqual(wrong, absent)
            await self.refused(Forbidden, ask(STRANGER, room.room_id, shared.event_id))
        await self.refused(Forbidden, reads.backfill(OTHER, secret.room_id, [inside.event_id], 10))
        self.assertEqual(list(await reads.backfill(OTHER, room.room_id, [inside.event_id], 10)), [])
        self.assertEqual(await reads.event(OTHER, shared.event_id), shared)

    async def test_history_is_walked_within_bounds(self) -> None:
        """Backfill goes back from the latest, missing events stop at the earliest (security: F14)."""
        here, room, remote = await self.begin()
        (join,) = await tip(here.worker, room.nid)
        line = [join]
        for number in range(30):
            line.append(self.said(remote, room, str(number), line[-1:]))
        await here.send([event.pdu for event in line[1:]])
        back = await here.reads.backfill(OTHER, room.room_id, [line[-1].event_id], 5)
        self.assertEqual(list(back), line[:-6:-1])
        between = ([line[10].event_id], [line[14].event_id])
        self.assertEqual(list(await here.reads.missing(OTHER, room.room_id, between, 10)), line[11:14])
        cut = await here.reads.missing(OTHER, room.room_id, ([], [line[-1].event_id]), 10_000)
        self.assertEqual(list(cut), line[-21:-1])
        many = [EventID(f"${n}") for n in range(10_000)]
        await self.refused(MatrixError, here.reads.missing(OTHER, room.room_id, (many, []), 10))
        await self.refused(MatrixError, here.reads.backfill(OTHER, room.room_id, many, 10))

    async def test_what_a_server_may_not_see_is_redacted(self) -> None:
        """Messages from before its users joined are given without content (security: F10)."""
        here = await start(self.database)
        room = (await here.worker.room(V11)).room
        hidden = {"history_visibility": "joined"}
        draft = EventDraft(room.room_id, "m.room.history_visibility", ALICE, hidden, "")
        await here.worker.events.send(draft, now=NOW)
        secret = await here.worker.events.send(message(room.room_id, "secret"), now=NOW)
        remote = await remote_in(here.worker, room.nid, V11)
        join = remote.put(membership(room.room_id, CAROL, "join"), [secret.event])
        await here.send([join.pdu])
        after = await here.worker.events.send(message(room.room_id, "hello"), now=NOW)
        found = await here.reads.backfill(OTHER, room.room_id, [after.event.event_id], 3)
        contents = [dict(event.content) for event in found]
        self.assertEqual(contents[0], dict(after.event.content))
        self.assertEqual(contents[2], {})

    async def test_the_state_before_an_event_has_its_auth_chain(self) -> None:
        """State and auth chain are those before the event, whatever happened since."""
        here, room, _ = await self.begin()
        (join,) = await tip(here.worker, room.nid)
        await here.worker.events.send(membership(room.room_id, BOB, "join"), now=NOW)
        before = await here.reads.state_before(OTHER, room.room_id, join.event_id)
        state = await here.worker.stored.by_nid(room.nid, before.state)
        chain = await here.worker.stored.by_nid(room.nid, before.auth_chain)
        self.assertEqual(len(state), 5)
        self.assertNotIn(join, [each.event for each in state.values()])
        self.assertTrue(
            {each.event.type for each in chain.values()}
            == {"m.room.create", "m.room.member", "m.room.power_levels"}
        )
        self.assertTrue(len(await entries_of(here.worker, room.nid)) > 5)


class SqliteInbound(InboundTests, SqliteCase):
    """On SQLite."""


class PostgresInbound(InboundTests, PostgresCase):
    """On PostgreSQL."""
