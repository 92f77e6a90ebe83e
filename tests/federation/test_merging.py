"""Tests of rooms whose branches pile up while no local user speaks."""

from __future__ import annotations

from pathlib import Path
from random import SystemRandom

from twisted.trial.unittest import SynchronousTestCase

from homeserver.events.heads import RoomHead
from homeserver.rooms.merging import DUMMY, MAX_BRANCHES, Merging
from protocol.events import Event, EventDraft, Links, build_event
from protocol.identifiers import UserID
from protocol.room_versions import V11
from tests.federation.core import ALICE
from tests.federation.plait import Plait

BOB = UserID("@bob:there.example")


class MergingTests(SynchronousTestCase):
    """`Merging`, over a room that another server's user speaks in."""

    def setUp(self) -> None:
        """Let Bob join."""
        self.here = Plait(Path(self.mktemp()))
        self.core, self.network = self.here.core, self.here.world.network
        self.there = self.here.world.server()
        self.merging = Merging(self.here.events, self.core.heads, self.here.world.clock, SystemRandom())
        self.addCleanup(self.merging.stop)
        self.core.feed.add_session_listener(self.merging.apply)
        self.room_id = self.core.room()
        self._receive([self._build("m.room.member", {"membership": "join"}, BOB)])

    def _build(self, event_type: str, content: dict[str, str], state_key: str | None = None) -> Event:
        draft = EventDraft(self.room_id, event_type, BOB, content, state_key)
        links, _ = self.network.outcome(self.core.unplaced.links(self._room_nid(), draft))
        place = Links(links.prev_events[-1:], links.auth_events, links.depth)
        now = self.here.world.now
        return build_event(draft, V11, place, now=now, server_name=self.there.name, key=self.there.key)

    def _room_nid(self) -> int:
        room_nid = self.network.outcome(self.core.nids.room(self.room_id))
        assert room_nid is not None
        return room_nid

    def _receive(self, events: list[Event]) -> None:
        self.network.outcome(self.here.receiving.received.place(self._room_nid(), events))

    def _fork(self, branches: int) -> list[Event]:
        """Let Bob's server say several things beside each other."""
        said = [self._build("m.room.message", {"body": str(number)}) for number in range(branches)]
        self._receive(said)
        return said

    def _head(self) -> RoomHead:
        return self.network.outcome(self.core.heads.get(self._room_nid()))

    def _tip(self) -> Event:
        (nid,) = self._head().extremities
        stored = self.network.outcome(self.core.stored.by_nid(self._room_nid(), [nid]))
        return stored[nid].event

    def _pass_time(self) -> None:
        self.network.advance(61)
        self.network.settle()

    def test_many_branches_are_joined_by_a_dummy(self) -> None:
        """After a while a local user sends one that names them all (security: S11)."""
        said = self._fork(MAX_BRANCHES + 1)
        self.assertEqual(len(self._head().extremities), MAX_BRANCHES + 1)
        self._pass_time()
        dummy = self._tip()
        self.assertEqual((dummy.type, dummy.sender, dict(dummy.content)), (DUMMY, ALICE, {}))
        self.assertEqual(set(dummy.prev_events), {event.event_id for event in said})
        self._pass_time()
        self.assertEqual(self._tip(), dummy)

    def test_more_branches_than_an_event_may_name_are_joined_too(self) -> None:
        """None is left over (security: S11)."""
        self._fork(50)
        self._pass_time()
        self.assertEqual(self._tip().type, DUMMY)

    def test_few_branches_are_left_alone(self) -> None:
        """They cost little, and the next message joins them."""
        self._fork(MAX_BRANCHES)
        self._pass_time()
        self.assertEqual(len(self._head().extremities), MAX_BRANCHES)

    def test_who_speaks_meanwhile_has_joined_them(self) -> None:
        """Then no dummy is sent."""
        self._fork(MAX_BRANCHES + 1)
        self.core.send(self.room_id, "m.room.message", {"body": "here"})
        self._pass_time()
        self.assertEqual(self._tip().type, "m.room.message")

    def test_without_a_user_who_may_send_one_they_stay(self) -> None:
        """A member without the level is not made to send what would be refused."""
        for level in (100, 50):
            levels = {"users": {ALICE: level}, "events": {DUMMY: 100}}
            self.core.send(self.room_id, "m.room.power_levels", levels, "")
        self._fork(MAX_BRANCHES + 1)
        self._pass_time()
        self.assertEqual(len(self._head().extremities), MAX_BRANCHES + 1)
