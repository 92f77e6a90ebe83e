"""A real sender, client and database over a network in memory."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from twisted.internet.defer import DeferredSemaphore
from twisted.trial.unittest import SynchronousTestCase

from federation.client import Transactions
from federation.outbound.audience import Audiences
from federation.outbound.catch_up import CatchUp
from federation.outbound.destination import Records, Sending
from federation.outbound.edus import DurableEdus, PassingEdus
from federation.outbound.sender import FederationSender, Sources
from federation.outbound.shards import Shards
from homeserver.events.stored import Status, StoredEvent
from protocol.canonical_json import decode
from protocol.events import EventDraft, Links, build_event
from protocol.identifiers import EventID, RoomID, ServerName, UserID
from protocol.room_versions import V11
from storage.catch_up import CatchUpStore
from storage.database import Transaction
from storage.destinations import DestinationStore
from storage.federation_shards import ShardStore
from storage.feed import Entry, Flag, Kind, NewEntry, append
from storage.outbound_edus import OutboundEduStore
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
        flags = Flag.FEDERATE | (Flag.MEMBERSHIP if stored.event.type == "m.room.member" else 0)
        entry = NewEntry(Kind.EVENT, flags, stored.room_nid, None, stored.nid, payload=stored)
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
