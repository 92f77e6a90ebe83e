"""Joining, leaving, kicking, banning, knocking, inviting, forgetting, here and through others."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred, DeferredList, gatherResults

from homeserver.events.write import Write
from homeserver.rooms.inviting import head_of, stripped_state
from homeserver.rooms.membership import Target
from protocol.canonical_json import dumps
from protocol.errors import BadState, Forbidden, InvalidParam, NotFound
from protocol.identifiers import RoomID, ServerName, UserID
from protocol.room_versions import ROOM_VERSIONS, V11, V12
from storage.database import Transaction
from storage.memberships import PUT_MEMBERSHIP, Membership
from storage.stripped_states import stripped_rows
from tests.homeserver.events.helpers import ALICE, BOB, NOW
from tests.homeserver.rooms.helpers import CAROL, OTHER, ZOE, House, start_house
from tests.storage.helpers import PostgresCase, SqliteCase

AWAY = RoomID("!away:other.test")


class MembershipTests:
    """`Memberships`, `Inviting` and `Forgetting`."""

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
        self.act = self.house.rooms.memberships

    async def _membership(self, room_id: RoomID, user_id: UserID) -> object:
        return (await self.house.content(room_id, "m.room.member", user_id)).get("membership")

    async def _public(self) -> RoomID:
        room_id = await self.house.room()
        await self.house.put(room_id, "m.room.join_rules", {"join_rule": "public"})
        return room_id

    async def _join(self, room_id: RoomID, user_id: UserID) -> None:
        await self.act.join(user_id, Target(room_id), {}, NOW)

    async def test_join_and_leave(self) -> None:
        """A public room is joined and left; again is fine and says nothing new."""
        room_id = await self._public()
        await self._join(room_id, BOB)
        before = self.house.core.feed.position
        await self._join(room_id, BOB)
        self.assertEqual(self.house.core.feed.position, before)
        await self.act.leave(BOB, room_id, {"reason": "tea"}, NOW)
        content = await self.house.content(room_id, "m.room.member", BOB)
        self.assertEqual(content, {"membership": "leave", "reason": "tea"})
        await self.act.leave(BOB, room_id, {}, NOW)
        with self.assertRaises(NotFound):
            await self.act.leave(CAROL, room_id, {}, NOW)

    async def test_at_a_time(self) -> None:
        """Who joins or leaves several times at a time does so once, and is refused nothing."""
        room_id = await self._public()
        before = self.house.core.feed.position
        await gatherResults([Deferred.fromCoroutine(self._join(room_id, BOB)) for _ in range(4)])
        self.assertEqual(self.house.core.feed.position, before + 1)
        leaving = [self.act.leave(BOB, room_id, {}, NOW) for _ in range(4)]
        await gatherResults([Deferred.fromCoroutine(one) for one in leaving])
        self.assertEqual(self.house.core.feed.position, before + 2)

    async def test_a_kick_lifts_no_ban(self) -> None:
        """Of a ban and a kick at the same time the ban stands: the kick finds nobody to remove."""
        room_id = await self._public()
        await self._join(room_id, BOB)
        acting = [act(ALICE, room_id, BOB, {}, NOW) for act in (self.act.ban, self.act.kick)]
        await DeferredList([Deferred.fromCoroutine(each) for each in acting], consumeErrors=True)
        self.assertEqual(await self._membership(room_id, BOB), "ban")

    async def test_a_new_profile_brings_nobody_back(self) -> None:
        """Who leaves while a room is told of their new name has left."""
        room_id = await self._public()
        await self._join(room_id, BOB)
        act, database, leaving = self.act, self.database, list[Deferred[None]]()

        class Fields:
            async def member_fields(self, user_id: UserID) -> dict[str, str]:
                leaving.append(Deferred.fromCoroutine(act.leave(user_id, room_id, {}, NOW)))
                for _ in range(20):
                    await database.read(lambda tx: tx.one("SELECT 1"))
                return {"displayname": "Robert"}

        played: Any = Fields()
        await evolve(act, profiles=played).refresh_profile(BOB, room_id, NOW)
        await leaving[0]
        self.assertEqual(await self._membership(room_id, BOB), "leave")

    async def test_extra_cannot_choose_membership(self) -> None:
        """What a client adds to a member event does not change which membership it is."""
        room_id = await self._public()
        await self.act.join(BOB, Target(room_id), {"membership": "ban", "displayname": "x"}, NOW)
        self.assertEqual(await self._membership(room_id, BOB), "join")

    async def test_invite(self) -> None:
        """A private room takes those who are invited, by members with the level for it (security: S3)."""
        room_id = await self.house.room()
        with self.assertRaises(Forbidden):
            await self._join(room_id, BOB)
        with self.assertRaises(Forbidden):
            await self.house.rooms.inviting.invite(room_id, BOB, CAROL, {}, NOW)
        await self.house.rooms.inviting.invite(room_id, ALICE, BOB, {"membership": "ban"}, NOW)
        self.assertEqual(await self._membership(room_id, BOB), "invite")
        await self._join(room_id, BOB)
        self.house.accounts.users = (ALICE, BOB)
        with self.assertRaises(NotFound):
            await self.house.rooms.inviting.invite(room_id, ALICE, CAROL, {}, NOW)

    async def test_invite_elsewhere(self) -> None:
        """An invite that the other server refuses has no place in the room."""
        room_id = await self.house.room(name="secret plans")
        self.house.world.refuses = True
        with self.assertRaises(Forbidden):
            await self.house.rooms.inviting.invite(room_id, ALICE, ZOE, {}, NOW)
        self.assertIsNone(await self._membership(room_id, ZOE))

    async def test_stripped_state(self) -> None:
        """Invited users are shown what names the room and who invites, nothing else."""
        room_id = await self.house.room(name="n", initial_state=())
        await self.house.put(room_id, "org.example.secret", {"x": 1})
        head = await head_of(self.house.core.heads, self.house.core.nids, room_id)
        types = {event.type for event in await stripped_state(head, ALICE)}
        self.assertEqual(types, {"m.room.create", "m.room.name", "m.room.join_rules", "m.room.member"})

    async def test_kick_ban_unban(self) -> None:
        """Kicks, bans and their lifting take levels, and a state in which they make sense (security: S4)."""
        room_id = await self._public()
        await self._join(room_id, BOB)
        for action in (self.act.kick, self.act.ban):
            with self.assertRaises(Forbidden):
                await action(BOB, room_id, ALICE, {}, NOW)
        await self.act.kick(ALICE, room_id, BOB, {"reason": "noise"}, NOW)
        self.assertEqual(await self._membership(room_id, BOB), "leave")
        with self.assertRaises(Forbidden):
            await self.act.kick(ALICE, room_id, BOB, {}, NOW)
        with self.assertRaises(BadState):
            await self.act.unban(ALICE, room_id, BOB, {}, NOW)
        await self.act.ban(ALICE, room_id, BOB, {}, NOW)
        with self.assertRaises(Forbidden):
            await self._join(room_id, BOB)
        with self.assertRaises(Forbidden):
            await self.act.leave(BOB, room_id, {}, NOW)
        with self.assertRaises(Forbidden):
            await self.act.kick(ALICE, room_id, BOB, {}, NOW)
        await self.act.unban(ALICE, room_id, BOB, {}, NOW)
        await self._join(room_id, BOB)

    async def test_knock(self) -> None:
        """Rooms that take knocks take them in versions that know knocking (security: S3, S15)."""
        for version in ROOM_VERSIONS.values():
            room_id = await self.house.room(version)
            await self.house.put(room_id, "m.room.join_rules", {"join_rule": "knock"})
            if version.knock:
                await self.act.knock(BOB, Target(room_id), {"reason": "hi"}, NOW)
                self.assertEqual(await self._membership(room_id, BOB), "knock")
            else:
                with self.assertRaises(Forbidden):
                    await self.act.knock(BOB, Target(room_id), {}, NOW)
        with self.assertRaises(Forbidden):
            await self.act.knock(BOB, Target(await self.house.room()), {}, NOW)

    async def test_elsewhere(self) -> None:
        """Rooms that are not here are reached through the servers named, or the room ID's."""
        await self.act.join(BOB, Target(AWAY, (OTHER,)), {}, NOW)
        await self.act.join(BOB, Target(AWAY), {}, NOW)
        await self.act.knock(BOB, Target(AWAY), {}, NOW)
        await self._hold(BOB, AWAY, Membership.KNOCK)
        await self.act.leave(BOB, AWAY, {}, NOW)
        self.assertEqual([asked[0] for asked in self.house.world.asked], ["join", "join", "knock", "leave"])
        self.assertEqual({asked[3] for asked in self.house.world.asked}, {(OTHER,)})
        with self.assertRaises(NotFound):
            await self.act.join(BOB, Target(RoomID("!" + "R" * 43)), {}, NOW)

    async def test_more_servers_than_named(self) -> None:
        """Whatever server a client names, the one that the room's ID or an invite tells of is asked too."""
        dead = ServerName("dead.test")
        await self.act.join(BOB, Target(AWAY, (dead,)), {}, NOW)
        await self.act.knock(BOB, Target(AWAY, (dead, OTHER)), {}, NOW)
        self.assertEqual([asked[3] for asked in self.house.world.asked], [(dead, OTHER)] * 2)

    async def test_knock_without_a_domain(self) -> None:
        """A knock on a room whose ID names no server is taken back through the servers that it showed."""
        room_id = RoomID("!" + "R" * 43)
        await self._hold(BOB, room_id, Membership.KNOCK)
        shown = [
            {"type": "m.room.create", "state_key": "", "sender": ZOE, "content": {}},
            {"type": "m.room.member", "state_key": "@x:third.test", "sender": "@x:third.test", "content": {}},
            {"type": "m.room.member", "state_key": BOB, "sender": BOB, "content": {"membership": "knock"}},
        ]
        nids = self.house.core.nids
        row = stripped_rows((await nids.room(room_id)) or 0, await nids.user(BOB), dumps(shown))
        await self.house.core.persister.commit(Write((row,)))
        await self.act.leave(BOB, room_id, {}, NOW)
        ((_, _, _, via, _),) = self.house.world.asked
        self.assertEqual(via, (OTHER, "third.test"))

    async def test_nothing_to_leave(self) -> None:
        """Of a room elsewhere one can leave what one has to do with: no other server is asked else."""
        for held, refusal in ((None, NotFound), (Membership.BAN, Forbidden), (Membership.LEAVE, None)):
            if held is not None:
                await self._hold(BOB, AWAY, held)
            if refusal is None:
                await self.act.leave(BOB, AWAY, {}, NOW)
            else:
                with self.assertRaises(refusal):
                    await self.act.leave(BOB, AWAY, {}, NOW)
        self.assertEqual(self.house.world.asked, [])
        await self._hold(BOB, AWAY, Membership.INVITE)
        await self.act.leave(BOB, AWAY, {}, NOW)
        self.assertEqual(self.house.world.asked, [("leave", BOB, AWAY, (OTHER,), {"membership": "leave"})])

    async def _hold(self, user_id: UserID, room_id: RoomID, held: Membership) -> None:
        """Let a user have to do with a room of which no more is here."""
        user_nid = await self.house.core.nids.user(user_id)

        def work(tx: Transaction) -> None:
            tx.execute(
                "INSERT INTO rooms (room_nid, room_id, version) VALUES (999, ?, '11') ON CONFLICT DO NOTHING",
                (room_id,),
            )
            PUT_MEMBERSHIP.run(tx, [(999, user_nid, int(held), 1, 1)])

        await self.database.write(work)

    async def test_restricted(self) -> None:
        """A member of an allowed room comes in by the authority of who may invite (security: S15)."""
        for version in (V11, V12):
            inner, outer = await self.house.room(version), await self._public()
            allow = [{"type": "m.room_membership", "room_id": outer}, {"type": "x"}, 3]
            await self.house.put(inner, "m.room.join_rules", {"join_rule": "restricted", "allow": allow})
            with self.assertRaises(Forbidden):
                await self._join(inner, BOB)
            await self._join(outer, BOB)
            await self._join(inner, BOB)
            content = await self.house.content(inner, "m.room.member", BOB)
            self.assertEqual(content["join_authorised_via_users_server"], ALICE)
            await self.act.leave(BOB, inner, {}, NOW)
            left = await self.house.content(inner, "m.room.member", BOB)
            self.assertNotIn("join_authorised_via_users_server", left)

    async def test_authority_lacks_level(self) -> None:
        """Where nobody here may invite, nobody here lets anybody in (security: S15)."""
        inner, outer = await self.house.room(), await self._public()
        allow = [{"type": "m.room_membership", "room_id": outer}]
        await self.house.put(inner, "m.room.join_rules", {"join_rule": "restricted", "allow": allow})
        levels = {"users": {ALICE: 100}, "invite": 100}
        await self.house.put(inner, "m.room.power_levels", levels)
        await self._join(outer, BOB)
        await self._join(inner, BOB)
        await self.act.leave(ALICE, inner, {}, NOW)
        await self._join(outer, CAROL)
        with self.assertRaises(Forbidden):
            await self._join(inner, CAROL)

    async def test_forget(self) -> None:
        """A room is forgotten once it is left, and not before."""
        room_id, forgetting = await self._public(), self.house.rooms.forgetting
        await self._join(room_id, BOB)
        nid = await self.house.core.nids.user(BOB)
        self.assertEqual(await forgetting.joined_rooms(nid), [room_id])
        with self.assertRaises(InvalidParam):
            await forgetting.forget(BOB, room_id)
        await self.act.leave(BOB, room_id, {}, NOW)
        self.assertEqual(await forgetting.joined_rooms(nid), [])
        await forgetting.forget(BOB, room_id)
        with self.assertRaises(NotFound):
            await forgetting.forget(CAROL, room_id)
        with self.assertRaises(NotFound):
            await forgetting.forget(BOB, AWAY)

    async def test_leave_all(self) -> None:
        """A user who goes leaves all rooms and rejects all invites."""
        joined, invited = await self._public(), await self.house.room(invite=(BOB,))
        await self._join(joined, BOB)
        await self.house.rooms.own_members.leave_all(BOB, now=NOW)
        for room_id in (joined, invited):
            self.assertEqual(await self._membership(room_id, BOB), "leave")


class SqliteMembershipTests(MembershipTests, SqliteCase):
    """On SQLite."""


class PostgresMembershipTests(MembershipTests, PostgresCase):
    """On PostgreSQL."""
