"""Tests of the events that other servers hand in on their templates."""

from __future__ import annotations

from typing import Any

from federation.resident.taking import Submitted
from homeserver.events.stored import Status
from protocol.canonical_json import decode
from protocol.errors import BadJson, Forbidden, InvalidParam, MatrixError, UnableToAuthoriseJoin
from protocol.identifiers import EventID
from protocol.room_versions import V10
from tests.federation.core import ALICE, gathered
from tests.federation.helpers import HERE, THERE, signing_key
from tests.federation.resident_helpers import EVE, EVE_SERVER, ResidentCase


class SubmissionTests(ResidentCase):
    """send_join, send_leave and send_knock."""

    def test_an_honest_join_is_taken_in(self) -> None:
        """It is placed, and the room is given: state before it, auth chain, servers."""
        room_id = self.core.room()
        event = self._join_of(room_id)
        submitted = Submitted(THERE, room_id, event.event_id, "join", event.pdu)
        taken = self.world.network.outcome(self.submissions.take(submitted))
        answer: Any = decode(self.world.network.outcome(gathered(self.rooms.describe(taken))))
        self.assertEqual(answer["event"], event.pdu)
        self.assertEqual(len(answer["state"]), 4)
        self.assertFalse(answer["members_omitted"])
        self.assertEqual((answer["origin"], answer["servers_in_room"]), (HERE, [HERE]))
        self.assertEqual(len(answer["auth_chain"]), 4)

    def test_path_and_event_must_agree(self) -> None:
        """Room, event ID, type, membership and state key: each mismatch is refused (security: F3)."""
        room_id, other = self.core.room(), self.core.room(name="other")
        good = self._join_of(room_id)
        for event, changes in (
            (good, {"room_id": other}),
            (good, {"event_id": EventID("$other")}),
            (good, {"membership": "leave"}),
            (good, {"membership": "knock"}),
            (self._join_of(other), {}),
            (self._join_of(room_id, event_type="m.room.topic"), {}),
            (self._join_of(room_id, content={"membership": "ban"}), {}),
            (self._join_of(room_id, content={"membership": 5}), {}),
            (self._join_of(room_id, content={"body": "x"}), {}),
            (self._join_of(room_id, state_key=ALICE), {}),
            (self._join_of(room_id, state_key=""), {}),
        ):
            with self.assertRaises(InvalidParam):
                self._submit(room_id, event, **changes)
        for raw in (None, [], {}, {**good.pdu, "depth": -1}, {**good.pdu, "content": []}):
            with self.assertRaises(BadJson):
                self._submit(room_id, good, event=raw)
        self.assertEqual(self.placed.events, [])

    def test_only_the_sender_s_server_hands_in(self) -> None:
        """Another server's join is refused, however it is signed (security: F4)."""
        room_id = self.core.room()
        honest = self._join_of(room_id)
        with self.assertRaises(Forbidden):
            self._submit(room_id, honest, origin=EVE_SERVER)
        with self.assertRaises(Forbidden):
            self._submit(room_id, self._join_of(room_id, sender=EVE))
        for key in (self.eve.key, signing_key(9), signing_key(2, "ed25519:other")):
            with self.assertRaises(Forbidden):
                self._submit(room_id, self._join_of(room_id, key=key))
        self.assertEqual(self.placed.events, [])

    def test_an_altered_event_is_refused(self) -> None:
        """A wrong content hash would make another event of it (security: K7)."""
        room_id = self.core.room()
        event = self._join_of(room_id)
        altered = {**event.pdu, "content": {"membership": "join", "displayname": "Admin"}}
        with self.assertRaises(InvalidParam):
            self._submit(room_id, event, event=altered)

    def test_what_the_room_refuses_is_refused(self) -> None:
        """A rejected or soft-failed join is an error for the one who asks."""
        room_id = self.core.room()
        for status in (Status.REJECTED, Status.SOFT_FAILED):
            self.placed.status = status
            with self.assertRaises(Forbidden):
                self._submit(room_id, self._join_of(room_id))

    def test_a_restricted_join_is_countersigned_only_where_the_conditions_hold(self) -> None:
        """Our signature is on the event if the user may join by our word, and nowhere else (security: F5)."""
        rules = {
            "join_rule": "restricted",
            "allow": [{"type": "m.room_membership", "room_id": "!x:here.example"}],
        }
        public = self.core.room(V10, name="public")
        content = {"membership": "join", "join_authorised_via_users_server": ALICE}
        event = self._join_of(public, version=V10, content=content)
        signed = self._submit(public, event)
        self.assertIn(HERE, signed.pdu["signatures"])
        self.assertEqual(signed.event_id, event.event_id)
        self.core.send(public, "m.room.join_rules", rules, "")
        count = len(self.placed.events)
        with self.assertRaises(UnableToAuthoriseJoin):
            self._submit(public, event)
        self.core.send(public, "m.room.join_rules", {"join_rule": "public"}, "")
        for named in ("@nobody:here.example", EVE, "nonsense", 5, ["x"]):
            bad = {"membership": "join", "join_authorised_via_users_server": named}
            with self.assertRaises(MatrixError):
                self._submit(public, self._join_of(public, version=V10, content=bad))
        self.assertEqual(len(self.placed.events), count)
