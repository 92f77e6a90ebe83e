"""The core of a server over a real database, as one worker has it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import define

from homeserver.clock import Clock
from homeserver.events.building import Author
from homeserver.events.creating import NewRoom, NewRooms
from homeserver.events.event_store import Events
from homeserver.events.heads import Heads
from homeserver.events.nids import Nids
from homeserver.events.persister import Persister, at_once
from homeserver.events.preparing import Preparation
from homeserver.events.room_state import RoomState
from homeserver.events.sending import LocalEvents
from homeserver.feed.tail import Feed
from protocol.events import EventDraft
from protocol.identifiers import KeyID, RoomID, ServerName, UserID
from protocol.room_versions import V11, RoomVersion
from protocol.signing import SigningKey
from storage.database import Database
from storage.feed_writers import Writers
from storage.trie_nodes import NodeCache, TrieReader
from tests.storage.helpers import REACTOR

SERVER = ServerName("plait.test")
ALICE = UserID("@alice:plait.test")
BOB = UserID("@bob:plait.test")
NOW = 1_700_000_000_000
BUDGET = 8 * 1024 * 1024


@define(eq=False)
class Worker:
    """All of the core, wired as one process has it."""

    database: Database
    clock: Clock
    nids: Nids
    stored: Events
    state: RoomState
    heads: Heads
    feed: Feed
    persister: Persister
    events: LocalEvents
    rooms: NewRooms
    made: int = 0

    async def room(
        self, version: RoomVersion = V11, creator: UserID = ALICE, *, name: str | None = None
    ) -> NewRoom:
        """Make a public room of `creator`."""
        self.made += 1
        room_id = None if version.room_id_is_create_hash else RoomID(f"!{name or self.made}:{SERVER}")
        return await self.rooms.create(version, beginning(room_id, version, creator), now=NOW)


def beginning(room_id: RoomID | None, version: RoomVersion, creator: UserID) -> list[EventDraft]:
    """Give the first events of a public room, in which everybody may send whatever they like."""

    def draft(event_type: str, content: Mapping[str, Any], state_key: str = "") -> EventDraft:
        return EventDraft(room_id, event_type, creator, content, state_key)

    create: dict[str, Any] = {"room_version": version.id}
    if not version.implicit_room_creator:
        create["creator"] = creator
    users = {} if version.privileged_creators else {creator: 100}
    return [
        draft("m.room.create", create),
        draft("m.room.member", {"membership": "join"}, creator),
        draft("m.room.power_levels", {"users": users, "events_default": 0, "state_default": 50}),
        draft("m.room.join_rules", {"join_rule": "public"}),
        draft("m.room.history_visibility", {"history_visibility": "shared"}),
    ]


def message(room_id: RoomID, body: str, sender: UserID = ALICE) -> EventDraft:
    """Say something."""
    return EventDraft(room_id, "m.room.message", sender, {"msgtype": "m.text", "body": body})


def membership(room_id: RoomID, user_id: UserID, value: str, sender: UserID | None = None) -> EventDraft:
    """Change a membership, one's own unless there is a `sender`."""
    return EventDraft(room_id, "m.room.member", sender or user_id, {"membership": value}, user_id)


async def start_worker(
    database: Database,
    writer: str | Writers = "one",
    gather: Callable[[Callable[[], None]], None] = at_once,
) -> Worker:
    """Wire a worker over a migrated database."""
    clock = Clock(REACTOR)
    nids = Nids(database)
    stored = Events(database, nids, BUDGET)
    state = RoomState(TrieReader(database, NodeCache(BUDGET)), stored)
    heads = Heads(database, nids, state, SERVER, BUDGET)
    feed = Feed(database, BUDGET)
    feed.add_cache(stored.apply)
    feed.add_cache(heads.apply)
    await feed.start()
    writers = writer if isinstance(writer, Writers) else Writers(writer)
    persister = Persister(database, feed, clock, writers=writers, gather=gather)
    author = Author(SERVER, SigningKey(b"\1" * 32, KeyID("ed25519:1")))
    preparation = Preparation(nids, stored)
    return Worker(
        database,
        clock,
        nids,
        stored,
        state,
        heads,
        feed,
        persister,
        LocalEvents(preparation, heads, state, persister, author, clock),
        NewRooms(preparation, persister, author),
    )
