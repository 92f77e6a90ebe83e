"""Typing, receipts and presence: who may tell what of whom, and what is bounded."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, gatherResults

from homeserver.ephemeral.presence import IDLE_MS, SILENCE_MS
from homeserver.ephemeral.receipts import READ, READ_PRIVATE, Mark
from homeserver.ephemeral.ring import OFFLINE, ONLINE, UNAVAILABLE, merge
from homeserver.ephemeral.typing import MAX_TYPING_MS, MAX_USERS
from homeserver.sync.filters import compile_filter
from protocol.errors import Forbidden, InvalidParam, MatrixError, NotFound
from protocol.identifiers import DeviceID, EventID, RoomID, ServerName, UserID
from protocol.room_versions import V11
from storage.feed import Kind, tail
from tests.homeserver.ephemeral.helpers import OTHER, PHONE, STRANGER, ZOE, Place, start_place
from tests.homeserver.events.helpers import ALICE, BOB, NOW, beginning, membership, message
from tests.storage.helpers import PostgresCase, SqliteCase

THIRD = ServerName("third.test")
DESK = DeviceID("DESK")
CAROL = UserID("@carol:plait.test")


class PassingCase(SqliteCase):
    """A room with three members."""

    place: Place

    async def setUp(self) -> None:
        """Start the services."""
        await super().setUp()
        self.place = await start_place(self.database)
        self.ring = self.place.passing.ring


class TypingTest(PassingCase):
    """`TypingUsers`."""

    def _typing(self) -> set[UserID]:
        return set(self.ring.typing_in(self.place.room_nid))

    async def test_local(self) -> None:
        """A member types, is told of to other servers once, and stops by himself (security: D8)."""
        typing = self.place.passing.typing
        for _ in range(3):
            await typing.set_local(ALICE, self.place.room_nid, 10**9)
        self.assertEqual(self._typing(), {ALICE})
        self.assertEqual([edu[:2] for edu in self.place.world.edus], [(frozenset({OTHER}), "m.typing")])
        position = self.ring.position
        self.place.time.pump([1] * (MAX_TYPING_MS // 1000 + 2))
        self.assertEqual(self._typing(), set())
        self.assertEqual(self.ring.position, position + 1)
        self.assertFalse(self.place.world.edus[-1][2]["typing"])
        self.assertEqual(self.place.time.getDelayedCalls(), [])

    async def test_gone(self) -> None:
        """Who leaves the room, or is banned, types in it no more, whoever it is."""
        events, room_id, typing = self.place.core.events, self.place.room_id, self.place.passing.typing
        await typing.set_local(ALICE, self.place.room_nid, 30_000)
        await typing.set_local(BOB, self.place.room_nid, 30_000)
        await self.place.take("m.typing", {"room_id": room_id, "user_id": ZOE, "typing": True})
        await events.send(membership(room_id, BOB, "leave"), now=NOW)
        self.assertEqual(self._typing(), {ALICE, ZOE})
        await events.send(membership(room_id, ZOE, "ban", ALICE), now=NOW)
        self.assertEqual(self._typing(), {ALICE})
        position = self.ring.position
        await events.send(membership(room_id, CAROL, "invite", ALICE), now=NOW)
        self.assertEqual((self._typing(), self.ring.position), ({ALICE}, position))
        await typing.set_local(ALICE, self.place.room_nid, None)

    async def test_goes_on(self) -> None:
        """Other servers are told now and then that a user goes on typing, so that they do not forget it."""
        typing, room_nid = self.place.passing.typing, self.place.room_nid
        for _ in range(60):
            await typing.set_local(ALICE, room_nid, 30_000)
            self.place.time.pump([1])
        await typing.set_local(ALICE, room_nid, None)
        told = [edu[2]["typing"] for edu in self.place.world.edus]
        self.assertEqual(told, [True, True, True, False])
        await typing.set_local(ALICE, room_nid, None)
        self.assertEqual(len(self.place.world.edus), 4)

    async def test_remote_goes_on(self) -> None:
        """Another server's user types for a minute if it says no more, since some say so every 40 seconds."""
        await self.place.take("m.typing", {"room_id": self.place.room_id, "user_id": ZOE, "typing": True})
        self.place.time.pump([1] * 45)
        self.assertEqual(self._typing(), {ZOE})
        self.place.time.pump([1] * 20)
        self.assertEqual(self._typing(), set())

    async def test_outsiders(self) -> None:
        """Who is not in the room does not type there (security: F8)."""
        with self.assertRaises(Forbidden):
            await self.place.passing.typing.set_local(CAROL, self.place.room_nid, 1000)
        for origin, user_id in (
            (OTHER, STRANGER),
            (THIRD, ZOE),
            (OTHER, ALICE),
            (THIRD, UserID("@x:third.test")),
        ):
            content = {"room_id": self.place.room_id, "user_id": user_id, "typing": True}
            await self.place.take("m.typing", content, origin)
        self.assertEqual(self._typing(), set())
        await self.place.take("m.typing", {"room_id": self.place.room_id, "user_id": ZOE, "typing": True})
        self.assertEqual(self._typing(), {ZOE})

    async def test_silenced(self) -> None:
        """A server that the room's ACL silences is not heard (security: F8)."""
        self.place.world.silenced = True
        content = {"room_id": self.place.room_id, "user_id": ZOE, "typing": True}
        await self.place.take("m.typing", content)
        self.assertEqual(self._typing(), set())

    async def test_bound(self) -> None:
        """A room shows so many as typing and no more (security: D8)."""
        for number in range(MAX_USERS + 20):
            user_id = UserID(f"@u{number}:plait.test")
            await self.place.core.events.send(membership(self.place.room_id, user_id, "join"), now=NOW)
            await self.place.passing.typing.set_local(user_id, self.place.room_nid, 1000)
        self.assertEqual(len(self._typing()), MAX_USERS)
        self.place.time.pump([1, 1, 1])


class ReceiptsTest(PassingCase):
    """`ReadReceipts`."""

    async def _receipts(self) -> list[tuple[UserID, EventID, str | None]]:
        found = await self.place.passing.receipts.of({self.place.room_nid: None})
        return [(each.user_id, each.event_id, each.thread_id) for each in found.get(self.place.room_nid, ())]

    async def test_forward_alone(self) -> None:
        """A receipt of an older event, as of a second device that lags, changes nothing and is not told."""
        receipts, room_id = self.place.passing.receipts, self.place.room_id
        newer = await self.place.core.events.send(message(room_id, "newer"), now=NOW)
        await receipts.set_local(ALICE, room_id, Mark(READ, newer.event.event_id), NOW)
        await receipts.set_local(ALICE, room_id, Mark(READ, self.place.event_id), NOW + 1)
        self.assertEqual(await self._receipts(), [(ALICE, newer.event.event_id, None)])
        self.assertEqual(len(self.place.world.edus), 1)
        await receipts.set_local(ALICE, room_id, Mark(READ, self.place.event_id, "main"), NOW + 2)
        self.assertEqual(len(await self._receipts()), 2)

    async def test_forward_alone_at_the_same_time(self) -> None:
        """Of two receipts at once the further one stands, though the other looked first and writes last."""
        receipts, room_id = self.place.passing.receipts, self.place.room_id
        newer = await self.place.core.events.send(message(room_id, "newer"), now=NOW)
        commit, held = receipts.persister.commit, Deferred[None]()

        async def slow(write: Any) -> Any:
            self.patch(receipts.persister, "commit", commit)
            await held
            return await commit(write)

        self.patch(receipts.persister, "commit", slow)
        marks = [Mark(READ, event_id) for event_id in (self.place.event_id, newer.event.event_id)]
        setting = [Deferred.fromCoroutine(receipts.set_local(ALICE, room_id, mark, NOW)) for mark in marks]
        await receipts.database.read(tail)  # time for both
        await receipts.set_local(BOB, room_id, marks[0], NOW)
        held.callback(None)
        await gatherResults(setting)
        self.assertIn((ALICE, newer.event.event_id, None), await self._receipts())

    async def test_local(self) -> None:
        """A receipt is kept, told to other servers unless private, and the same again says nothing."""
        receipts, room_id = self.place.passing.receipts, self.place.room_id
        mark = Mark(READ, self.place.event_id)
        await receipts.set_local(ALICE, room_id, mark, NOW)
        before = self.place.core.feed.position
        await receipts.set_local(ALICE, room_id, mark, NOW + 1)
        self.assertEqual(self.place.core.feed.position, before)
        await receipts.set_local(BOB, room_id, Mark(READ_PRIVATE, self.place.event_id), NOW)
        self.assertEqual(len(await self._receipts()), 2)
        ((servers, edu_type, content),) = self.place.world.edus
        self.assertEqual((servers, edu_type), ({OTHER}, "m.receipt"))
        self.assertEqual(content[room_id][READ][ALICE]["event_ids"], [self.place.event_id])

    async def test_refuse(self) -> None:
        """Receipts are for members, events of the room, and kinds that exist."""
        receipts, room_id, good = self.place.passing.receipts, self.place.room_id, self.place.event_id
        for error, user_id, mark, where in (
            (Forbidden, CAROL, Mark(READ, good), room_id),
            (Forbidden, ALICE, Mark(READ, good), RoomID("!no:plait.test")),
            (NotFound, ALICE, Mark(READ, EventID("$other")), room_id),
            (InvalidParam, ALICE, Mark("m.other", good), room_id),
            (InvalidParam, ALICE, Mark(READ, good, ""), room_id),
        ):
            with self.assertRaises(error):
                await receipts.set_local(user_id, where, mark, NOW)

    async def test_threads(self) -> None:
        """A receipt of a thread is of an event in it, of its root, or of one that relates to the root."""
        receipts, room_id, root = self.place.passing.receipts, self.place.room_id, self.place.event_id
        ids = {"root": root}
        for name, rel_type, parent in (
            ("reply", "m.thread", "root"),
            ("edit", "m.replace", "root"),
            ("reaction", "m.annotation", "reply"),
            ("other", "m.thread", "edit"),
        ):
            draft = message(room_id, name)
            relates = {"m.relates_to": {"rel_type": rel_type, "event_id": ids[parent]}}
            sent = await self.place.core.events.send(evolve(draft, content=draft.content | relates), now=NOW)
            ids[name] = sent.event.event_id
        for name in ("root", "edit", "reply", "reaction"):
            await receipts.set_local(BOB, room_id, Mark(READ, ids[name], root), NOW)
        for name in ("root", "edit"):
            await receipts.set_local(BOB, room_id, Mark(READ, ids[name], "main"), NOW)
        for name, thread in (("other", root), ("reply", "main"), ("root", ids["reply"]), ("root", "$none")):
            with self.assertRaises(InvalidParam):
                await receipts.set_local(BOB, room_id, Mark(READ, ids[name], thread), NOW)

    async def test_remote(self) -> None:
        """Of an EDU with foreign and malformed receipts only the good land (security: F8)."""
        good = {"event_ids": [self.place.event_id], "data": {"ts": 5, "thread_id": "main"}}
        users = {
            ZOE: good,
            ALICE: good,
            STRANGER: good,
            "@x:third.test": good,
            "nonsense": good,
            "@a:other.test": {"event_ids": []},
            "@b:other.test": {"event_ids": [3]},
            "@c:other.test": {**good, "data": {"ts": 2**80}},
            "@d:other.test": {**good, "data": {"thread_id": "x" * 300}},
            "@e:other.test": None,
        }
        rooms: dict[str, Any] = {
            "!no\0room": {READ: users},
            "!unknown:other.test": {READ: users},
            "nonsense": {READ: users},
            self.place.room_id: {READ: users, "m.read.private": {ZOE: good}, "x": 3},
        }
        await self.place.take("m.receipt", rooms)
        await self.place.take("m.receipt", {self.place.room_id: []})
        self.assertEqual(await self._receipts(), [(ZOE, self.place.event_id, "main")])

    async def test_same_event(self) -> None:
        """A flood of one receipt writes one (security: D8)."""
        content = {self.place.room_id: {READ: {ZOE: {"event_ids": [self.place.event_id]}}}}
        before = self.place.core.feed.position
        for _ in range(20):
            await self.place.take("m.receipt", content)
        self.assertEqual(await self.place.entries(Kind.RECEIPT, before), 1)


class PresenceTest(PassingCase):
    """`Presences`."""

    async def _settle(self) -> None:
        for _ in range(10):
            await self.place.core.database.read(lambda tx: tx.one("SELECT 1", ()))

    async def test_merge(self) -> None:
        """A user is as present as the most present device."""
        self.assertEqual(merge([OFFLINE, UNAVAILABLE, ONLINE]), ONLINE)
        self.assertEqual(merge([OFFLINE, UNAVAILABLE]), UNAVAILABLE)
        self.assertEqual(merge([]), OFFLINE)

    async def test_local(self) -> None:
        """A device that syncs makes its user present, and one that falls silent goes away."""
        presences = self.place.passing.presences
        presences.heard(ALICE, PHONE)
        presences.heard(ALICE, DESK, UNAVAILABLE)
        for _ in range(100):
            if not self.place.world.edus:
                await self._settle()
        self.assertEqual(presences.get(ALICE).presence, ONLINE)
        self.assertEqual(self.place.world.edus[0][:2], (frozenset({OTHER}), "m.presence"))
        presences.gone(ALICE, PHONE)
        await self._settle()
        self.assertEqual(presences.get(ALICE).presence, UNAVAILABLE)
        self.place.time.pump([1] * (SILENCE_MS // 500 + 2))
        await self._settle()
        self.assertEqual(presences.get(ALICE).presence, OFFLINE)
        self.assertEqual(self.place.time.getDelayedCalls(), [])

    async def test_servers_hear_the_latest_last(self) -> None:
        """Of two changes right after each other the later is what other servers know in the end."""
        presences = self.place.passing.presences
        presences.heard(ALICE, PHONE)
        await self._settle()
        sharing, late = presences.sharing, Deferred[None]()
        database = sharing.database

        class Slow:
            async def read(self, work: Any, *args: Any) -> Any:
                sharing.database = database
                found = await database.read(work, *args)
                await late
                return found

        slow: Any = Slow()
        sharing.database = slow
        presences.set_local(ALICE, PHONE, UNAVAILABLE, None)
        presences.set_local(ALICE, PHONE, ONLINE, "back")
        await self._settle()
        late.callback(None)
        await self._settle()
        self.assertEqual(self.place.world.edus[-1][2]["push"][0]["presence"], ONLINE)

    async def test_a_join_hides_nobody(self) -> None:
        """Who joins another room right after they became present is seen all the same."""
        self.place.passing.presences.heard(BOB, PHONE)
        await self._settle()
        room_id = RoomID("!second:plait.test")
        await self.place.core.rooms.create(V11, beginning(room_id, V11, BOB), now=NOW)
        for after in (None, 0):
            self.assertEqual(len(await self.ring.presence(await self.place.session(), after)), 1)

    async def test_heard_again_and_again(self) -> None:
        """A device that goes on syncing stays; its last activity is told anew now and then."""
        presences = self.place.passing.presences
        presences.heard(ALICE, PHONE)
        await self._settle()
        positions = set()
        for _ in range(20):
            self.place.time.pump([1] * (SILENCE_MS // 2000))
            presences.heard(ALICE, PHONE)
            await self._settle()
            self.assertEqual(presences.get(ALICE).presence, ONLINE)
            positions.add(self.ring.position)
        self.assertEqual(len(positions), 1 + 20 * SILENCE_MS // 2 // (IDLE_MS + SILENCE_MS // 2))

    async def test_repeated(self) -> None:
        """Other servers hear of a user who stays before they take her for gone; no more of one who left."""
        presences = self.place.passing.presences
        told = []
        for minute in range(60):
            presences.heard(ALICE, PHONE)
            self.place.time.pump([30, 30])
            await self._settle()
            told += [(minute, edu[2]["push"][0]["presence"]) for edu in self.place.world.edus]
            self.place.world.edus.clear()
        self.assertEqual([state for _, state in told], [ONLINE] * 3)
        self.assertLess(max(after[0] - before[0] for before, after in pairwise(told)), 28)
        presences.gone(ALICE, PHONE)
        await self._settle()
        self.place.world.edus.clear()
        self.place.time.pump([30] * 120)
        await self._settle()
        self.assertEqual(self.place.world.edus, [])
        self.assertEqual(self.place.time.getDelayedCalls(), [])

    async def test_silent_servers(self) -> None:
        """Users of whom their server says nothing for half an hour are gone; it may say the same again."""
        presences = self.place.passing.presences
        push = {"push": [{"user_id": ZOE, "presence": ONLINE, "status_msg": "here"}]}
        for _ in range(3):
            await self.place.take("m.presence", push)
            self.place.time.pump([30] * 40)
            await self._settle()
            self.assertEqual(presences.get(ZOE).presence, ONLINE)
        self.place.time.pump([30] * 24)
        await self._settle()
        self.assertEqual((presences.get(ZOE).presence, presences.get(ZOE).status_msg), (OFFLINE, "here"))
        self.assertEqual(self.place.time.getDelayedCalls(), [])

    async def test_gone_at_once(self) -> None:
        """A device that comes and goes leaves nobody online; a burst is told once (security: D8)."""
        for _ in range(50):
            self.place.passing.presences.heard(ALICE, PHONE)
            self.place.passing.presences.gone(ALICE, PHONE)
        await self._settle()
        self.assertEqual(self.place.passing.presences.get(ALICE).presence, OFFLINE)
        self.assertEqual(len(self.place.world.edus), 1)

    async def test_unchanged(self) -> None:
        """A device that goes on syncing tells nobody anything (security: D8)."""
        for _ in range(100):
            self.place.passing.presences.heard(ALICE, PHONE)
            await self._settle()
        self.assertEqual(len(self.place.world.edus), 1)

    async def test_refuse(self) -> None:
        """Presences that do not exist and messages that are too long are refused."""
        presences = self.place.passing.presences
        for presence, status in (("away", None), (ONLINE, "x" * 2000)):
            with self.assertRaises(InvalidParam):
                presences.set_local(ALICE, PHONE, presence, status)

    async def test_remote(self) -> None:
        """A server tells of its own users, and of those only whom rooms here know (security: F8, D8)."""
        state = {"presence": ONLINE, "last_active_ago": 5}
        users = (ZOE, ALICE, STRANGER, "@x:third.test", "nonsense", 3)
        push: list[Any] = [{"user_id": user, **state} for user in users]
        push += [{"user_id": ZOE}, None, {"user_id": ZOE, "presence": "x"}]
        await self.place.take("m.presence", {"push": push})
        await self._settle()
        for user in (ALICE, STRANGER, UserID("@x:third.test")):
            self.assertIsNone(self.ring.presence_of(user))
        self.assertEqual(self.place.passing.presences.get(ZOE).presence, ONLINE)
        self.assertEqual(await self.place.core.nids.known_users([STRANGER]), {})

    async def test_who_sees(self) -> None:
        """Presence is shown to those who share a room, and to the user (security: F8)."""
        await self.place.take("m.presence", {"push": [{"user_id": ZOE, "presence": ONLINE}]})
        await self._settle()
        self.assertEqual(len(await self.ring.presence(await self.place.session(ALICE), None)), 1)
        self.assertEqual(await self.ring.presence(await self.place.session(CAROL), None), [])

    async def test_filter(self) -> None:
        """Presence is left out by type and by sender."""
        await self.place.take("m.presence", {"push": [{"user_id": ZOE, "presence": ONLINE}]})
        await self._settle()
        alice = await self.place.session(ALICE)
        for body, shown in (
            ({"senders": [ZOE]}, 1),
            ({"types": ["m.pres*"], "not_senders": [ALICE]}, 1),
            ({"not_senders": [ZOE]}, 0),
            ({"senders": [ALICE]}, 0),
            ({"not_types": ["*"]}, 0),
            ({"types": ["m.typing"]}, 0),
            ({"types": []}, 0),
        ):
            wanted = compile_filter(json.dumps({"presence": body})).presence
            self.assertEqual(len(await self.ring.presence(alice, None, wanted)), shown, body)


class NonsenseTests:
    """EDUs of any content."""

    place: Place
    database: Any

    async def setUp(self) -> None:
        """Start the services."""
        await super().setUp()  # type: ignore[misc]
        self.place = await start_place(self.database)

    async def test_nonsense(self) -> None:
        """No content of an EDU raises anything but a refusal (security: F8, F16)."""
        inner = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=6)
        value = st.recursive(
            inner, lambda each: st.lists(each, max_size=2) | st.dictionaries(st.text(max_size=6), each)
        )
        names = ("room_id", "user_id", "typing", "push", "sender", "type", "message_id", "messages")
        keys = st.sampled_from((*names, self.place.room_id, "m.read", ZOE, "!a\0:b"))
        samples: list[dict[str, Any]] = []

        @settings(max_examples=40, deadline=None, database=None)
        @given(st.dictionaries(keys, value | st.sampled_from((ZOE, self.place.room_id)), max_size=5))
        def collect(content: dict[str, Any]) -> None:
            samples.append(content)

        collect()
        for content in samples:
            for edu_type in self.place.passing.incoming.handlers():
                try:
                    await self.place.take(edu_type, content)
                except MatrixError:
                    continue


class SqliteNonsenseTests(NonsenseTests, SqliteCase):
    """On SQLite."""


class PostgresNonsenseTests(NonsenseTests, PostgresCase):
    """On PostgreSQL."""
