"""Messages from device to device: delivered, repeated, dropped."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, gatherResults

from homeserver.devices import to_device as to_device_module
from protocol.canonical_json import decode, decode_own, encode
from protocol.errors import BadJson, TooLarge
from protocol.identifiers import DeviceID, ServerName, UserID
from storage import to_device
from storage.feed import Kind
from storage.transactions import TransactionKey
from tests.homeserver.ephemeral.helpers import OTHER, PHONE, STRANGER, ZOE, Place, start_place
from tests.homeserver.events.helpers import ALICE, BOB, NOW
from tests.storage.helpers import LateDatabase, PostgresCase, SqliteCase

DESK = DeviceID("DESK")


class ToDeviceTests:
    """`ToDeviceMessages`."""

    place: Place
    database: Any
    assertEqual: Any
    assertIsNone: Any
    assertRaises: Any
    assertLess: Any

    async def _start(self) -> None:
        self.place = await start_place(self.database)
        self.post = self.place.passing.to_device

    async def _send(self, messages: Any, number: str = "1", event_type: str = "m.x") -> None:
        key = TransactionKey(await self.place.core.nids.user(ALICE), PHONE, number)
        await self.post.send(ALICE, event_type, messages, key, NOW)

    async def _waiting(self, device_id: DeviceID, user_id: UserID = BOB, limit: int = 100) -> list[Any]:
        page = await self.post.after(await self.place.session(user_id, device_id), 0, limit)
        return [] if page is None else [decode_own(each)["content"] for each in page.events]

    async def test_deliver(self) -> None:
        """A message reaches the devices named, all for `*`, and goes when the device has it."""
        await self._start()
        self.assertEqual(await self._waiting(PHONE), [])
        await self._send({BOB: {PHONE: {"n": 1}, "GONE": {"n": 0}}}, "1")
        await self._send({BOB: {"*": {"n": 2}, DESK: {"n": 3}}}, "2")
        self.assertEqual(await self._waiting(PHONE), [{"n": 1}, {"n": 2}])
        self.assertEqual(await self._waiting(DESK), [{"n": 3}])
        session = await self.place.session(BOB, PHONE)
        page = await self.post.after(session, 0, 1)
        assert page is not None
        await self.post.delete(session, page.last)
        self.assertEqual(await self._waiting(PHONE), [{"n": 2}])
        rest = await self.post.after(session, page.last, 10)
        assert rest is not None
        await self.post.delete(session, rest.last)
        self.assertIsNone(await self.post.after(session, rest.last, 10))
        await self._send({BOB: {PHONE: {"n": 4}}}, "3")
        self.assertEqual(await self._waiting(PHONE), [{"n": 4}])

    async def test_what_comes_while_one_looks_is_not_overlooked(self) -> None:
        """A message of which the feed tells before an older look at the database is answered is there."""
        await self._start()
        self.post.database = LateDatabase(self.database, lambda: self._send({BOB: {PHONE: {"n": 1}}}))
        self.assertEqual(await self._waiting(PHONE), [])
        self.assertEqual(await self._waiting(PHONE), [{"n": 1}])

    async def test_repeat(self) -> None:
        """A transaction that is repeated sends nothing again."""
        await self._start()
        for _ in range(3):
            await self._send({BOB: {PHONE: {"n": 1}}, ZOE: {"*": {}}})
        self.assertEqual(await self._waiting(PHONE), [{"n": 1}])

    async def test_repeat_at_once(self) -> None:
        """A request repeated while the first is under way sends nothing more, now and later."""
        await self._start()
        sent = [Deferred.fromCoroutine(self._send({BOB: {PHONE: {"n": n}}}, str(n))) for n in (1, *[2] * 8)]
        await gatherResults(sent)
        await self._send({BOB: {PHONE: {"n": 2}}}, "2")
        self.assertEqual(sorted(each["n"] for each in await self._waiting(PHONE)), [1, 2])

    async def test_elsewhere(self) -> None:
        """Messages to users of other servers are queued in the commit, one EDU a server."""
        await self._start()
        before = self.place.core.feed.position
        await self._send({ZOE: {"*": {}}, STRANGER: {"*": {}}, UserID("@x:third.test"): {"*": {}}})
        self.assertEqual(await self.place.entries(Kind.OUTBOUND_EDU, before), 2)

    async def _queued(self) -> list[bytes]:
        """Give the EDUs that wait for other servers, in order."""
        rows = await self.database.read(lambda tx: tx.all("SELECT edu FROM outbound_edus ORDER BY edu_nid"))
        return [bytes(row[0]) for row in rows]

    async def test_canonical(self) -> None:
        """What goes to another server is canonical JSON, for so it is signed; floats are refused."""
        await self._start()
        await self._send({ZOE: {"*": {"b": 1, "a": {"z": 1, "y": 2}}}})
        (edu,) = await self._queued()
        self.assertEqual(edu, encode(decode(edu)))
        with self.assertRaises(BadJson):
            await self._send({ZOE: {"*": {"x": 1.5}}}, "2")

    async def test_many(self) -> None:
        """Many messages to one server go as several EDUs, none over the limit, each message once."""
        await self._start()
        wanted = {
            UserID(f"@z{user}:other.test"): {f"D{n}": {"n": n, "x": "y" * 1_500} for n in range(50)}
            for user in range(4)
        }
        await self._send(wanted)
        found: dict[str, dict[str, Any]] = {}
        for raw in await self._queued():
            self.assertLess(len(raw), to_device_module.MAX_MESSAGE_BYTES + 1)
            content = decode_own(raw)["content"]
            for user_id, by_device in content["messages"].items():
                for device_id, message in by_device.items():
                    self.assertIsNone(found.setdefault(user_id, {}).get(device_id))
                    found[user_id][device_id] = message
        self.assertEqual(found, wanted)
        self.assertLess(len(await self._queued()), 7)

    async def test_large(self) -> None:
        """A message that is too large is refused, to users here and elsewhere (security: E7)."""
        await self._start()
        for user_id in (BOB, ZOE):
            with self.assertRaises(TooLarge):
                await self._send({user_id: {PHONE: {"x": "y" * 10_000_000}}})
        self.assertEqual(await self._waiting(PHONE), [])

    async def test_bound(self) -> None:
        """A device that never fetches keeps the newest of what came (security: E7)."""
        await self._start()
        self.post.max_waiting = 10
        for number in range(40):
            await self._send({BOB: {PHONE: {"n": number}}}, str(number))
            nid = await self.place.core.nids.user(BOB)
            count = await self.database.read(to_device.count, nid, PHONE)
            self.assertLess(count, 11)
        self.assertEqual((await self._waiting(PHONE))[-1], {"n": 39})

    def _edu(self, **changes: Any) -> dict[str, Any]:
        messages = {BOB: {PHONE: {"n": 1}}}
        return {"sender": ZOE, "type": "m.x", "message_id": "id", "messages": messages, **changes}

    async def test_receive(self) -> None:
        """Another server's message comes once, and only from users of that server (security: F8)."""
        await self._start()
        for _ in range(2):
            await self.place.take("m.direct_to_device", self._edu())
        await self.place.take("m.direct_to_device", self._edu(message_id="2"), ServerName("third.test"))
        await self.place.take("m.direct_to_device", self._edu(message_id="3", sender=ALICE))
        self.assertEqual(await self._waiting(PHONE), [{"n": 1}])
        await self.place.take("m.direct_to_device", self._edu(message_id="a\0b"))
        self.assertEqual(len(await self._waiting(PHONE)), 2)
        some = {"nobody": {PHONE: {"n": 2}}, BOB: {PHONE: {"n": 3}}}
        await self.place.take("m.direct_to_device", self._edu(message_id="4", messages=some))
        self.assertEqual((await self._waiting(PHONE))[-1], {"n": 3})

    async def test_no_trace(self) -> None:
        """Messages to users who do not exist leave nothing behind (security: E7)."""
        await self._start()
        nobody = UserID("@nobody:plait.test")
        before = self.place.core.feed.position
        content = self._edu(messages={nobody: {"*": {}}, ZOE: {"*": {}}})
        await self.place.take("m.direct_to_device", content, OTHER)
        self.assertEqual(self.place.core.feed.position, before)
        self.assertEqual(await self.place.core.nids.known_users([nobody]), {})


class SqliteToDeviceTests(ToDeviceTests, SqliteCase):
    """On SQLite."""


class PostgresToDeviceTests(ToDeviceTests, PostgresCase):
    """On PostgreSQL."""
