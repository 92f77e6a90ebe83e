"""Annotations that are there already."""

from __future__ import annotations

from twisted.internet.defer import Deferred, DeferredList, gatherResults

from protocol.errors import DuplicateAnnotation
from protocol.events import Event, EventDraft
from protocol.identifiers import EventID, RoomID, UserID
from storage.transactions import TransactionKey
from tests.homeserver.events.helpers import ALICE, BOB, NOW
from tests.homeserver.rooms.helpers import House, start_house
from tests.storage.helpers import SqliteCase


class AnnotationsTest(SqliteCase):
    """`Annotations`, as `Messages` asks them."""

    house: House
    room_id: RoomID
    target: EventID

    async def setUp(self) -> None:
        """Start the services, with a message in a room."""
        await super().setUp()
        self.house = await start_house(self.database)
        self.room_id = await self.house.room(invite=(BOB,))
        await self.house.put(self.room_id, "m.room.member", {"membership": "join"}, BOB, BOB)
        self.target = (await self._send("m.room.message", {"body": "x"}, "m")).event_id

    async def _send(
        self, kind: str, content: dict[str, object], txn_id: str, sender: UserID = ALICE
    ) -> Event:
        user_nid = await self.house.core.nids.user(sender)
        txn = TransactionKey.of(user_nid, "PHONE", ("send", self.room_id, kind), txn_id)
        draft = EventDraft(self.room_id, kind, sender, content)
        stored = await self.house.rooms.messages.send(draft, txn, NOW)
        return stored.event

    async def _react(
        self, key: str, txn_id: str, sender: UserID = ALICE, kind: str = "m.reaction"
    ) -> EventID:
        relation = {"rel_type": "m.annotation", "event_id": self.target, "key": key}
        return (await self._send(kind, {"m.relates_to": relation}, txn_id, sender)).event_id

    async def test_the_same_twice(self) -> None:
        """The same key by the same user is refused; other keys, types and users are not, nor a repeat."""
        first = await self._react("👍", "1")
        self.assertEqual(await self._react("👍", "1"), first)
        with self.assertRaises(DuplicateAnnotation):
            await self._react("👍", "2")
        await self._react("👎", "3")
        await self._react("👍", "4", kind="org.example.reaction")
        await self._react("👍", "5", BOB)

    async def test_twice_at_a_time(self) -> None:
        """Of two at a time one is refused; a request that is repeated at a time is one."""
        asked = [Deferred.fromCoroutine(self._react("👍", str(number))) for number in range(3)]
        results = await DeferredList(asked, consumeErrors=True)
        self.assertEqual([done for done, _ in results], [True, False, False])
        again = [Deferred.fromCoroutine(self._react("👎", "again")) for _ in range(3)]
        self.assertEqual(len(set(await gatherResults(again))), 1)

    async def test_again_after_a_redaction(self) -> None:
        """An annotation that was taken back may be made again."""
        first = await self._react("👍", "1")
        await self._send("m.room.redaction", {"redacts": first}, "2")
        self.assertNotEqual(await self._react("👍", "3"), first)
