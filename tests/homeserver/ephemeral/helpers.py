"""What passes, and devices' post and keys, over a real core; other servers and accounts are played."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from attrs import Factory, define, evolve
from twisted.internet import task

from homeserver.clock import Clock
from homeserver.core import Core, make_core
from homeserver.ephemeral.wiring import Outside, Passing, make_passing
from homeserver.events.building import Author
from homeserver.sync.session import Session
from protocol.canonical_json import JsonObject
from protocol.errors import NotFound
from protocol.events import EventDraft
from protocol.identifiers import DeviceID, EventID, KeyID, RoomID, ServerName, UserID
from protocol.room_versions import V11
from protocol.signing import SigningKey
from storage.database import Database
from storage.feed import Kind
from storage.feed_writers import Writers
from storage.migrate import migrate
from tests.homeserver.events.helpers import ALICE, BOB, NOW, SERVER, beginning, membership, message
from tests.storage.helpers import REACTOR

ZOE = UserID("@zoe:other.test")
STRANGER = UserID("@stranger:other.test")
OTHER = ServerName("other.test")
PHONE = DeviceID("PHONE")


@define
class World:
    """Other servers and this server's accounts."""

    edus: list[tuple[frozenset[ServerName], str, JsonObject]] = Factory(list)
    devices: dict[UserID, list[DeviceID]] = Factory(dict)
    answers: dict[ServerName, JsonObject] = Factory(dict)
    silenced: bool = False
    ignored: frozenset[UserID] = frozenset()

    def send_edu(
        self, servers: Iterable[ServerName], edu_type: str, key: object, content: JsonObject
    ) -> None:
        """Note what other servers are told."""
        self.edus.append((frozenset(servers), edu_type, content))

    async def device_ids(self, user_id: UserID) -> Sequence[DeviceID]:
        """Give a local user's devices."""
        return self.devices.get(user_id, [])

    async def of(self, user_nid: int) -> frozenset[UserID]:
        """Give the users whom a user ignores."""
        return self.ignored

    async def may_speak(self, origin: ServerName, room_id: RoomID) -> bool:
        """Tell whether a room's ACL lets a server speak."""
        return not self.silenced

    async def query_keys(
        self, server: ServerName, device_keys: Mapping[UserID, Sequence[str]], seconds: float = 10
    ) -> JsonObject:
        """Answer for another server."""
        if server not in self.answers:
            raise NotFound("no answer")
        return self.answers[server]

    async def claim_keys(
        self, server: ServerName, one_time_keys: Mapping[UserID, Mapping[str, str]], seconds: float = 10
    ) -> JsonObject:
        """Answer for another server."""
        return await self.query_keys(server, {})


@define(eq=False)
class Place:
    """A room with Alice, Bob and Zoe of another server, and the services."""

    core: Core
    time: task.Clock
    world: World
    passing: Passing
    room_id: RoomID
    room_nid: int
    event_id: EventID

    async def session(self, user_id: UserID = ALICE, device_id: DeviceID = PHONE) -> Session:
        """Give a session."""
        return Session(user_id, await self.core.nids.user(user_id), device_id)

    async def take(self, edu_type: str, content: JsonObject, origin: ServerName = OTHER) -> None:
        """Take an EDU in."""
        await self.passing.incoming.handlers()[edu_type](origin, content, NOW)

    async def entries(self, kind: Kind, since: int) -> int:
        """Count feed entries of a kind behind a position."""
        found = self.core.feed.since(since)
        assert found is not None
        return sum(entry.kind == kind for entry in found)


async def second_place(place: Place, database: Database) -> Place:
    """Wire a second worker over another connection pool to the same database."""
    core = make_core(database, Clock(REACTOR), place.core.author, 64 * 1024 * 1024, Writers("two"))
    played: Any = place.world
    outside = Outside(played, played, played, place.world.send_edu, played)
    clocked = evolve(core, clock=Clock(place.time))
    passing = make_passing(clocked, outside, presence=True, delivery_members=20)
    await core.feed.start()
    return evolve(place, core=core, passing=passing)


async def start_place(database: Database) -> Place:
    """Wire everything over an empty database."""
    await migrate(database)
    author = Author(SERVER, SigningKey(b"\1" * 32, KeyID("ed25519:1")))
    core = make_core(database, Clock(REACTOR), author, 64 * 1024 * 1024, Writers("one"))
    time, world = task.Clock(), World(devices={ALICE: [PHONE], BOB: [PHONE, DeviceID("DESK")]})
    time.advance(NOW / 1000)
    played: Any = world
    outside = Outside(played, played, played, world.send_edu, played)
    passing = make_passing(evolve(core, clock=Clock(time)), outside, presence=True, delivery_members=20)
    await core.feed.start()
    room_id = RoomID("!room:plait.test")
    new = await core.rooms.create(V11, beginning(room_id, V11, ALICE), now=NOW)
    for user_id in (BOB, ZOE):
        await core.events.send(membership(room_id, user_id, "join"), now=NOW)
    stored = await core.events.send(message(room_id, "hello"), now=NOW)
    return Place(core, time, world, passing, room_id, new.room.nid, stored.event.event_id)


def draft(room_id: RoomID, user_id: UserID, value: str) -> EventDraft:
    """Change one's own membership."""
    return membership(room_id, user_id, value)
