"""Tests of sending to other servers: a real sender, client and database over a network in memory."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.trial.unittest import SynchronousTestCase

from federation.client import Transactions
from federation.outbound.audience import Audiences
from federation.outbound.catch_up import CatchUp
from federation.outbound.destination import Records, Sending
from federation.outbound.edus import DurableEdus, PassingEdus
from federation.outbound.sender import FederationSender, Sources
from federation.outbound.shards import Shards
from homeserver.events.stored import Status, StoredEvent
from protocol.canonical_json import decode, encode
from protocol.events import EventDraft, Links, build_event, event_of
from protocol.identifiers import EventID, RoomID, ServerName, UserID
from protocol.room_versions import V5, V11
from storage.catch_up import CatchUpStore
from storage.database import DatabaseGone, Transaction
from storage.destinations import DestinationStore
from storage.federation_shards import SHARDS, ShardStore
from storage.feed import Entry, Flag, Kind, NewEntry, append
from storage.outbound_edus import Extra, OutboundEduStore, queue_rows
from storage.rows import run_all
from tests.federation.helpers import HERE, THERE, HostileServer, World
from tests.federation.network import Answer, Asked

ROOM = RoomID("!room:here.example")
ALICE = UserID("@alice:here.example")
BOB = UserID("@bob:there.example")
DEAD = Answer(502)


class Home:
    """The parts of this server that the sender reads: a feed, events, and who is in which room."""

    def __init__(self, world: World) -> None:
        """Begin with an empty feed."""
        self.world = world
        self.position = 0
        self.events: dict[tuple[int, int], StoredEvent] = {}
        self.listeners: list[Callable[[Sequence[Entry]], None]] = []
        self.servers: dict[tuple[int, bytes], Collection[ServerName]] = {}
        self._nids = count(1)

    def add_session_listener(self, listener: Callable[[Sequence[Entry]], None]) -> None:
        """Take a listener."""
        self.listeners.append(listener)

    async def by_nid(self, room_nid: int, nids: Collection[int]) -> Mapping[int, StoredEvent]:
        """Give events."""
        return {nid: self.events[room_nid, nid] for nid in nids if (room_nid, nid) in self.events}

    async def at(self, room_nid: int, root: bytes) -> Collection[ServerName]:
        """Give the servers in a room."""
        return self.servers.get((room_nid, root), ())

    def are_the_same(self, room_nid: int, before: bytes, after: bytes) -> None:
        """Take the servers over."""
        self.servers[room_nid, after] = self.servers.get((room_nid, before), ())

    def join(self, server: ServerName, room_nid: int = 1, root: bytes = b"r") -> None:
        """Put a server into a room."""
        self.servers[room_nid, root] = {HERE, *self.servers.get((room_nid, root), ()), server}

        def insert(tx: Transaction) -> None:
            tx.execute(
                "INSERT INTO room_servers (room_nid, server, members) VALUES (?, ?, 1)"
                " ON CONFLICT (room_nid, server) DO NOTHING",
                (room_nid, server),
            )

        self.world.database.run(insert)

    def store(self, draft: EventDraft, room_nid: int = 1, root: bytes = b"r") -> StoredEvent:
        """Build an event and keep it."""
        key = self.world.own.keys[0]
        links = Links((EventID("$p"),), (), 1)
        event = build_event(draft, V11, links, now=self.world.now, server_name=HERE, key=key)
        stored = StoredEvent(event, next(self._nids), room_nid, Status.ACCEPTED, root, 1, 1)
        self.events[room_nid, stored.nid] = stored
        return stored

    def say(self, text: str, room_nid: int = 1, root: bytes = b"r") -> StoredEvent:
        """Send a message."""
        draft = EventDraft(ROOM, "m.room.message", ALICE, {"body": text})
        return self.tell(self.store(draft, room_nid, root))

    def tell(self, stored: StoredEvent) -> StoredEvent:
        """Put an event into the feed."""
        entry = NewEntry(Kind.EVENT, Flag.FEDERATE, stored.room_nid, None, stored.nid, payload=stored)
        self.feed(entry)
        return stored

    def feed(self, entry: NewEntry) -> None:
        """Commit an entry and tell the listeners."""
        first = self.world.database.run(append, [entry], "test").first
        self.position = first
        for listener in self.listeners:
            listener([entry.at(first)])


class Process:
    """A process that sends, on the database of the world."""

    def __init__(self, home: Home, name: str = "one") -> None:
        """Put the parts together."""
        world = home.world
        self.world = world
        self.edus = OutboundEduStore(world.database)
        self.passing = PassingEdus()
        audiences = Audiences(HERE, home)
        owed = CatchUpStore(world.database)
        self.sender = FederationSender(
            Sources(home, home, audiences, owed), Shards(ShardStore(world.database), name, world.clock)
        )
        numbers = count(1)
        self.sending = Sending(
            HERE,
            Transactions(world.requests, DeferredSemaphore(50)),
            world.backoff,
            Records(DestinationStore(world.database), self.edus, CatchUp(owed, self.edus, home, audiences)),
            (DurableEdus(self.edus), self.passing),
            world.clock,
            lambda: f"{name}{next(numbers)}",
        )

    def start(self) -> None:
        """Start sending."""
        self.world.network.outcome(self.sender.start(self.sending))

    def die(self) -> None:
        """Stop like a killed process: nothing is kept, no lease is given up."""
        self.sender._stopped = True
        if self.sender._timer is not None and self.sender._timer.active():
            self.sender._timer.cancel()
        for destination in list(self.sender._destinations.values()):
            destination.stop()


class OnceGone:
    """A store of what is owed that cannot be reached the first time."""

    def __init__(self, store: CatchUpStore) -> None:
        """Pass on to `store` but once."""
        self._store = store
        self._asked = 0

    async def servers_owed(self, after: int, upto: int) -> Collection[ServerName]:
        """Give the servers that are owed something."""
        self._asked += 1
        if self._asked == 1:
            raise DatabaseGone("away")
        return await self._store.servers_owed(after, upto)


class Receiver:
    """The receiving end: notes transactions, and answers as told."""

    def __init__(self, server: HostileServer) -> None:
        """Take what `server` is sent."""
        self.transactions: list[tuple[str, Any]] = []
        self.answer: Callable[[Any], Answer] = lambda _: Answer(200, b'{"pdus":{}}')
        server.answers["PUT", "/_matrix/federation/v1/send/"] = self._send

    def _send(self, asked: Asked) -> Answer:
        body = decode(asked.body)
        self.transactions.append((asked.uri.rsplit("/", 1)[1], body))
        return self.answer(body)

    @property
    def texts(self) -> list[str]:
        """Give the bodies of all messages that were sent, in order."""
        return [pdu["content"]["body"] for _, body in self.transactions for pdu in body["pdus"]]


class SenderCase(SynchronousTestCase):
    """One sending process and one receiving server."""

    def setUp(self) -> None:
        """Start a process; the other server is in the room."""
        self.world = World(Path(self.mktemp()))
        self.there = self.world.server()
        self.receiver = Receiver(self.there)
        self.home = Home(self.world)
        self.home.join(THERE)
        self.process = Process(self.home)
        self.process.start()

    def _pass(self, seconds: float = 0) -> None:
        self.world.network.settle()
        for _ in range(int(seconds)):
            self.world.network.advance(1)
            self.world.network.settle()

    def _restart(self, name: str = "two") -> None:
        self.process.die()
        self._pass(40)
        self.home.listeners.clear()
        self.process = Process(self.home, name)
        self.process.start()
        self._pass()


class LiveTests(SenderCase):
    """While the other server answers."""

    def test_events_arrive_in_order(self) -> None:
        """Each once, in the order of the feed, at most 50 in a transaction."""
        for number in range(120):
            self.home.say(str(number))
        self._pass()
        self.assertEqual(self.receiver.texts, [str(number) for number in range(120)])
        self.assertTrue(all(len(body["pdus"]) <= 50 for _, body in self.receiver.transactions))
        self.assertEqual(self.receiver.transactions[0][1]["origin"], HERE)

    def test_the_body_is_canonical(self) -> None:
        """What is joined from bytes is what canonical JSON would give."""
        self.home.say("ü")
        self._pass()
        asked = next(asked for asked in self.there.asked if asked.method == "PUT")
        self.assertEqual(encode(decode(asked.body)), asked.body)

    def test_servers_outside_the_room_get_nothing(self) -> None:
        """Nor does this server send to itself."""
        self.world.server("other.example", 3)
        self.home.say("x", room_nid=2)
        self._pass()
        self.assertEqual(self.receiver.transactions, [])

    def test_a_kicked_user_s_server_gets_the_kick(self) -> None:
        """Also when it has no other member, or was only invited; the kick of a remote admin is not ours."""
        other = ServerName("other.example")
        receiver = Receiver(self.world.server(other, 3))
        draft = EventDraft(
            ROOM, "m.room.member", ALICE, {"membership": "leave"}, state_key="@u:other.example"
        )
        self.home.tell(self.home.store(draft))
        self._pass()
        self.assertEqual(len(receiver.transactions), 1)

    def test_an_event_does_not_go_back_to_its_sender(self) -> None:
        """The join of a remote user goes to the others alone."""
        draft = EventDraft(ROOM, "m.room.member", BOB, {"membership": "join"}, state_key=BOB)
        self.home.tell(self.home.store(draft))
        self._pass()
        self.assertEqual(self.receiver.transactions, [])

    def test_rejected_and_soft_failed_events_are_not_sent(self) -> None:
        """Only accepted events go out."""
        for status in (Status.REJECTED, Status.SOFT_FAILED, Status.OUTLIER):
            stored = self.home.store(EventDraft(ROOM, "m.room.message", ALICE, {"body": "x"}))
            self.home.tell(evolve(stored, status=status))
        self._pass()
        self.assertEqual(self.receiver.transactions, [])

    def test_odd_events_of_old_rooms_are_kept_out(self) -> None:
        """An event that strict peers cannot read is not sent, and the queue drains (security: F1)."""
        for number in ("1.5", "9007199254740992", "1e400"):
            raw = b'{"content":{"body":%b},"type":"m.room.message"}' % number.encode()
            pdu = self.home.store(EventDraft(ROOM, "m.room.message", ALICE, {"body": "x"})).event.pdu
            odd = event_of(pdu, raw, V5, EventID("$odd" + number))
            self.home.tell(evolve(self.home.store(EventDraft(ROOM, "x", ALICE, {})), event=odd))
        self.home.say("good")
        self._pass()
        self.assertEqual(self.receiver.texts, ["good"])


class FailureTests(SenderCase):
    """While the other server fails."""

    def test_a_retry_repeats_id_and_body(self) -> None:
        """Until the answer is 200, nothing else is sent."""
        answers = [Answer(503), Answer(502)]
        self.receiver.answer = lambda _: answers.pop(0) if answers else Answer()
        self.home.say("first")
        self._pass()
        self.home.say("second")
        self._pass(30)
        sent = self.receiver.transactions
        self.assertEqual([txn_id for txn_id, _ in sent[:3]], [sent[0][0]] * 3)
        self.assertEqual([body for _, body in sent[:3]], [sent[0][1]] * 3)
        self.assertEqual(self.receiver.texts, ["first"] * 3 + ["second"])

    def test_an_outage_of_500_messages_is_made_up_for(self) -> None:
        """All that was said while the server was away arrives, once and in order."""
        self.receiver.answer = lambda _: DEAD
        for number in range(500):
            self.home.say(str(number))
            if number % 100 == 0:
                self._pass(60)
        self.receiver.transactions.clear()
        self.receiver.answer = lambda _: Answer()
        self.world.network.outcome(self.world.backoff.succeeded(THERE))
        self._pass(5)
        self.assertEqual(self.receiver.texts, [str(number) for number in range(500)])
        self.home.say("live")
        self._pass()
        self.assertEqual(self.receiver.texts[-1], "live")
        self.assertEqual(self.world.network.outcome(self.process.sending.records.destinations.behind()), {})

    def test_a_very_long_outage_is_cut_to_the_newest_of_each_room(self) -> None:
        """From there the other server fills the gap itself."""
        self.home.join(THERE, 2, b"s")
        self.receiver.answer = lambda _: DEAD
        for number in range(600):
            self.home.say(f"a{number}")
            self.home.say(f"b{number}", 2, b"s")
        self._pass(5)
        self.receiver.transactions.clear()
        self.receiver.answer = lambda _: Answer()
        self._pass(60)
        self.assertEqual(self.receiver.texts[-2:], ["a599", "b599"])
        self.assertLess(len(self.receiver.texts), 110)

    def test_events_from_before_a_server_joined_are_not_made_up_for(self) -> None:
        """What it is owed is judged by the state before each event."""
        self.receiver.answer = lambda _: DEAD
        self.home.say("first")
        self._pass(1)
        self.home.say("not theirs", 3, b"before")
        self.home.join(THERE, 3, b"after")
        self.home.say("theirs", 3, b"after")
        self.receiver.transactions.clear()
        self.receiver.answer = lambda _: Answer()
        self._pass(60)
        self.assertEqual(self.receiver.texts, ["first", "theirs"])

    def test_a_restart_loses_nothing(self) -> None:
        """Neither what was under way nor what waited for a server that is away."""
        self.receiver.answer = lambda _: DEAD
        for number in range(70):
            self.home.say(str(number))
        self._pass(3)
        self.receiver.transactions.clear()
        self.receiver.answer = lambda _: Answer()
        self._restart()
        self._pass(60)
        self.assertEqual(self.receiver.texts, [str(number) for number in range(70)])

    def test_a_crash_before_the_first_try_loses_nothing(self) -> None:
        """What the feed has, and no process has handled, is sent by the next one."""
        self.process.die()
        self.home.listeners.clear()
        self.home.say("unseen")
        self._restart()
        self.assertEqual(self.receiver.texts, ["unseen"])

    def test_confirmed_events_are_not_sent_again_after_a_restart(self) -> None:
        """The position is kept within seconds."""
        self.home.say("once")
        self._pass(10)
        self._restart()
        self._pass(10)
        self.assertEqual(self.receiver.texts, ["once"])

    def test_one_bad_event_does_not_block_the_rest(self) -> None:
        """A refusal is narrowed down to the event at fault, which is left out (security: F2)."""

        def answer(body: Any) -> Answer:
            bad = any(pdu["content"]["body"] == "17" for pdu in body["pdus"])
            return Answer(400, b'{"errcode":"M_BAD_JSON","error":"bad"}') if bad else Answer()

        self.receiver.answer = answer
        for number in range(120):
            self.home.say(str(number))
        self._pass(5)
        accepted = [
            pdu["content"]["body"]
            for _, body in self.receiver.transactions
            if answer(body).status == 200
            for pdu in body["pdus"]
        ]
        self.assertEqual(accepted, [str(number) for number in range(120) if number != 17])
        self.assertLess(len(self.receiver.transactions), 25)

    def test_a_400_of_something_that_is_no_matrix_server_drops_nothing(self) -> None:
        """Only a Matrix error says that the events are bad."""
        self.receiver.answer = lambda _: Answer(400, b"<html>")
        self.home.say("x")
        self._pass(5)
        self.receiver.answer = lambda _: Answer()
        self._pass(120)
        self.assertEqual(self.receiver.texts[-1], "x")

    def test_a_server_that_forbids_is_left_in_peace(self) -> None:
        """403 for everything is tried again rarely, whatever else it sends us, and nothing is lost."""
        self.receiver.answer = lambda _: Answer(403, b'{"errcode":"M_FORBIDDEN","error":"no"}')
        self.home.say("x")
        for _ in range(10):
            self._pass(5)
            self.world.network.outcome(self.world.backoff.succeeded(THERE))
        self.assertEqual(len(self.receiver.transactions), 1)
        self.receiver.answer = lambda _: Answer()
        self._pass(60)
        self.assertEqual(self.receiver.texts, ["x", "x"])

    def test_retry_after_is_honoured(self) -> None:
        """The wait a server asks for is kept."""
        self.receiver.answer = lambda _: Answer(503, headers={"Retry-After": "600"})
        self.home.say("x")
        self._pass(590)
        self.assertEqual(len(self.receiver.transactions), 1)
        self.receiver.answer = lambda _: Answer()
        self._pass(20)
        self.assertEqual(len(self.receiver.transactions), 2)

    def test_an_invite_withdrawn_while_the_server_is_away(self) -> None:
        """A kick of an invited user reaches a server that is not in the room, also after a restart."""
        other = ServerName("other.example")
        receiver = Receiver(self.world.server(other, 3))
        receiver.answer = lambda _: DEAD
        draft = EventDraft(
            ROOM, "m.room.member", ALICE, {"membership": "leave"}, state_key="@u:other.example"
        )
        self.home.tell(self.home.store(draft))
        self._pass(3)
        receiver.transactions.clear()
        receiver.answer = lambda _: Answer()
        self._restart()
        self._pass(60)
        self.assertEqual(len(receiver.transactions), 1)
        self.assertEqual(self.world.database.rows("SELECT * FROM outbound_extras"), [])

    def test_an_event_that_comes_while_a_backlog_ends(self) -> None:
        """A destination that ends its backlog while an entry is being handed out misses nothing of it."""
        third = ServerName("third.example")
        Receiver(self.world.server(third, 3))
        self.receiver.answer = lambda _: DEAD
        self.home.say("backlog")
        self._pass(3)
        held: Deferred[None] = Deferred()
        edus = self.process.sending.records.edus
        add_extra = edus.add_extra

        async def slowly(server: ServerName, extra: Extra) -> None:
            await held
            await add_extra(server, extra)

        self.patch(type(edus), "add_extra", lambda _, server, extra: slowly(server, extra))
        content = {"membership": "leave", "body": "kick"}
        draft = EventDraft(ROOM, "m.room.member", ALICE, content, state_key="@u:third.example")
        self.home.tell(self.home.store(draft))
        self.receiver.answer = lambda _: Answer(200, b'{"pdus":{}}')
        self._pass(600)
        held.callback(None)
        self._pass(60)
        self.assertEqual(self.receiver.texts[-2:], ["backlog", "kick"])


class EduTests(SenderCase):
    """What is no event."""

    def _queue(self, *numbers: int) -> None:
        rows = queue_rows(
            [(n, THERE, self.world.now, encode({"edu_type": "x", "content": {"n": n}})) for n in numbers]
        )
        self.world.database.run(run_all, [rows])
        self.home.feed(NewEntry(Kind.OUTBOUND_EDU, ref=numbers[-1]))

    def _numbers(self) -> list[int]:
        return [edu["content"]["n"] for _, body in self.receiver.transactions for edu in body["edus"]]

    def test_durable_edus_arrive_in_order_and_are_forgotten(self) -> None:
        """At most 100 in a transaction."""
        self._queue(*range(250))
        self._pass()
        self.assertEqual(self._numbers(), list(range(250)))
        self.assertTrue(all(len(body["edus"]) <= 100 for _, body in self.receiver.transactions))
        self.assertEqual(self.world.database.rows("SELECT * FROM outbound_edus"), [])

    def test_durable_edus_are_found_after_none_were(self) -> None:
        """That nothing waited before is no reason to leave an EDU lying."""
        for n in (1, 2):
            self.home.say("x")
            self._pass()
            self._queue(n)
            self._pass()
        self.assertEqual(self._numbers(), [1, 2])

    def test_durable_edus_survive_outage_and_restart(self) -> None:
        """To-device messages are never lost."""
        self.receiver.answer = lambda _: DEAD
        self._queue(1, 2, 3)
        self._pass(3)
        self.receiver.transactions.clear()
        self.receiver.answer = lambda _: Answer()
        self._restart()
        self._pass(60)
        self.assertEqual(self._numbers(), [1, 2, 3])

    def test_passing_edus_keep_the_last_value_alone(self) -> None:
        """And are dropped for a server that does not answer."""
        self.process.passing.on_waiting(self.process.sender.wake)
        self.receiver.answer = lambda _: DEAD
        self.home.say("x")
        self._pass()
        for n in range(5):
            self.process.passing.put(THERE, "key", encode({"edu_type": "m.typing", "content": {"n": n}}))
        self.receiver.answer = lambda _: Answer()
        self._pass(60)
        self.assertEqual(self._numbers()[-1:], [4])
        self.receiver.answer = lambda _: DEAD
        self.home.say("y")
        self._pass(1)
        self.process.passing.put(THERE, "key", encode({"edu_type": "m.typing", "content": {"n": 9}}))
        self._pass(20)
        self.receiver.transactions.clear()
        self.receiver.answer = lambda _: Answer()
        self._pass(60)
        self.assertEqual(self._numbers(), [])

    def test_a_refused_edu_is_left_out(self) -> None:
        """The others arrive."""

        def answer(body: Any) -> Answer:
            bad = any(edu["content"]["n"] == 7 for edu in body["edus"])
            return Answer(400, b'{"errcode":"M_UNKNOWN","error":"bad"}') if bad else Answer()

        self.receiver.answer = answer
        self._queue(*range(20))
        self._pass(5)
        accepted = {
            edu["content"]["n"]
            for _, body in self.receiver.transactions
            if answer(body).status == 200
            for edu in body["edus"]
        }
        self.assertEqual(accepted, set(range(20)) - {7})


class SharingTests(SenderCase):
    """Several processes on one database."""

    def test_each_destination_is_sent_to_by_one_process(self) -> None:
        """Shards are shared out; every server gets each event once."""
        receivers = []
        for number in range(12):
            name = f"s{number}.example"
            receivers.append(Receiver(self.world.server(name, 3)))
            self.home.join(ServerName(name))
        second = Process(self.home, "second")
        second.start()
        self._pass(20)
        held = self.world.database.rows("SELECT holder, COUNT(*) FROM federation_shards GROUP BY holder")
        self.assertEqual(dict(held), {"one": SHARDS // 2, "second": SHARDS // 2})
        self.home.say("x")
        self._pass(20)
        self.assertEqual([receiver.texts for receiver in receivers], [["x"]] * 12)

    def test_a_dead_process_is_replaced(self) -> None:
        """When its leases end, another goes on where it stood."""
        second = Process(self.home, "second")
        second.start()
        self._pass(20)
        second.die()
        self.process.die()
        third = Process(self.home, "third")
        self.home.listeners.clear()
        self.home.say("meanwhile")
        third.start()
        self._pass(60)
        self.assertEqual(self.receiver.texts, ["meanwhile"])

    def test_a_take_over_that_fails_is_tried_again(self) -> None:
        """When the database goes away in the middle, what is owed in the shards is sent all the same."""
        self.process.die()
        self.home.listeners.clear()
        self.home.say("meanwhile")
        second = Process(self.home, "second")
        owed = OnceGone(second.sender.sources.owed)
        second.sender.sources = evolve(second.sender.sources, owed=owed)
        second.start()
        self._pass(60)
        self.assertEqual(len(self.flushLoggedErrors(DatabaseGone)), 1)
        self.assertEqual(self.receiver.texts, ["meanwhile"])

    def test_what_is_said_while_leases_have_ended(self) -> None:
        """When leases were not renewed in time, what was said meanwhile is sent once they are held again."""
        renew = ShardStore.renew
        reached = [False]

        async def renewed(store: ShardStore, *args: Any) -> Mapping[int, int]:
            if not reached[0]:
                raise DatabaseGone("away")
            return await renew(store, *args)

        self.patch(ShardStore, "renew", renewed)
        self._pass(40)
        self.home.say("meanwhile")
        self._pass(6)
        reached[0] = True
        self._pass(20)
        self.home.say("after")
        self._pass()
        self.flushLoggedErrors(DatabaseGone)
        self.assertEqual(self.receiver.texts, ["meanwhile", "after"])

    def test_a_shard_lost_and_won_back_while_sending(self) -> None:
        """The end of what was under way before does not put away the queue that is in use since."""
        self.receiver.answer = lambda _: DEAD
        self.home.say("first")
        destinations = self.process.sender._destinations
        before = destinations.pop(THERE)
        before.stop()
        self.home.say("second")
        after = destinations[THERE]
        self._pass(3)
        self.assertTrue(destinations.get(THERE) is after)
