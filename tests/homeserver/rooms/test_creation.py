"""Making rooms: presets, overrides, invites, and what cannot be made."""

from __future__ import annotations

from typing import Any

from homeserver.rooms.creation import MAX_INVITES, InitialState
from homeserver.rooms.presets import PRESETS, Preset, Visibility
from protocol.errors import (
    BadJson,
    InvalidParam,
    InvalidRoomState,
    NotFound,
    RoomInUse,
    UnsupportedRoomVersion,
)
from protocol.identifiers import RoomAlias, UserID
from protocol.room_versions import ROOM_VERSIONS, V11, V12
from tests.homeserver.events.helpers import ALICE, BOB
from tests.homeserver.rooms.helpers import CAROL, ZOE, House, start_house
from tests.storage.helpers import SqliteCase

ALIAS = RoomAlias("#tea:plait.test")


class CreationTest(SqliteCase):
    """`Creation`."""

    house: House

    async def setUp(self) -> None:
        """Start the services."""
        await super().setUp()
        self.house = await start_house(self.database)

    async def test_every_version(self) -> None:
        """A room can be made in each version, and its create event says which."""
        for version in ROOM_VERSIONS.values():
            room_id = await self.house.room(version)
            create = (await self.house.state(room_id))["m.room.create", ""]
            self.assertEqual(create.content["room_version"], version.id)
            self.assertEqual("creator" in create.content, not version.implicit_room_creator)
            self.assertEqual(":" not in room_id, version.room_id_is_create_hash)

    async def test_presets(self) -> None:
        """A preset sets join rules, visibility of history and guest access; visibility chooses a preset."""
        for preset, rules in PRESETS.items():
            state = await self.house.state(await self.house.room(preset=preset))
            self.assertEqual(state["m.room.join_rules", ""].content["join_rule"], rules.join_rule)
            history = state["m.room.history_visibility", ""].content["history_visibility"]
            self.assertEqual(history, rules.history_visibility)
            guests = state["m.room.guest_access", ""].content["guest_access"]
            self.assertEqual(guests, rules.guest_access)
        for visibility, rule in ((Visibility.PUBLIC, "public"), (Visibility.PRIVATE, "invite")):
            room_id = await self.house.room(visibility=visibility)
            content = await self.house.content(room_id, "m.room.join_rules")
            self.assertEqual(content["join_rule"], rule)
            published = await self.house.rooms.published.is_published(room_id)
            self.assertEqual(published, visibility is Visibility.PUBLIC)

    async def test_name_topic_alias(self) -> None:
        """Name, topic and alias become state, and the alias finds the room."""
        room_id = await self.house.room(name="Tea", topic="Leaves", alias=ALIAS)
        self.assertEqual(await self.house.content(room_id, "m.room.name"), {"name": "Tea"})
        self.assertEqual((await self.house.content(room_id, "m.room.topic"))["topic"], "Leaves")
        self.assertEqual(await self.house.content(room_id, "m.room.canonical_alias"), {"alias": ALIAS})
        self.assertEqual((await self.house.rooms.aliases.resolve(ALIAS)).room_id, room_id)
        with self.assertRaises(RoomInUse):
            await self.house.room(alias=ALIAS)
        with self.assertRaises(InvalidParam):
            await self.house.room(alias=RoomAlias("#tea:other.test"))

    async def test_trusted(self) -> None:
        """Invited users of a trusted room have the creator's power: level 100, or being a creator."""
        trusted: dict[str, Any] = {"preset": Preset.TRUSTED_PRIVATE, "invite": (BOB,)}
        old = await self.house.content(await self.house.room(V11, **trusted), "m.room.power_levels")
        self.assertEqual(old["users"], {ALICE: 100, BOB: 100})
        room_id = await self.house.room(V12, **trusted)
        self.assertEqual((await self.house.content(room_id, "m.room.power_levels"))["users"], {})
        create = await self.house.content(room_id, "m.room.create")
        self.assertEqual(create["additional_creators"], [BOB])

    async def test_invites(self) -> None:
        """Users of this server are invited at once, others with their server's signature."""
        room_id = await self.house.room(invite=(BOB, ZOE), is_direct=True, name="n")
        content = await self.house.content(room_id, "m.room.member", BOB)
        self.assertEqual((content["membership"], content["is_direct"]), ("invite", True))
        asked, placed = self.house.world.asked
        self.assertEqual(asked[:2], ("invite", ZOE))
        self.assertIn("m.room.name", asked[2])
        self.assertEqual(placed, ("place", ZOE, "invite"))

    async def test_an_invite_that_fails_is_left_out(self) -> None:
        """A room stands without those whose server refuses the invite, and with all others."""
        self.house.world.refuses = True
        room_id = await self.house.room(invite=(ZOE, BOB))
        self.assertEqual((await self.house.content(room_id, "m.room.member", BOB))["membership"], "invite")
        self.assertEqual(await self.house.content(room_id, "m.room.member", ZOE), {})

    async def test_initial_state(self) -> None:
        """Initial state takes the place of what the preset would set."""
        initial = (
            InitialState("m.room.join_rules", {"join_rule": "knock"}),
            InitialState("org.example", {"x": 1}, "key"),
        )
        room_id = await self.house.room(initial_state=initial, name="later")
        self.assertEqual(await self.house.content(room_id, "m.room.join_rules"), {"join_rule": "knock"})
        self.assertEqual(await self.house.content(room_id, "org.example", "key"), {"x": 1})

    async def test_power_levels(self) -> None:
        """An override joins the default levels; in version 12 it may not name a creator (security: S5)."""
        room_id = await self.house.room(power_levels={"invite": 50})
        content = await self.house.content(room_id, "m.room.power_levels")
        self.assertEqual((content["invite"], content["ban"]), (50, 50))
        with self.assertRaises(InvalidRoomState):
            await self.house.room(V12, power_levels={"users": {ALICE: 100}})
        levels = await self.house.content(await self.house.room(V12), "m.room.power_levels")
        self.assertGreater(levels["events"]["m.room.tombstone"], 100)

    async def test_refuse(self) -> None:
        """What breaks the room's rules makes no room (security: S5)."""
        second = InitialState("m.room.create", {"room_version": "1"})
        other = InitialState("m.room.member", {"membership": "join"}, BOB)
        many = tuple(UserID(f"@u{number}:plait.test") for number in range(MAX_INVITES + 1))
        for error, fields in (
            (InvalidRoomState, {"initial_state": (second,)}),
            (InvalidRoomState, {"initial_state": (other,)}),
            (InvalidRoomState, {"power_levels": {"users": {ALICE: 0}, "state_default": 50}}),
            (InvalidRoomState, {"power_levels": {"ban": "50"}}),
            (InvalidParam, {"invite": (BOB, BOB)}),
            (InvalidParam, {"invite": (ALICE,)}),
            (InvalidParam, {"invite": many}),
        ):
            with self.assertRaises(error, msg=str(fields)[:80]):
                await self.house.room(**fields)
        for creators in ("@bob:plait.test", [1], ["bob"]):
            with self.assertRaises(BadJson):
                await self.house.room(V12, creation_content={"additional_creators": creators})
        with self.assertRaises(InvalidRoomState):
            await self.house.room(V12, creation_content={"additional_creators": ["@bob"]})
        with self.assertRaises(UnsupportedRoomVersion):
            self.house.rooms.creation.version_of("99")

    async def test_content_of_create(self) -> None:
        """The client adds to the create event, but neither its version nor its creator (security: S5)."""
        extra = {"m.federate": False, "room_version": "1", "creator": BOB, "type": "m.space"}
        for version in (ROOM_VERSIONS["10"], V11, V12):
            content = await self.house.content(
                await self.house.room(version, creation_content=extra), "m.room.create"
            )
            self.assertEqual(content["room_version"], version.id)
            self.assertEqual(content.get("creator"), None if version.implicit_room_creator else ALICE)
            self.assertEqual((content["m.federate"], content["type"]), (False, "m.space"))

    async def test_missing_user(self) -> None:
        """Where an invited user does not exist, no room is made."""
        self.house.accounts.users = (ALICE,)
        with self.assertRaises(NotFound):
            await self.house.room(invite=(CAROL,), alias=ALIAS)
        with self.assertRaises(NotFound):
            await self.house.rooms.aliases.resolve(ALIAS)
