"""Measure the send path in one process, without HTTP: CPU microseconds of each local message.

`python -m bench.send_path [--database URL] [--senders N] [--messages N] [--profile]`

Without a URL it uses a fresh SQLite file. CPU is that of this process, its database threads included;
the server of PostgreSQL is not in it. Each sender waits for its commit before it sends the next message.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import sys
import tempfile
import time
from pathlib import Path

from attrs import frozen
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
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
from protocol.events import EventDraft
from protocol.identifiers import KeyID, RoomID, ServerName, UserID
from protocol.room_versions import V11
from protocol.signing import SigningKey
from storage.engines import open_database
from storage.feed_writers import Writers
from storage.migrate import migrate
from storage.transactions import TransactionKey
from storage.trie_nodes import NodeCache, TrieReader

SERVER = ServerName("bench.test")
BUDGET = 16 * 1024 * 1024
REACTOR = IReactorFromThreads(reactor)


@frozen
class Core:
    """The parts a send goes through."""

    nids: Nids
    events: LocalEvents
    rooms: NewRooms
    clock: Clock
    persister: Persister


async def start(url: str) -> Core:
    """Wire the core over a fresh or existing database."""
    database = await open_database(url, REACTOR)
    await migrate(database)
    clock = Clock(reactor)
    nids = Nids(database)
    stored = Events(database, nids, BUDGET)
    state = RoomState(TrieReader(database, NodeCache(BUDGET)), stored)
    heads = Heads(database, nids, state, SERVER, BUDGET)
    feed = Feed(database, BUDGET)
    feed.add_cache(stored.apply)
    feed.add_cache(heads.apply)
    await feed.start()
    persister = Persister(database, feed, clock, writers=Writers("bench"), gather=clock.soon)
    author = Author(SERVER, SigningKey(b"\1" * 32, KeyID("ed25519:1")))
    preparation = Preparation(nids, stored)
    events = LocalEvents(preparation, heads, state, persister, author, clock)
    return Core(nids, events, NewRooms(preparation, persister, author), clock, persister)


async def make_room(core: Core, number: int, users: list[UserID]) -> RoomID:
    """Make a public room with all `users` in it."""
    room_id = RoomID(f"!{time.time_ns()}-{number}:{SERVER}")
    first = users[0]

    def draft(event_type: str, content: dict[str, object], key: str, sender: UserID = first) -> EventDraft:
        return EventDraft(room_id, event_type, sender, content, key)

    drafts = [
        draft("m.room.create", {"room_version": "11"}, ""),
        draft("m.room.member", {"membership": "join"}, first),
        draft("m.room.power_levels", {"users": {first: 100}}, ""),
        draft("m.room.join_rules", {"join_rule": "public"}, ""),
    ]
    drafts += [draft("m.room.member", {"membership": "join"}, user, user) for user in users[1:]]
    await core.rooms.create(V11, drafts, now=core.clock.now_ms())
    return room_id


async def send_all(core: Core, room_id: RoomID, user: UserID, count: int) -> None:
    """Send messages one after the other."""
    nid = await core.nids.user(user)
    for n in range(count):
        content = {"msgtype": "m.text", "body": f"message {n} of a sender who has something to say"}
        key = TransactionKey.of(nid, "DEVICE", ("send", room_id, "m.room.message"), str(n))
        draft = EventDraft(room_id, "m.room.message", user, content)
        await core.events.send(draft, now=core.clock.now_ms(), txn=key)


async def measure(core: Core, senders: int, messages: int, rooms: int) -> str:
    """Run one workload and give its figures as a line."""
    users = [UserID(f"@user{n}:{SERVER}") for n in range(senders)]
    parts = [users[n::rooms] for n in range(rooms)]
    ids = [await make_room(core, n, part) for n, part in enumerate(parts)]
    places = [(room_id, user) for room_id, part in zip(ids, parts, strict=True) for user in part]
    await gatherResults([Deferred.fromCoroutine(send_all(core, *place, 1)) for place in places])
    wall, cpu = time.perf_counter(), time.process_time()
    await gatherResults([Deferred.fromCoroutine(send_all(core, *place, messages)) for place in places])
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    count = senders * messages
    return (
        f"{senders:3} senders, {rooms:3} rooms: {cpu / count * 1e6:6.0f} us CPU a send,"
        f" {count / wall:6.0f} sends/s, {wall / messages * 1e3:6.1f} ms a send"
    )


async def run(options: argparse.Namespace) -> None:
    """Run all workloads."""
    with tempfile.TemporaryDirectory() as folder:
        core = await start(options.database or f"sqlite:///{Path(folder) / 'bench.db'}")
        for senders, rooms in ((1, 1), (options.senders, options.senders), (options.senders, 1)):
            sys.stdout.write(await measure(core, senders, options.messages, rooms) + "\n")


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", help="URL; a fresh SQLite file if absent")
    parser.add_argument("--senders", type=int, default=32)
    parser.add_argument("--messages", type=int, default=100)
    parser.add_argument(
        "--profile", action="store_true", help="print where the reactor's thread spends its time"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.setswitchinterval(0.0005)
    options = parse()
    profile = cProfile.Profile()
    if options.profile:
        profile.enable()
    try:
        react(lambda _: Deferred.fromCoroutine(run(options)), _reactor=reactor)
    except SystemExit:
        profile.disable()
        if options.profile:
            pstats.Stats(profile).sort_stats("tottime").print_stats(40)
