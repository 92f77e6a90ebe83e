"""Keys of devices: what form they have, who gets them, how often."""

from __future__ import annotations

import json
from typing import Any

from attrs import define
from twisted.internet.defer import Deferred, gatherResults

from homeserver.devices.key_checks import check_device_keys, check_key
from homeserver.devices.keys import MAX_ONE_TIME_KEYS, Upload
from homeserver.events.write import Write
from protocol.errors import BadJson, InvalidParam, MatrixError, NotFound
from protocol.identifiers import DeviceID, UserID
from storage import devices
from storage.database import DatabaseGone
from storage.engines import open_database
from storage.feed import Kind
from storage.rows import run_all
from tests.federation.inbound_helpers import Watched
from tests.homeserver.ephemeral.helpers import OTHER, PHONE, STRANGER, ZOE, Place, second_place, start_place
from tests.homeserver.events.helpers import ALICE, BOB
from tests.storage.helpers import REACTOR, PostgresCase, SqliteCase

SIGNED = "signed_curve25519"
NONSENSE: tuple[Any, ...] = (None, 3, True, "x", [], ["x"], {"x": 3}, {"x": {"y": 3}}, "\0", {"\0": "\0"})


def identity(**changes: Any) -> dict[str, Any]:
    """Make identity keys of Alice's phone."""
    return {
        "user_id": ALICE,
        "device_id": PHONE,
        "algorithms": ["m.olm.v1"],
        "keys": {f"curve25519:{PHONE}": "abc", f"ed25519:{PHONE}": "def"},
        "signatures": {ALICE: {f"ed25519:{PHONE}": "sig"}},
        **changes,
    }


def one_time(*numbers: int, mark: str = "k") -> dict[str, Any]:
    """Make signed one-time keys."""
    return {f"{SIGNED}:{number}": {"key": f"{mark}{number}", "signatures": {}} for number in numbers}


class DeviceKeysTests:
    """`DeviceKeys`."""

    place: Place
    database: Any
    assertEqual: Any
    assertRaises: Any
    assertNotIn: Any
    patch: Any

    async def _start(self) -> None:
        self.place = await start_place(self.database)
        self.keys = self.place.passing.keys

    async def _upload(
        self, one_time: dict[str, Any] | None = None, fallback: Any = None, device_keys: Any = None
    ) -> Any:
        upload = Upload(device_keys, one_time or {}, fallback or {})
        return await self.keys.upload(await self.place.session(), upload)

    async def _claim(self, user_id: UserID = ALICE) -> list[str]:
        found = await self.keys.claim({user_id: {PHONE: SIGNED}})
        return list(found["one_time_keys"].get(user_id, {}).get(PHONE, {}))

    async def test_a_key_handed_out_is_not_counted_though_nobody_can_be_told(self) -> None:
        """If the feed cannot be written once a key is handed out, this worker counts it no more."""
        await self._start()
        await self._upload(one_time(1, 2, 3))
        session = await self.place.session()
        self.assertEqual((await self.keys.counts(session)).one_time, {SIGNED: 3})

        async def fail(_write: Write) -> None:
            raise DatabaseGone("no COMMIT comes through")

        self.patch(self.keys.persister, "commit", fail)
        with self.assertRaises(DatabaseGone):
            await self._claim()
        self.assertEqual((await self.keys.counts(session)).one_time, {SIGNED: 2})

    async def test_keys_handed_out_before_a_failure_are_not_counted(self) -> None:
        """If a claim of several keys fails half-way, those handed out already are counted no more."""
        await self._start()
        await self._upload(one_time(1, 2, 3))
        session = await self.place.session()
        write = self.database.write

        @define
        class Failing:
            writes: int = 0

            async def write(self, work: Any, *args: Any) -> Any:
                self.writes += 1
                if self.writes == 2:
                    raise DatabaseGone("no answer")
                return await write(work, *args)

        database = self.keys.database
        self.keys.database = Failing()
        with self.assertRaises(DatabaseGone):
            await self.keys.claim({ALICE: {PHONE: SIGNED, "DESK": SIGNED}})
        self.keys.database = database
        self.assertEqual((await self.keys.counts(session)).one_time, {SIGNED: 2})

    async def test_nonsense(self) -> None:
        """Nonsense in any field of an upload is refused, and nothing is stored (security: E1)."""
        await self._start()
        for field in ("user_id", "device_id", "algorithms", "keys", "signatures"):
            for value in NONSENSE:
                if (field, value) in (("algorithms", []), ("algorithms", ["x"]), ("signatures", {})):
                    continue
                with self.assertRaises(MatrixError, msg=f"{field} {value!r}"):
                    await self._upload(device_keys=identity(**{field: value}))
        for key_id in ("", ":", "x", "x:", ":x", "x" * 300 + ":y", "x:\0", "x:ä\n", f"{SIGNED}:a b"):
            with self.assertRaises(BadJson):
                await self._upload({key_id: {"key": "x", "signatures": {}}})
        for value in (*NONSENSE, {"key": 3}, {"key": "x"}, {"key": "x", "signatures": {"a": 3}}):
            for where in ("one_time", "fallback"):
                with self.assertRaises(BadJson):
                    await self._upload(**{where: {f"{SIGNED}:a": value}})
        large = {"key": "x" * 100_000, "signatures": {}}
        for field, upload in (
            ("one_time", {f"{SIGNED}:a": large}),
            ("device_keys", identity(x="y" * 100_000)),
        ):
            with self.assertRaises(BadJson):
                await self._upload(**{field: upload})
        self.assertEqual((await self.keys.query({ALICE: []}))["device_keys"], {})
        self.assertEqual(await self._claim(), [])

    async def test_query(self) -> None:
        """Identity keys are given for all devices, or those named; `unsigned` is not kept."""
        await self._start()
        await self._upload(device_keys=identity(unsigned={"x": 1}))
        self.assertEqual((await self.keys.query({ALICE: []}))["device_keys"], {ALICE: {PHONE: identity()}})
        self.assertEqual((await self.keys.query({ALICE: ["OTHER"]}))["device_keys"], {})
        nobody = UserID("@nobody:plait.test")
        self.assertEqual((await self.keys.query({nobody: []}))["device_keys"], {})
        self.assertEqual(await self.place.core.nids.known_users([nobody]), {})

    async def test_claim_once(self) -> None:
        """Of many claims at once each key goes to one, oldest first (security: E4)."""
        await self._start()
        await self._upload(one_time(*range(50)))
        found = await gatherResults([Deferred.fromCoroutine(self._claim()) for _ in range(100)])
        given = [name for names in found for name in names]
        self.assertEqual((len(given), len(set(given))), (50, 50))
        self.assertEqual(dict((await self.keys.counts(await self.place.session())).one_time), {})
        await self._upload(one_time(7))
        await self._upload(one_time(3))
        self.assertEqual(await self._claim(), [f"{SIGNED}:7"])

    async def test_no_replacement(self) -> None:
        """A key ID that is held takes no other key; the same again is fine (security: E4)."""
        await self._start()
        self.assertEqual(await self._upload(one_time(1, 2)), {SIGNED: 2})
        self.assertEqual(await self._upload(one_time(1, 2, 3)), {SIGNED: 3})
        with self.assertRaises(InvalidParam):
            await self._upload(one_time(3, 4, mark="other"))
        self.assertEqual(dict((await self.keys.counts(await self.place.session())).one_time), {SIGNED: 3})
        with self.assertRaises(InvalidParam):
            await self._upload(one_time(*range(100, 101 + MAX_ONE_TIME_KEYS)))

    async def test_fallback(self) -> None:
        """A fallback key is given again and again, and stays used when uploaded again (security: E4)."""
        await self._start()
        session = await self.place.session()
        key = {f"{SIGNED}:f": {"key": "f", "signatures": {}, "fallback": True}}
        await self._upload(fallback=key)
        self.assertEqual(list((await self.keys.counts(session)).unused_fallback), [SIGNED])
        self.assertEqual([await self._claim(), await self._claim()], [[f"{SIGNED}:f"]] * 2)
        await self._upload(fallback=key)
        self.assertEqual(list((await self.keys.counts(session)).unused_fallback), [])
        await self._upload(fallback={f"{SIGNED}:g": {"key": "g", "signatures": {}}})
        self.assertEqual(list((await self.keys.counts(session)).unused_fallback), [SIGNED])
        await self._upload(one_time(1))
        self.assertEqual(await self._claim(), [f"{SIGNED}:1"])

    async def test_odd_claims(self) -> None:
        """Claims of strangers and impossible names give nothing and leave nothing (security: F16)."""
        await self._start()
        nobody = UserID("@nobody:plait.test")
        for user_id, device, algorithm in (
            (nobody, "X", SIGNED),
            (ALICE, "\0", SIGNED),
            (ALICE, PHONE, "\0"),
        ):
            found = await self.keys.claim({user_id: {device: algorithm}})
            self.assertEqual(found, {"one_time_keys": {}})
        self.assertEqual(await self.place.core.nids.known_users([nobody]), {})

    async def test_news(self) -> None:
        """Changed identity keys are told here and to servers that share a room; the same again are not."""
        await self._start()
        before = self.place.core.feed.position
        for _ in range(2):
            await self._upload(device_keys=identity())
        self.assertEqual(await self.place.entries(Kind.DEVICE_LIST, before), 1)
        self.assertEqual(await self.place.entries(Kind.OUTBOUND_EDU, before), 1)

    async def test_the_list_that_other_servers_read(self) -> None:
        """A user's devices that have keys, and their number, are one reading."""
        await self._start()
        alice, bob = [await self.place.core.nids.user(user) for user in (ALICE, BOB)]
        for user, device in ((alice, PHONE), (alice, "BARE"), (bob, PHONE)):
            await self.database.write(devices.ensure, user, device, None, 1)
        await self._upload(device_keys=identity())
        self.keys.database = watched = Watched(self.database)
        listed = {"stream_id": 1, "devices": [{"device_id": PHONE, "keys": identity()}]}
        self.assertEqual(await self.keys.device_list(ALICE), listed)
        self.assertEqual(len(watched.works), 1)
        self.assertEqual(await self.keys.device_list(BOB), {"stream_id": 0, "devices": []})
        for nobody in (ZOE, UserID("@nobody:plait.test")):
            with self.assertRaises(NotFound):
                await self.keys.device_list(nobody)
        removals = devices.removal_rows(alice, [PHONE, "BARE"])
        await self.database.write(run_all, removals)
        self.assertEqual(await self.keys.device_list(ALICE), {"stream_id": 1, "devices": []})

    async def test_news_from_elsewhere(self) -> None:
        """A server tells of its own users' devices, and strangers are nobody's news (security: F8)."""
        await self._start()
        before = self.place.core.feed.position
        for user_id in (ALICE, STRANGER, "@x:third.test"):
            await self.place.take("m.device_list_update", {"user_id": user_id})
        self.assertEqual(await self.place.entries(Kind.DEVICE_LIST, before), 0)
        await self.place.take("m.device_list_update", {"user_id": ZOE})
        self.assertEqual(await self.place.entries(Kind.DEVICE_LIST, before), 1)

    async def test_other_servers(self) -> None:
        """Other servers are asked for their users; one that does not answer is named."""
        await self._start()
        self.place.world.answers[OTHER] = {
            "device_keys": {ZOE: {"D": {}}},
            "one_time_keys": {ZOE: {"D": {"a:b": "c"}}},
        }
        far = UserID("@x:third.test")
        answer = await self.keys.query_all({ZOE: [], far: [], BOB: []}, 1)
        self.assertEqual(answer["device_keys"], {ZOE: {"D": {}}})
        self.assertEqual(list(answer["failures"]), ["third.test"])
        claimed = await self.keys.claim_all({ZOE: {"D": "a"}, far: {"D": "a"}}, 1)
        self.assertEqual(claimed["one_time_keys"], {ZOE: {"D": {"a:b": "c"}}})
        self.assertEqual(list(claimed["failures"]), ["third.test"])

    async def test_pure(self) -> None:
        """The forms are those of the specification."""
        self.assertEqual(check_key("curve25519:AAA", "key", "x")[:2], ("curve25519", "AAA"))
        self.assertNotIn(b"unsigned", check_device_keys(identity(unsigned={}), ALICE, DeviceID(PHONE)))


class SqliteDeviceKeysTests(DeviceKeysTests, SqliteCase):
    """On SQLite."""


class PostgresDeviceKeysTests(DeviceKeysTests, PostgresCase):
    """On PostgreSQL."""

    async def _both(self) -> tuple[Place, Place]:
        """Start two workers."""
        await self._start()
        database = await open_database(self.url, REACTOR, pool_size=4)
        self.addCleanup(database.close)
        return self.place, await second_place(self.place, database)

    async def test_a_claim_through_another_worker_is_counted(self) -> None:
        """What one worker adds or hands out, the other no longer counts as it was."""
        one, two = await self._both()
        session = await one.session()
        await self._upload(one_time(1, 2), {f"{SIGNED}:f": {"key": "f", "signatures": {}}})
        for left, unused in ((1, [SIGNED]), (0, [SIGNED]), (0, [])):
            await one.passing.keys.counts(session)
            await two.passing.keys.claim({ALICE: {PHONE: SIGNED}})
            await one.core.feed.catch_up()
            counts = await one.passing.keys.counts(session)
            self.assertEqual((counts.one_time.get(SIGNED, 0), list(counts.unused_fallback)), (left, unused))
        await self._upload(one_time(3))
        await two.core.feed.catch_up()
        self.assertEqual((await two.passing.keys.counts(session)).one_time, {SIGNED: 1})

    async def test_changes_at_once_have_numbers_of_their_own(self) -> None:
        """Changes of devices through two workers at once are told under different numbers, without a hole."""
        one, two = await self._both()
        alice = await one.core.nids.user(ALICE)
        changes = [
            Deferred.fromCoroutine(place.passing.keys.changed(alice, PHONE)) for place in (one, two) * 5
        ]
        await gatherResults(changes)
        rows = await self.database.read(lambda tx: tx.all("SELECT edu FROM outbound_edus"))
        told = [json.loads(bytes(row[0]))["content"] for row in rows]
        self.assertEqual(sorted(each["stream_id"] for each in told), list(range(1, 11)))
        self.assertEqual((await self.keys.device_list(ALICE))["stream_id"], 10)
