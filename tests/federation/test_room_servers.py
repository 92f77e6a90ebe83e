"""Tests of who gets an event, over the real core of two servers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from twisted.trial.unittest import SynchronousTestCase

from federation.outbound.audience import Audiences
from federation.outbound.catch_up import CatchUp
from federation.outbound.room_servers import ServersAtState
from homeserver.events.stored import StoredEvent
from protocol.events import EventDraft
from protocol.identifiers import ServerName, UserID
from storage.catch_up import CatchUpStore
from storage.outbound_edus import OutboundEduStore
from tests.federation.helpers import HERE, THERE
from tests.federation.plait import Plait

BOB = UserID("@bob:there.example")
THIRD = ServerName("third.example")
CAROL = UserID("@carol:third.example")
DAVE = UserID("@dave:here.example")
MEMBER = "m.room.member"


class RoomServersTests(SynchronousTestCase):
    """Alice's server has a room; Bob and Carol of others come and go."""

    def setUp(self) -> None:
        """Make the room."""
        self.here = Plait(Path(self.mktemp()))
        self.there = Plait(Path(self.mktemp()), THERE, beside=self.here)
        core = self.here.core
        self.servers = ServersAtState(core.heads, core.state, core.stored)
        self.audiences = Audiences(HERE, self.servers)
        self.catch_up = CatchUp(
            CatchUpStore(self.here.world.database),
            OutboundEduStore(self.here.world.database),
            core.stored,
            self.audiences,
        )
        self.room_id = core.room()

    def _get(self, work: Any) -> Any:
        return self.here.world.network.outcome(work, 120)

    def _say(self, text: str) -> StoredEvent:
        return self.here.core.send(self.room_id, "m.room.message", {"body": text})

    def _kick(self, user_id: UserID) -> StoredEvent:
        return self.here.core.send(self.room_id, MEMBER, {"membership": "leave"}, user_id)

    def _members(self, stored: StoredEvent) -> set[ServerName]:
        audience = self._get(self.audiences.of(stored))
        return set(audience.members | audience.named)

    def test_the_state_before_an_event_decides(self) -> None:
        """Whenever it is asked, and whoever came or left since."""
        before = self._say("alone")
        self.there.join(BOB, self.room_id, HERE)
        between = self._say("with bob")
        third = Plait(Path(self.mktemp()), THIRD, beside=self.here)
        third.join(CAROL, self.room_id, HERE)
        kicked = self._kick(BOB)
        after = self._say("with carol")
        last = self._kick(CAROL)
        alone = self._say("alone again")
        expected = (
            (before, set()),
            (between, {THERE}),
            (kicked, {THERE, THIRD}),
            (after, {THIRD}),
            (last, {THIRD}),
            (alone, set()),
        )
        for _ in range(2):
            for stored, servers in expected:
                self.assertEqual(self._members(stored), servers, stored.event.content)
            core = self.here.core
            self.audiences = Audiences(HERE, ServersAtState(core.heads, core.state, core.stored))

    def test_an_own_user_changes_no_other_server(self) -> None:
        """After a join here the next audience is known without the state; a move elsewhere makes it look."""
        self.there.join(BOB, self.room_id, HERE)
        core = self.here.core
        join = EventDraft(self.room_id, MEMBER, DAVE, {"membership": "join"}, DAVE)
        joined = self._get(core.events.send(join, now=self.here.world.now))
        said, kicked, after = self._say("with dave"), self._kick(BOB), self._say("without bob")
        self.assertEqual(self._members(joined), {THERE})
        state, self.servers.state = self.servers.state, cast(Any, None)
        assert said.root_before is not None and after.root_before is not None
        self.audiences.follow(joined, said.root_before)
        self.assertEqual(self._members(said), {THERE})
        self.servers.state = state
        self.assertEqual(self._members(kicked), {THERE})
        self.audiences.follow(kicked, after.root_before)
        self.assertEqual(self._members(after), set())

    def test_what_a_server_is_owed(self) -> None:
        """Everything said while it was in the room, its last kick too, and nothing else."""
        self._say("before")
        self.there.join(BOB, self.room_id, HERE)
        start = self.here.core.feed.position
        said = [self._say("one"), self._say("two"), self._kick(BOB)]
        self._say("after")
        plan = self._get(self.catch_up.plan(THERE, 0, self.here.core.feed.position))
        self.assertEqual([pdu.event for pdu in plan.pdus], [stored.event for stored in said])
        self.assertEqual(plan.reached, self.here.core.feed.position)
        later = self._get(self.catch_up.plan(THERE, start + 1, start + 2))
        self.assertEqual([pdu.event for pdu in later.pdus], [said[1].event])
        self.assertEqual(self._get(self.catch_up.plan(ServerName("x.example"), 0, 999)).pdus, [])
