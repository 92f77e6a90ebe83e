"""The core of the server HERE over the database of a `World`: rooms, heads, events, the feed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from homeserver.events.building import Author
from homeserver.events.creating import NewRooms
from homeserver.events.event_store import Events
from homeserver.events.heads import Heads
from homeserver.events.nids import Nids
from homeserver.events.persister import Persister, at_once
from homeserver.events.preparing import Preparation
from homeserver.events.received import Course, ImportedRoom, Outcome
from homeserver.events.room_state import RoomState
from homeserver.events.sending import LocalEvents
from homeserver.events.stored import Status, StoredEvent
from homeserver.events.unplaced import Unplaced
from homeserver.feed.tail import Feed
from homeserver.rooms.restricted import RestrictedJoins
from protocol.canonical_json import JsonObject
from protocol.events import Event, EventDraft
from protocol.identifiers import EventID, RoomID, ServerName, UserID
from protocol.room_versions import V11, RoomVersion
from storage.feed_writers import Writers
from storage.trie_nodes import NodeCache, TrieReader
from tests.federation.helpers import World

ALICE = UserID("@alice:here.example")
BUDGET = 8 * 1024 * 1024


class Core:
    """All that federation needs of the core."""

    def __init__(self, world: World) -> None:
        """Wire the core over the world's database."""
        database = world.database
        self.world = world
        self.nids = Nids(database)
        self.stored = Events(database, self.nids, BUDGET)
        self.state = RoomState(TrieReader(database, NodeCache(BUDGET)), self.stored)
        self.heads = Heads(database, self.nids, self.state, world.name, BUDGET)
        self.feed = Feed(database, BUDGET)
        self.feed.add_cache(self.stored.apply)
        self.feed.add_cache(self.heads.apply)
        world.network.outcome(self.feed.start())
        self.author = author = Author(world.name, world.own.keys[0])
        self.admin = UserID(f"@alice:{world.name}")
        preparation = Preparation(self.nids, self.stored)
        self.persister = persister = Persister(
            database, self.feed, world.clock, writers=Writers("test"), gather=at_once
        )
        self.events = LocalEvents(preparation, self.heads, self.state, persister, author, world.clock)
        self.rooms = NewRooms(preparation, persister, author)
        self.unplaced = Unplaced(self.heads, author)
        self.restricted = RestrictedJoins(world.name, self.heads, self.nids)

    def room(
        self,
        version: RoomVersion = V11,
        rules: Mapping[str, Any] | None = None,
        name: str = "room",
        federate: bool = True,
    ) -> RoomID:
        """Make a room of `admin` with these join rules, public ones by default."""
        room_id = None if version.room_id_is_create_hash else RoomID(f"!{name}:{self.world.name}")

        def draft(event_type: str, content: Mapping[str, Any], state_key: str = "") -> EventDraft:
            return EventDraft(room_id, event_type, self.admin, content, state_key)

        create: dict[str, Any] = {"room_version": version.id} | ({} if federate else {"m.federate": False})
        if not version.implicit_room_creator:
            create["creator"] = self.admin
        users = {} if version.privileged_creators else {self.admin: 100}
        drafts = [
            draft("m.room.create", create),
            draft("m.room.member", {"membership": "join"}, self.admin),
            draft("m.room.power_levels", {"users": users}),
            draft("m.room.join_rules", rules or {"join_rule": "public"}),
        ]
        made = self.world.network.outcome(self.rooms.create(version, drafts, now=self.world.now))
        return made.room.room_id

    def send(
        self, room_id: RoomID, event_type: str, content: Mapping[str, Any], state_key: str | None = None
    ) -> StoredEvent:
        """Send an event of the room's maker."""
        draft = EventDraft(room_id, event_type, self.admin, content, state_key)
        return self.world.network.outcome(self.events.send(draft, now=self.world.now))

    def state_of(self, room_id: RoomID) -> list[Event]:
        """Give the whole state of a room."""

        async def read() -> list[Event]:
            room_nid = await self.nids.room(room_id)
            assert room_nid is not None
            head = await self.heads.get(room_nid)
            return [one.event for one in (await self.state.all_events(room_nid, head.root)).values()]

        return self.world.network.outcome(read())


class Placed:
    """Notes what would be placed; accepts everything, before the head as it is."""

    def __init__(self, core: Core, status: Status = Status.ACCEPTED) -> None:
        """Answer with `status`."""
        self.core = core
        self.status = status
        self.events: list[Event] = []
        self.courses: list[Course] = []
        self.imported: list[ImportedRoom] = []
        self.outside: list[tuple[Event, Sequence[JsonObject]]] = []
        self.left: list[tuple[RoomID, UserID, Event | None]] = []

    async def receive(
        self, room_nid: int, event: Event, *, origin: ServerName, course: Course = Course.RECEIVED
    ) -> Outcome:
        """Note an event."""
        head = await self.core.heads.get(room_nid)
        self.events.append(event)
        self.courses.append(course)
        return Outcome(self.status, StoredEvent(event, 10_000, room_nid, self.status, head.root, 1, 1))

    async def is_here(self, given: ImportedRoom) -> bool:
        """Tell that no room is here."""
        return False

    async def take(self, given: ImportedRoom) -> int:
        """Note a room."""
        self.imported.append(given)
        return 1

    async def begin(
        self, version: RoomVersion, event: Event, stripped_state: Sequence[JsonObject], *, now: int
    ) -> None:
        """Note an invite or knock."""
        self.outside.append((event, stripped_state))

    async def end(self, room_id: RoomID, user_id: UserID, event: Event | None, *, now: int) -> None:
        """Note a leave."""
        self.left.append((room_id, user_id, event))

    async def of_state(self, room_nid: int, event_nids: Sequence[int]) -> list[int]:
        """Give the nids of the auth chain of these events, by walking it."""
        stored = await self.core.stored.by_nid(room_nid, event_nids)
        noted = self.events if len(stored) < len(event_nids) else []
        waiting = [each for event in noted for each in event.auth_events]
        waiting += [each for one in stored.values() for each in one.event.auth_events]
        found: dict[int, None] = {}
        while waiting:
            (auth,) = (await self.core.stored.by_id(room_nid, [waiting.pop()])).values()
            if auth.nid not in found:
                found[auth.nid] = None
                waiting += auth.event.auth_events
        return list(found)

    async def of_event(self, room_nid: int, event_id: EventID) -> list[int]:
        """Give the nids of the auth chain of one event."""
        (stored,) = (await self.core.stored.by_id(room_nid, [event_id])).values()
        return await self.of_state(room_nid, [stored.nid])


async def gathered(pieces: AsyncIterator[bytes]) -> bytes:
    """Give the whole of an answer that is made in parts."""
    return b"".join([piece async for piece in pieces])


async def run_now(work: Any, *args: Any, **kwargs: Any) -> Any:
    """Run work of a thread at once."""
    return work(*args, **kwargs)
