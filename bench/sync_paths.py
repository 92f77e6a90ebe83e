"""Measure sync and history in one process, without HTTP: CPU of each answer, hops to the database.

`python -m bench.sync_paths [--database URL] [--rooms N] [--members N] [--profile WHAT]`

Without a URL it uses a fresh SQLite file. CPU is that of this process, its database threads included;
the server of PostgreSQL is not in it. A cold first sync has empty caches of events and state.
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import pstats
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import define, field
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.task import react

from homeserver.clock import Clock
from homeserver.events.building import Author
from homeserver.events.creating import NewRooms
from homeserver.events.event_store import Events
from homeserver.events.heads import Heads
from homeserver.events.nids import Nids
from homeserver.events.persister import Persister
from homeserver.events.preparing import Preparation
from homeserver.events.room_state import RoomState
from homeserver.events.sending import LocalEvents
from homeserver.feed.tail import Feed
from homeserver.history.messages import PageRequest
from homeserver.history.wiring import History, make_history
from homeserver.sync.feed import SessionFeed
from homeserver.sync.filters import ALL_EVENTS, EventFilter
from homeserver.sync.session import Session
from homeserver.sync.suppliers import KeyCounts
from homeserver.sync.waiting import Waiters
from homeserver.sync.wiring import Core, Readers, Suppliers, make_readers, make_session_feed
from homeserver.unread.counts import UnreadCounter
from homeserver.unread.evaluation import UnreadVerdicts
from homeserver.unread.rules import MaskCache, UserRules
from protocol.events import EventDraft
from protocol.identifiers import DeviceID, KeyID, RoomID, ServerName, UserID
from protocol.room_versions import V11
from protocol.signing import SigningKey
from protocol.unread import classify
from storage.database import Database, Transaction
from storage.engines import open_database
from storage.feed_writers import Writers
from storage.migrate import migrate
from storage.trie_nodes import NodeCache, TrieReader

SERVER = ServerName("bench.test")
BUDGET = 16 * 1024 * 1024
REACTOR = IReactorFromThreads(reactor)
MESSAGES = 20
BODY = "a message of somebody who has something to say to the others in the room, and says it at length " * 2


class Quiet:
    """Suppliers that have nothing to tell."""

    ring, position = "bench", 0

    async def of(self, _: object) -> Any:
        """Give no receipts and no ignored users."""
        return {} if isinstance(_, dict) else frozenset()

    def begins(self, user_nid: int) -> None:
        """Note nothing."""

    def arrived(self, user_nid: int, pos: int) -> None:
        """Note nothing."""

    async def changed(self, user_nid: int, refs: Collection[int]) -> Sequence[Any]:
        """Give no account data."""
        return ()

    async def everything(self, user_nid: int) -> Sequence[Any]:
        """Give no account data."""
        return ()

    async def one(self, user_nid: int, event_type: str) -> bytes | None:
        """Give no account data."""
        return None

    async def after(self, session: Session, after: int, limit: int) -> None:
        """Give no messages."""

    async def delete(self, session: Session, upto: int) -> None:
        """Have nothing to delete."""

    async def counts(self, session: Session) -> KeyCounts:
        """Give no keys."""
        return KeyCounts({}, ())

    def typing(self, room_nids: Collection[int], after: int | None) -> Mapping[int, Sequence[UserID]]:
        """Let nobody type."""
        return {}

    async def presence(
        self, session: Session, after: int | None, wanted: EventFilter = ALL_EVENTS
    ) -> Sequence[bytes]:
        """Let nobody be there."""
        return ()


class DefaultRules:
    """Users who never touched their push rules."""

    def of(self, tx: Transaction, users: Mapping[int, UserID]) -> Mapping[int, UserRules]:
        """Give none."""
        return {}


@define(eq=False)
class Server:
    """A server in this process."""

    database: Database
    nids: Nids
    feed: Feed
    events: LocalEvents
    rooms: NewRooms
    clock: Clock
    counter: UnreadCounter
    nodes: NodeCache
    hops: list[int] = field(factory=lambda: [0])

    @property
    def now(self) -> int:
        """Give the time."""
        return self.clock.now_ms()

    def readers(self, *, cold: bool) -> Readers:
        """Build what reads, with empty caches or those of sending."""
        nodes = NodeCache(BUDGET) if cold else self.nodes
        return make_readers(Core(self.database, self.feed, self.nids, nodes))

    def session_feed(self, readers: Readers, *, cold: bool) -> SessionFeed:
        """Build a session feed."""
        quiet: Any = Quiet()
        core = Core(self.database, self.feed, self.nids, NodeCache(BUDGET) if cold else self.nodes)
        suppliers = Suppliers(quiet, quiet, quiet, quiet, quiet, quiet, self.counter, quiet)
        return make_session_feed(core, readers, suppliers, epoch=1)

    def history(self, readers: Readers) -> History:
        """Build the services of history."""
        quiet: Any = Quiet()
        return make_history(Core(self.database, self.feed, self.nids, self.nodes), readers, quiet)

    async def session(self, user: str) -> Session:
        """Give a session."""
        return Session(UserID(user), await self.nids.user(UserID(user)), DeviceID("D"))


async def start(url: str) -> Server:
    """Wire the core."""
    database = await open_database(url, REACTOR)
    await migrate(database)
    clock = Clock(reactor)
    nids = Nids(database)
    stored, nodes = Events(database, nids, BUDGET), NodeCache(BUDGET)
    state = RoomState(TrieReader(database, nodes), stored)
    heads = Heads(database, nids, state, SERVER, BUDGET)
    feed = Feed(database, BUDGET)
    verdicts = UnreadVerdicts(DefaultRules(), MaskCache(), SERVER)
    counter = UnreadCounter(database, verdicts)
    for listener in (stored.apply, heads.apply, verdicts.apply, counter.apply):
        feed.add_cache(listener)
    await feed.start()
    persister = Persister(
        database, feed, clock, writers=Writers("bench"), gather=clock.soon, more_rows=verdicts.rows
    )
    author = Author(SERVER, SigningKey(b"\1" * 32, KeyID("ed25519:1")), classify)
    preparation = Preparation(nids, stored)
    events = LocalEvents(preparation, heads, state, persister, author, clock)
    rooms = NewRooms(preparation, persister, author)
    return Server(database, nids, feed, events, rooms, clock, counter, nodes)


async def make_room(server: Server, number: int, users: Sequence[str], messages: int) -> RoomID:
    """Make a room with all users in it, who talk in turn."""
    room_id = RoomID(f"!{time.time_ns()}-{number}:{SERVER}")

    def draft(kind: str, content: dict[str, object], key: str, sender: str = users[0]) -> EventDraft:
        return EventDraft(room_id, kind, UserID(sender), content, key)

    drafts = [
        draft("m.room.create", {"room_version": "11"}, ""),
        draft("m.room.member", {"membership": "join", "displayname": users[0]}, users[0]),
        draft("m.room.power_levels", {"users": {users[0]: 100}}, ""),
        draft("m.room.join_rules", {"join_rule": "public"}, ""),
        draft("m.room.history_visibility", {"history_visibility": "shared"}, ""),
        draft("m.room.guest_access", {"guest_access": "can_join"}, ""),
        draft("m.room.name", {"name": f"Room {number}"}, ""),
        draft("m.room.topic", {"topic": "What we talk about"}, ""),
    ]
    drafts += [
        draft("m.room.member", {"membership": "join", "displayname": user}, user, user) for user in users[1:]
    ]
    await server.rooms.create(V11, drafts, now=server.now)
    for n in range(messages):
        content = {"msgtype": "m.text", "body": f"{n} {BODY}"}
        sender = UserID(users[n % len(users)])
        await server.events.send(EventDraft(room_id, "m.room.message", sender, content), now=server.now)
    return room_id


async def timed(what: str, count: int, work: Callable[[], Awaitable[int]]) -> None:
    """Run work once and print its CPU by piece; it gives a number of bytes."""
    wall, cpu = time.perf_counter(), time.process_time()
    size = await work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    sys.stdout.write(
        f"{what:52} {cpu / count * 1e3:8.3f} ms CPU {wall / count * 1e3:8.3f} ms wall {size:>9} bytes\n"
    )


async def first_syncs(server: Server, user: str) -> None:
    """Measure a first sync, cold and warm."""
    session = await server.session(user)
    readers = server.readers(cold=True)
    feed = server.session_feed(readers, cold=True)

    async def once() -> int:
        return len((await feed.delta(session, None, now=server.now)).to_json())

    await timed("first sync, cold", 1, once)
    await timed("first sync, warm", 1, once)


async def still(server: Server, user: str) -> None:
    """Measure a sync with nothing new."""
    session = await server.session(user)
    feed = server.session_feed(server.readers(cold=False), cold=False)
    token = (await feed.delta(session, None, now=server.now)).next_batch

    async def many() -> int:
        for _ in range(1000):
            delta = await feed.delta(session, token, now=server.now)
        return len(delta.to_json())

    await timed("nothing new", 1000, many)


async def deliveries(server: Server, users: Sequence[str], room_id: RoomID) -> None:
    """Measure what 100 recipients of a message cost beyond the sending of it."""
    readers = server.readers(cold=False)
    feed = server.session_feed(readers, cold=False)
    waiters = Waiters(server.database, readers.rooms, server.clock)
    server.feed.add_session_listener(waiters.apply)
    sessions = [await server.session(user) for user in users[1:]]
    tokens = {each: (await feed.delta(each, None, now=server.now)).next_batch for each in sessions}

    async def send(n: int) -> None:
        content = {"msgtype": "m.text", "body": f"{n} {BODY}"}
        await server.events.send(
            EventDraft(room_id, "m.room.message", UserID(users[0]), content), now=server.now
        )

    async def receive() -> int:
        size = 0
        for each in sessions:
            delta = await feed.delta(each, tokens[each], now=server.now)
            assert delta.rooms
            tokens[each], size = delta.next_batch, len(delta.to_json())
        return size

    rounds, cpu, wall, size = 50, 0.0, 0.0, 0
    await send(0)
    await receive()
    for n in range(rounds):
        await send(n)
        began, began_wall = time.process_time(), time.perf_counter()
        size = await receive()
        cpu += time.process_time() - began
        wall += time.perf_counter() - began_wall
    each = rounds * len(sessions)
    sys.stdout.write(
        f"{'one delivery to one of 100':52} {cpu / each * 1e3:8.3f} ms CPU {wall / each * 1e3:8.3f} ms wall"
        f" {size:>9} bytes\n"
    )


async def pages(server: Server, user: str, room_id: RoomID) -> None:
    """Measure pages of 100 messages, cold."""
    readers = server.readers(cold=True)
    history = server.history(readers)
    session = await server.session(user)
    first = await history.messages.page(
        await history.askers.of(session, room_id, server.now), PageRequest(None, None, True, 100)
    )

    async def walk() -> int:
        size, token = 0, first.end
        while token is not None:
            asker = await history.askers.of(session, room_id, server.now)
            page = await history.messages.page(asker, PageRequest(token, None, True, 100))
            size += len(page.to_json())
            token = page.end
        return size

    await timed("a message of /messages, pages of 100", 900, walk)


async def run(options: argparse.Namespace) -> None:
    """Run all measurements."""
    with tempfile.TemporaryDirectory() as folder:
        server = await start(options.database or f"sqlite:///{Path(folder) / 'bench.db'}")
        users = [f"@user{n}:{SERVER}" for n in range(101)]
        me = users[0]
        for n in range(options.rooms):
            others = [users[1 + (n * 7 + k) % 100] for k in range(options.members - 1)]
            await make_room(server, n, [me, *others], MESSAGES)
        gc.collect()
        gc.freeze()  # as a server does once it has started
        measure(options, "first")
        await first_syncs(server, me)
        measured(options, "first")
        measure(options, "still")
        await still(server, me)
        measured(options, "still")
        big = await make_room(server, 1000, users, 0)
        measure(options, "deliveries")
        await deliveries(server, users, big)
        measured(options, "deliveries")
        long_room = await make_room(server, 1001, users[:2], 1000)
        measure(options, "pages")
        await pages(server, me, long_room)
        measured(options, "pages")


PROFILE = cProfile.Profile()


def measure(options: argparse.Namespace, what: str) -> None:
    """Begin to profile, if this is asked for."""
    if options.profile == what:
        PROFILE.enable()


def measured(options: argparse.Namespace, what: str) -> None:
    """End the profile and print it."""
    if options.profile == what:
        PROFILE.disable()
        pstats.Stats(PROFILE).sort_stats("tottime").print_stats(35)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", help="URL; a fresh SQLite file if absent")
    parser.add_argument("--rooms", type=int, default=100)
    parser.add_argument("--members", type=int, default=10)
    parser.add_argument("--profile", choices=("first", "still", "deliveries", "pages"))
    return parser.parse_args()


if __name__ == "__main__":
    sys.setswitchinterval(0.0005)
    options = parse()
    react(lambda _: Deferred.fromCoroutine(run(options)), _reactor=reactor)
