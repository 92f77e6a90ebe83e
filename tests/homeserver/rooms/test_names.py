"""Aliases, the published directory, and upgrades that carry both along."""

from __future__ import annotations

from typing import Any

from homeserver.events.heads import RoomHead
from homeserver.rooms.inviting import stripped_state
from homeserver.rooms.membership import Target
from homeserver.rooms.presets import Preset
from homeserver.rooms.published import DirectoryQuery, summary_of
from protocol.errors import BadAlias, Forbidden, InvalidParam, NotFound, RoomInUse
from protocol.events import EventDraft
from protocol.identifiers import RoomAlias, RoomID
from protocol.room_versions import ROOM_VERSIONS, V6, V10, V11, V12
from tests.homeserver.events.helpers import ALICE, BOB, NOW
from tests.homeserver.rooms.helpers import CAROL, OTHER, ZOE, House, start_house
from tests.storage.helpers import PostgresCase, SqliteCase

TEA = RoomAlias("#tea:plait.test")
FAR = RoomAlias("#far:other.test")
AWAY = RoomID("!away:other.test")


class NamesTests:
    """`Aliases`, `Published` and `Upgrades`."""

    house: House
    database: Any
    assertEqual: Any
    assertTrue: Any
    assertFalse: Any
    assertIn: Any
    assertIsNone: Any
    assertNotIn: Any
    assertRaises: Any

    async def setUp(self) -> None:
        """Start the services."""
        await super().setUp()  # type: ignore[misc]
        self.house = await start_house(self.database)
        self.aliases = self.house.rooms.aliases
        self.published = self.house.rooms.published

    async def test_what_was_redacted_is_shown_to_nobody(self) -> None:
        """Neither the directory nor who is invited learns a name that was redacted, though it was known."""
        room_id = await self.house.room(name="a secret")
        room_nid = await self.house.core.nids.room(room_id)
        head = await self.house.core.heads.get(room_nid)
        self.assertEqual((await summary_of(head, 1))["name"], "a secret")
        named = (await self.house.state(room_id))["m.room.name", ""]
        redaction = EventDraft(room_id, "m.room.redaction", ALICE, {}, redacts=named.event_id)
        await self.house.core.events.send(redaction, now=NOW)
        head = await self.house.core.heads.get(room_nid)
        self.assertNotIn("name", await summary_of(head, 1))
        shown = {event.type: event.content for event in await stripped_state(head, ALICE)}
        self.assertEqual(shown["m.room.name"], {})
        self.assertEqual(shown["m.room.member"]["membership"], "join")

    async def test_an_upgrade_brings_nothing_redacted_back(self) -> None:
        """A topic that was redacted is empty in the new room; what protects the room comes along."""
        room_id = await self.house.room(name="tea", topic="a secret")
        await self.house.put(room_id, "m.room.encryption", {"algorithm": "m.megolm.v1.aes-sha2"})
        for event_type in ("m.room.topic", "m.room.encryption"):
            event_id = (await self.house.state(room_id))[event_type, ""].event_id
            redaction = EventDraft(room_id, "m.room.redaction", ALICE, {}, redacts=event_id)
            await self.house.core.events.send(redaction, now=NOW)
        new_id = await self.house.rooms.upgrades.upgrade(ALICE, room_id, V12, [], NOW)
        self.assertEqual(await self.house.content(new_id, "m.room.name"), {"name": "tea"})
        self.assertEqual(await self.house.content(new_id, "m.room.topic"), {})
        self.assertIn("algorithm", await self.house.content(new_id, "m.room.encryption"))

    async def test_outsiders_keep_off(self) -> None:
        """Only its maker, or a member with the level, removes an alias; none is moved (security: C5)."""
        room_id = await self.house.room(alias=TEA, invite=(BOB,))
        other = await self.house.room()
        with self.assertRaises(RoomInUse):
            await self.aliases.add(TEA, other, BOB)
        await self.house.put(room_id, "m.room.member", {"membership": "join"}, BOB, BOB)
        for user_id in (BOB, CAROL, ZOE):
            with self.assertRaises(Forbidden):
                await self.aliases.remove(TEA, user_id)
        self.assertEqual((await self.aliases.resolve(TEA)).room_id, room_id)
        levels = dict(await self.house.content(room_id, "m.room.power_levels"))
        await self.house.put(
            room_id, "m.room.power_levels", {**levels, "users": {**levels["users"], BOB: 50}}
        )
        await self.aliases.remove(TEA, BOB)
        with self.assertRaises(NotFound):
            await self.aliases.resolve(TEA)
        with self.assertRaises(NotFound):
            await self.aliases.remove(TEA, ALICE)

    async def test_other_servers_aliases(self) -> None:
        """Other servers' aliases are asked for there, and neither made nor removed here (security: C5)."""
        room_id = await self.house.room()
        self.house.world.aliases[FAR] = AWAY
        resolved = await self.aliases.resolve(FAR)
        self.assertEqual((resolved.room_id, list(resolved.servers)), (AWAY, [OTHER]))
        with self.assertRaises(InvalidParam):
            await self.aliases.add(FAR, room_id, ALICE)
        with self.assertRaises(InvalidParam):
            await self.aliases.remove(FAR, ALICE)
        with self.assertRaises(NotFound):
            await self.aliases.add(TEA, AWAY, ALICE)

    async def test_canonical(self) -> None:
        """A canonical alias points at the room that claims it (security: C5)."""
        room_id, other = await self.house.room(alias=TEA), await self.house.room()
        self.house.world.aliases[FAR] = AWAY
        messages = self.house.rooms.messages

        async def claim(where: RoomID, content: dict[str, object]) -> None:
            draft = EventDraft(where, "m.room.canonical_alias", ALICE, content, "")
            await messages.set_state(draft, NOW)

        await claim(room_id, {"alias": TEA, "alt_aliases": [TEA]})
        for nothing in ({"alias": None}, {"alias": ""}, {"alt_aliases": []}):
            await claim(room_id, nothing)
        for content in ({"alias": TEA}, {"alt_aliases": [TEA]}, {"alias": FAR}, {"alias": "#no:plait.test"}):
            with self.assertRaises(BadAlias):
                await claim(other, content)
        for content in ({"alias": 3}, {"alt_aliases": "x"}, {"alias": "tea"}, {"alt_aliases": [None]}):
            with self.assertRaises(InvalidParam):
                await claim(room_id, content)

    async def test_publish(self) -> None:
        """A member with the level to name the room publishes it, and nobody else (security: C5)."""
        room_id = await self.house.room(invite=(BOB,))
        for user_id in (BOB, CAROL):
            with self.assertRaises(Forbidden):
                await self.published.set_by(user_id, room_id, True)
        await self.published.set_by(ALICE, room_id, True)
        self.assertTrue(await self.published.is_published(room_id))
        await self.published.set_by(ALICE, room_id, False)
        self.assertFalse(await self.published.is_published(room_id))
        with self.assertRaises(NotFound):
            await self.published.is_published(AWAY)

    async def test_pages(self) -> None:
        """The directory is read by pages, forth and back, and searched."""
        rooms = []
        for number in range(5):
            kind = {"type": "m.space"} if number == 3 else {}
            room_id = await self.house.room(name=f"Room {number}", creation_content=kind)
            await self.published.publish(room_id)
            rooms.append(room_id)
        seen, since = [], None
        for _ in range(3):
            page = await self.published.page(DirectoryQuery(2, since))
            seen += [chunk["room_id"] for chunk in page["chunk"]]
            self.assertEqual(page["total_room_count_estimate"], 5)
            since = page.get("next_batch")
        self.assertIsNone(since)
        self.assertEqual(set(seen), set(rooms))
        self.assertEqual(page["prev_batch"], "p2")
        found = await self.published.page(DirectoryQuery(search="room 3"))
        self.assertEqual([chunk["name"] for chunk in found["chunk"]], ["Room 3"])
        spaces = await self.published.page(DirectoryQuery(room_types=("m.space",)))
        self.assertEqual([chunk["room_id"] for chunk in spaces["chunk"]], [rooms[3]])
        plain = await self.published.page(DirectoryQuery(room_types=(None,)))
        self.assertEqual(len(plain["chunk"]), 4)
        self.assertEqual((await self.published.page(DirectoryQuery(network="irc")))["chunk"], [])
        self.assertEqual(len((await self.published.page(DirectoryQuery(all_networks=True)))["chunk"]), 5)
        for since in ("x", "p", "p-1", "p٣", "p" + "9" * 20):
            with self.assertRaises(InvalidParam):
                await self.published.page(DirectoryQuery(since=since))

    async def test_rooms_that_may_not_be_seen(self) -> None:
        """They are left out, of pages and of what is found."""
        seen = await self.house.room(name="one")
        for room_id in (seen, await self.house.room(name="one, hidden")):
            await self.published.publish(room_id)

        async def may_see(head: RoomHead) -> bool:
            return head.room_id == seen

        for query in (DirectoryQuery(), DirectoryQuery(search="one")):
            page = await self.published.page(query, may_see)
            self.assertEqual([chunk["room_id"] for chunk in page["chunk"]], [seen])

    async def test_odd_state(self) -> None:
        """State of wrong types leaves a room in the directory, without those fields (security: F16)."""
        room_id = await self.house.room()
        await self.published.publish(room_id)
        for event_type, field in (
            ("m.room.name", "name"),
            ("m.room.topic", "topic"),
            ("m.room.avatar", "url"),
            ("m.room.canonical_alias", "alias"),
            ("m.room.guest_access", "guest_access"),
            ("m.room.history_visibility", "history_visibility"),
        ):
            await self.house.put(room_id, event_type, {field: [{"a\0": None}]})
        await self.house.put(room_id, "m.room.join_rules", {"join_rule": {}})
        (chunk,) = (await self.published.page(DirectoryQuery(search="x\0"))).get("chunk") or (
            await self.published.page(DirectoryQuery())
        )["chunk"]
        self.assertNotIn("name", chunk)
        self.assertEqual((chunk["join_rule"], chunk["world_readable"]), ("invite", False))

    async def test_upgrade(self) -> None:
        """An upgrade carries state, bans, aliases and the directory entry over, and closes the old room."""
        for before in (V6, V10, V12):
            for after in (V11, V12):
                old = await self.house.room(before, name="Tea", alias=TEA, power_levels={"invite": 20})
                await self.published.publish(old)
                ban = {"membership": "ban"}
                await self.house.put(old, "m.room.member", ban, ALICE, BOB)
                last = (await self.house.state(old))["m.room.member", BOB].event_id
                new = await self.house.rooms.upgrades.upgrade(ALICE, old, after, [], NOW)
                tombstone = await self.house.content(old, "m.room.tombstone")
                self.assertEqual(tombstone["replacement_room"], new)
                create = await self.house.content(new, "m.room.create")
                self.assertEqual(create["room_version"], after.id)
                self.assertEqual(create["predecessor"], {"room_id": old, "event_id": last})
                self.assertEqual(await self.house.content(new, "m.room.name"), {"name": "Tea"})
                member = await self.house.content(new, "m.room.member", BOB)
                self.assertEqual(member["membership"], "ban")
                levels = await self.house.content(new, "m.room.power_levels")
                self.assertEqual(levels["users"], {} if after is V12 else {ALICE: 100})
                self.assertEqual(levels["invite"], 20)
                self.assertEqual((await self.aliases.resolve(TEA)).room_id, new)
                self.assertEqual(await self.house.content(new, "m.room.canonical_alias"), {"alias": TEA})
                self.assertTrue(await self.published.is_published(new))
                self.assertFalse(await self.published.is_published(old))
                quiet = await self.house.content(old, "m.room.power_levels")
                self.assertEqual((quiet["events_default"], quiet["invite"]), (50, 50))
                await self.aliases.remove(TEA, ALICE)

    async def test_settings_are_carried_over(self) -> None:
        """Who upgrades, or joins the new room, has the settings of the old one; no room can claim them."""
        old = await self.house.room(V10, preset=Preset.PUBLIC)
        members, carried = self.house.rooms.memberships, self.house.accounts.carried
        await members.join(BOB, Target(old), {}, NOW)
        new = await self.house.rooms.upgrades.upgrade(ALICE, old, V11, [], NOW)
        self.assertEqual(carried, [(ALICE, old, new)])
        for _ in range(2):
            await members.join(BOB, Target(new), {}, NOW)
        await self.settle()
        self.assertEqual(carried[1:], [(BOB, old, new)])
        for predecessor in ({"room_id": old}, {"room_id": 5}, {"room_id": "!no\0:x"}, {}, [old]):
            content = {"predecessor": predecessor}
            false = await self.house.room(V11, preset=Preset.PUBLIC, creation_content=content)
            await members.join(BOB, Target(false), {}, NOW)
        await self.settle()
        self.assertEqual(len(carried), 2)

    async def settle(self) -> None:
        """Let work in the background end."""
        for _ in range(5):
            await self.house.core.database.read(lambda tx: None)

    async def test_upgrade_needs_level(self) -> None:
        """Who may not set a tombstone may not upgrade, and makes no room (security: S4)."""
        for version in (V10, V12):
            room_id = await self.house.room(version, preset=None, invite=(BOB,))
            await self.house.put(room_id, "m.room.member", {"membership": "join"}, BOB, BOB)
            before = self.house.core.feed.position
            for user_id in (BOB, CAROL):
                with self.assertRaises(Forbidden):
                    await self.house.rooms.upgrades.upgrade(user_id, room_id, V11, [], NOW)
            self.assertEqual(self.house.core.feed.position, before)
        with self.assertRaises(Forbidden):
            await self.house.rooms.upgrades.upgrade(ALICE, AWAY, V11, [], NOW)

    async def test_upgrade_stringy_levels(self) -> None:
        """Levels of an old room that newer versions do not allow are made integers (security: S4)."""
        room_id = await self.house.room(ROOM_VERSIONS["9"])
        levels = {"users": {ALICE: "100"}, "ban": "60", "events": {"m.room.name": " 5"}, "kick": "x"}
        await self.house.put(room_id, "m.room.power_levels", levels)
        new = await self.house.rooms.upgrades.upgrade(ALICE, room_id, V11, [], NOW)
        found = await self.house.content(new, "m.room.power_levels")
        self.assertEqual((found["users"], found["ban"]), ({ALICE: 100}, 60))
        self.assertEqual(found["events"], {"m.room.name": 5})


class SqliteNamesTests(NamesTests, SqliteCase):
    """On SQLite."""


class PostgresNamesTests(NamesTests, PostgresCase):
    """On PostgreSQL."""
