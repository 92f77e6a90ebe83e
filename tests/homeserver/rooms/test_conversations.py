"""Private conversations, and sending."""

from __future__ import annotations

from twisted.internet.defer import Deferred, gatherResults

from homeserver.accounts.account_data import AccountData, DirectRooms
from homeserver.accounts.push_rules import DefaultRules
from homeserver.core import Core
from protocol.errors import BadJson, Forbidden, InvalidParam, NotFound
from protocol.events import EventDraft
from protocol.identifiers import EventID, RoomID, UserID
from protocol.room_versions import V1, V11
from storage.engines import open_database
from storage.migrate import migrate
from storage.transactions import TransactionKey
from tests.homeserver.events.helpers import ALICE, BOB, NOW
from tests.homeserver.rooms.helpers import CAROL, ZOE, House, start_house
from tests.storage.helpers import REACTOR, PostgresCase, SqliteCase


class ConversationsTest(SqliteCase):
    """`Conversations`."""

    house: House

    async def setUp(self) -> None:
        """Start the services."""
        await super().setUp()
        self.house = await start_house(self.database)
        self.conversations = self.house.rooms.conversations

    async def test_made_once(self) -> None:
        """Two users have one conversation, whoever asks and however often at once."""
        asking = [
            Deferred.fromCoroutine(self.conversations.with_user(*pair, NOW))
            for pair in ((ALICE, BOB), (BOB, ALICE), (ALICE, BOB))
        ]
        found = set(await gatherResults(asking))
        self.assertEqual(len(found), 1)
        self.assertEqual(self.house.accounts.direct[ALICE], {BOB: list(found)})
        self.assertEqual(self.house.accounts.direct[BOB], {ALICE: list(found)})
        content = await self.house.content(*found, "m.room.member", BOB)
        self.assertEqual(content["membership"], "join")

    async def test_invited_user_answers(self) -> None:
        """Who was invited to a conversation joins it by speaking there."""
        room_id = await self.conversations.with_user(ALICE, BOB, NOW)
        self.assertEqual(await self.conversations.ready(ALICE, BOB), room_id)
        self.assertIsNone(await self.conversations.ready(BOB, ALICE))
        self.assertEqual(await self.conversations.with_user(BOB, ALICE, NOW), room_id)
        self.assertEqual(await self.conversations.ready(BOB, ALICE), room_id)
        content = await self.house.content(room_id, "m.room.member", BOB)
        self.assertEqual(content["membership"], "join")

    async def test_left(self) -> None:
        """A conversation that one has left is not found again."""
        room_id = await self.conversations.with_user(ALICE, BOB, NOW)
        await self.house.rooms.memberships.leave(BOB, room_id, {}, NOW)
        self.assertIsNone(await self.conversations.find(ALICE, BOB))
        self.assertNotEqual(await self.conversations.with_user(ALICE, BOB, NOW), room_id)

    async def test_no_audience(self) -> None:
        """Nobody leads a user's private words into a room of many by naming it."""
        crowd = await self.house.room()
        await self.house.put(crowd, "m.room.join_rules", {"join_rule": "public"})
        for user_id in (BOB, CAROL):
            await self.house.put(crowd, "m.room.member", {"membership": "join"}, user_id, user_id)
        self.house.accounts.direct[BOB] = {ALICE: [crowd]}
        self.assertIsNone(await self.conversations.find(ALICE, BOB))
        pair = await self.house.room()
        for user_id, membership in ((BOB, "invite"), (CAROL, "invite"), (BOB, "join"), (CAROL, "join")):
            sender = ALICE if membership == "invite" else user_id
            await self.house.put(pair, "m.room.member", {"membership": membership}, sender, user_id)
        await self.house.rooms.memberships.leave(ALICE, pair, {}, NOW)
        await self.house.rooms.inviting.invite(pair, BOB, ALICE, {}, NOW)
        self.house.accounts.direct[BOB] = {ALICE: [pair]}
        self.assertIsNone(await self.conversations.find(ALICE, BOB))

    async def test_odd_direct(self) -> None:
        """`m.direct` of any content is read without harm (security: F16)."""
        for value in (3, None, [3, None, {}], ["!nowhere:plait.test", "\0"], "x"):
            self.house.accounts.direct[ALICE] = {BOB: value}
            self.assertIsNone(await self.conversations.find(ALICE, BOB))

    async def test_refuse(self) -> None:
        """There is none with oneself or with nobody."""
        with self.assertRaises(InvalidParam):
            await self.conversations.with_user(ALICE, ALICE, NOW)
        with self.assertRaises(NotFound):
            await self.conversations.with_user(ALICE, UserID("@nobody:plait.test"), NOW)

    async def test_refused_elsewhere(self) -> None:
        """A conversation whose invite fails is an error each time, and one room however often."""
        self.house.world.refuses = True
        for _ in range(3):
            with self.assertRaises(Forbidden):
                await self.conversations.with_user(ALICE, ZOE, NOW)
        (room_id,) = self.house.accounts.direct[ALICE][ZOE]
        self.house.world.refuses = False
        self.assertEqual(await self.conversations.with_user(ALICE, ZOE, NOW), room_id)

    async def test_elsewhere(self) -> None:
        """With a user of another server, this server's user remembers it."""
        room_id = await self.conversations.with_user(ALICE, ZOE, NOW)
        self.assertEqual(self.house.accounts.direct, {ALICE: {ZOE: [room_id]}})


def kept(core: Core) -> DirectRooms:
    """Keep `m.direct` as a server does."""
    data = AccountData(core.database, core.persister, core.nids, DefaultRules())
    return DirectRooms(data, core.nids)


class SeveralWorkersTest(PostgresCase):
    """Two workers on one PostgreSQL, which tell each other nothing."""

    async def _both(self) -> list[House]:
        await migrate(self.database)
        other = await open_database(self.url, REACTOR, pool_size=4)
        self.addCleanup(other.close)
        return [
            await start_house(database, name, kept)
            for database, name in ((self.database, "one"), (other, "two"))
        ]

    async def test_made_once(self) -> None:
        """Many askers of one pair, from both sides through both workers, get one room; another once left."""
        houses = await self._both()
        before: set[RoomID] = set()
        for _ in range(2):
            asking = [
                Deferred.fromCoroutine(house.rooms.conversations.with_user(*pair, NOW))
                for pair in ((ALICE, BOB), (BOB, ALICE)) * 4
                for house in houses
            ]
            found = set(await gatherResults(asking))
            self.assertEqual(len(found), 1)
            self.assertEqual(found & before, set())
            before |= found
            for house in houses:
                await house.core.feed.catch_up()
                direct = kept(house.core)
                self.assertEqual(set((await direct.get(ALICE))[BOB]), before)
                self.assertEqual(set((await direct.get(BOB))[ALICE]), before)
                content = await house.content(*found, "m.room.member", BOB)
                self.assertEqual(content["membership"], "join")
            rooms = await self.database.read(lambda tx: tx.all("SELECT room_id FROM rooms"))
            self.assertEqual({row[0] for row in rooms}, before)
            await houses[0].rooms.memberships.leave(BOB, *found, {}, NOW)
            for house in houses:
                await house.core.feed.catch_up()

    async def test_additions_to_direct_through_both_workers_are_complete(self) -> None:
        """What both workers add to one user's `m.direct` at the same time is all there."""
        keepers = [kept(house.core) for house in await self._both()]
        others = [UserID(f"@user{number}:plait.test") for number in range(20)]
        adding = [
            Deferred.fromCoroutine(keepers[number % 2].add(ALICE, other, RoomID(f"!{number}:plait.test")))
            for number, other in enumerate(others)
        ]
        await gatherResults(adding)
        self.assertEqual(set(await keepers[0].get(ALICE)), set(others))


class MessagesTest(SqliteCase):
    """`Messages`."""

    house: House

    async def setUp(self) -> None:
        """Start the services."""
        await super().setUp()
        self.house = await start_house(self.database)
        self.messages = self.house.rooms.messages

    async def _key(self, number: str) -> TransactionKey:
        nid = await self.house.core.nids.user(ALICE)
        return TransactionKey(nid, "PHONE", number)

    async def test_redaction_by_send(self) -> None:
        """A redaction sent as a message names its target where the room version wants it (security: S7)."""
        for version in (V1, V11):
            room_id = await self.house.room(version)
            target = EventID("$x:plait.test")
            draft = EventDraft(room_id, "m.room.redaction", ALICE, {"redacts": target, "reason": "r"})
            stored = await self.messages.send(draft, await self._key(version.id), NOW)
            self.assertEqual(stored.event.redacts, target)
            self.assertEqual("redacts" in stored.event.content, version.redacts_in_content)
            with self.assertRaises(InvalidParam):
                bad = EventDraft(room_id, "m.room.redaction", ALICE, {"redacts": 3})
                await self.messages.send(bad, await self._key("bad"), NOW)

    async def test_no_second_create(self) -> None:
        """No client sends a create event, as state or as a message (security: S5)."""
        room_id = await self.house.room()
        content = {"room_version": "1", "creator": ALICE}
        with self.assertRaises(Forbidden):
            await self.messages.set_state(EventDraft(room_id, "m.room.create", ALICE, content, ""), NOW)
        with self.assertRaises(Forbidden):
            await self.messages.send(
                EventDraft(room_id, "m.room.create", ALICE, content), await self._key("1"), NOW
            )
        self.assertEqual((await self.house.content(room_id, "m.room.create"))["room_version"], "11")

    async def test_member_needs_membership(self) -> None:
        """A member event without membership is malformed, not refused."""
        room_id = RoomID(await self.house.room())
        for content in ({}, {"membership": None}, {"membership": 3}):
            with self.assertRaises(BadJson):
                await self.messages.set_state(
                    EventDraft(room_id, "m.room.member", ALICE, content, ALICE), NOW
                )
