"""Presence: who is told of whom, and for how long."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

from twisted.internet.defer import Deferred

from homeserver.ephemeral.presence import IDLE_MS, SILENCE_MS
from homeserver.ephemeral.ring import OFFLINE, ONLINE, UNAVAILABLE, merge
from homeserver.sync.filters import compile_filter
from protocol.errors import InvalidParam
from protocol.identifiers import DeviceID, RoomID, UserID
from protocol.room_versions import V11
from tests.homeserver.ephemeral.helpers import OTHER, PHONE, STRANGER, ZOE
from tests.homeserver.ephemeral.passing import CAROL, PassingCase
from tests.homeserver.events.helpers import ALICE, BOB, NOW, beginning

DESK = DeviceID("DESK")


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
