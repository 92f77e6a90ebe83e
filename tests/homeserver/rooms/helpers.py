"""The services of rooms over a real core, with other servers and accounts played."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import Factory, define

from homeserver.clock import Clock
from homeserver.core import Core, make_core
from homeserver.events.building import Author
from homeserver.events.stored import StoredEvent
from homeserver.rooms.creation import RoomSpec
from homeserver.rooms.published import DirectoryQuery
from homeserver.rooms.wiring import Elsewhere, Kept, Rooms, make_rooms
from protocol.canonical_json import JsonObject
from protocol.errors import Forbidden, NotFound
from protocol.events import Event, EventDraft
from protocol.identifiers import KeyID, RoomAlias, RoomID, ServerName, StateKey, UserID
from protocol.room_versions import V11, RoomVersion
from protocol.signing import SigningKey
from storage.database import Database
from storage.feed_writers import Writers
from storage.migrate import migrate
from storage.transactions import TransactionKey
from tests.homeserver.events.helpers import ALICE, BOB, NOW, SERVER
from tests.storage.helpers import REACTOR

CAROL = UserID("@carol:plait.test")
ZOE = UserID("@zoe:other.test")
OTHER = ServerName("other.test")


@define
class World:
    """Other servers: what was asked of them, and what they answer."""

    asked: list[tuple[Any, ...]] = Factory(list)
    aliases: dict[RoomAlias, RoomID] = Factory(dict)
    refuses: bool = False

    async def join(
        self, user_id: UserID, room_id: RoomID, via: Sequence[ServerName], content: JsonObject
    ) -> None:
        """Note a join."""
        self.asked.append(("join", user_id, room_id, tuple(via), content))

    async def knock(
        self, user_id: UserID, room_id: RoomID, via: Sequence[ServerName], content: JsonObject
    ) -> None:
        """Note a knock."""
        self.asked.append(("knock", user_id, room_id, tuple(via), content))

    async def leave(
        self, user_id: UserID, room_id: RoomID, via: Sequence[ServerName], content: JsonObject
    ) -> None:
        """Note a leave."""
        self.asked.append(("leave", user_id, room_id, tuple(via), content))

    async def invite(self, event: Event, stripped_state: Sequence[Event]) -> Event:
        """Sign an invite, or refuse it."""
        if self.refuses:
            raise Forbidden("no invites here")
        self.asked.append(("invite", event.state_key, [each.type for each in stripped_state]))
        return event

    def has_none(self, room_nid: int) -> bool:
        """Tell that no room has a policy server."""
        return True

    async def of(self, room_nid: int) -> None:
        """Give no room a policy server."""

    async def place_own(
        self, room_nid: int, event: Event, *, now: int, txn: TransactionKey | None = None
    ) -> StoredEvent | None:
        """Note an invite that would be committed."""
        self.asked.append(("place", event.state_key, event.membership))
        return None

    async def resolve_alias(self, alias: RoomAlias) -> tuple[RoomID, Sequence[ServerName]]:
        """Resolve an alias of another server."""
        if alias not in self.aliases:
            raise NotFound("no such alias")
        return self.aliases[alias], [OTHER]

    async def public_rooms(self, server: ServerName, query: DirectoryQuery) -> JsonObject:
        """Give an empty directory."""
        return {"chunk": []}


@define
class Accounts:
    """Who exists here, and whom they hold as conversations."""

    users: tuple[UserID, ...] = (ALICE, BOB, CAROL)
    direct: dict[UserID, JsonObject] = Factory(dict)
    carried: list[tuple[UserID, RoomID, RoomID]] = Factory(list)

    async def carry(self, user_id: UserID, old: RoomID, new: RoomID) -> None:
        """Note that settings are carried over."""
        self.carried.append((user_id, old, new))

    async def exists(self, user_id: UserID) -> bool:
        """Tell whether there is an account."""
        return user_id in self.users

    async def get(self, user_id: UserID) -> Mapping[str, Any]:
        """Give a user's `m.direct`."""
        return self.direct.get(user_id, {})

    async def add(self, user_id: UserID, other: UserID, room_id: RoomID) -> None:
        """Note a room in a user's `m.direct`."""
        content = self.direct.setdefault(user_id, {})
        content.setdefault(other, []).append(room_id)


@define(eq=False)
class House:
    """The services, and who plays the rest."""

    core: Core
    rooms: Rooms
    world: World
    accounts: Accounts

    async def room(self, version: RoomVersion = V11, **fields: Any) -> RoomID:
        """Make a room of Alice's."""
        return await self.rooms.creation.create(RoomSpec(ALICE, version, **fields), NOW)

    async def state(self, room_id: RoomID) -> dict[StateKey, Event]:
        """Give the whole state of a room."""
        room_nid = await self.core.nids.room(room_id)
        assert room_nid is not None
        head = await self.core.heads.get(room_nid)
        nids = await self.core.state.all(room_nid, head.root)
        stored = await self.core.stored.by_nid(room_nid, nids.values())
        return {each.event.key: each.event for each in stored.values()}

    async def content(self, room_id: RoomID, event_type: str, state_key: str = "") -> Mapping[str, Any]:
        """Give the content of one piece of state, empty if there is none."""
        found = (await self.state(room_id)).get((event_type, state_key))
        return {} if found is None else found.content

    async def put(
        self, room_id: RoomID, event_type: str, content: JsonObject, sender: UserID = ALICE, key: str = ""
    ) -> None:
        """Set state by no service's leave."""
        await self.core.events.send(EventDraft(room_id, event_type, sender, content, key), now=NOW)


async def start_house(database: Database, writer: str = "one", direct: Any = None) -> House:
    """Wire the services over an empty database, or as another worker; `direct` makes who keeps `m.direct`."""
    await migrate(database)
    author = Author(SERVER, SigningKey(b"\1" * 32, KeyID("ed25519:1")))
    core = make_core(database, Clock(REACTOR), author, 64 * 1024 * 1024, Writers(writer))
    world, accounts = World(), Accounts()
    elsewhere: Any = Elsewhere(world, world, world, world, world)  # type: ignore[arg-type]
    keeper = accounts if direct is None else direct(core)
    rooms = make_rooms(core, elsewhere, accounts, Kept(keeper, accounts), "12")
    await core.feed.start()
    return House(core, rooms, world, accounts)
