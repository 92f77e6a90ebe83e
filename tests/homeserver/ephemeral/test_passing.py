"""Typing and receipts: who may tell what of whom, and what is bounded."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, gatherResults

from homeserver.ephemeral.receipts import READ, READ_PRIVATE, Mark
from homeserver.ephemeral.typing import MAX_TYPING_MS, MAX_USERS
from protocol.errors import Forbidden, InvalidParam, MatrixError, NotFound
from protocol.identifiers import EventID, RoomID, ServerName, UserID
from storage.feed import Kind, tail
from tests.homeserver.ephemeral.helpers import OTHER, STRANGER, ZOE, Place, start_place
from tests.homeserver.ephemeral.passing import CAROL, PassingCase
from tests.homeserver.events.helpers import ALICE, BOB, NOW, membership, message
from tests.storage.helpers import PostgresCase, SqliteCase

THIRD = ServerName("third.test")


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
