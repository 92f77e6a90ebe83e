"""Tests of joining rooms through other servers."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, gatherResults

from federation.failures import BadAnswer, Refused
from protocol.canonical_json import decode, dumps
from protocol.checks import parse_pdu
from protocol.errors import Forbidden, IncompatibleRoomVersion, MatrixError, NotFound
from protocol.events import countersign
from protocol.identifiers import RoomID, ServerName
from protocol.room_versions import V1, V8, V11, V12
from tests.federation.core import ALICE
from tests.federation.helpers import HERE, THERE
from tests.federation.joining_helpers import BOB, CAROL, V1_PATH, V2_PATH, RemoteCase, Their
from tests.federation.network import Answer, Asked


class JoinTests(RemoteCase):
    """Joining."""

    def test_a_room_of_each_kind_is_joined(self) -> None:
        """The join is ours in every field, and the room is taken over as it was given."""
        for version in (V1, V8, V11, V12):
            room = Their(self.world, self.there, version)
            room.serve()
            self._join(room.room_id)
            taken = self.placed.imported[-1]
            self.assertEqual(
                (taken.version, taken.room_id, taken.create), (version, room.room_id, room.create)
            )
            self.assertEqual(set(taken.state), set(room.events))
            self.assertEqual(dict(taken.join.content), {"membership": "join", "displayname": "Alice"})
            self.assertEqual((taken.join.sender, taken.join.state_key), (ALICE, ALICE))
            self.assertEqual(taken.join.prev_events, (room.rules.event_id,))

    def test_a_template_for_anything_else_is_not_signed(self) -> None:
        """Type, room, sender, state key, membership: nothing is handed in (security: F6)."""
        room = Their(self.world, self.there)
        for changes in (
            {"type": "m.room.power_levels"},
            {"room_id": "!other:there.example"},
            {"room_id": None},
            {"sender": BOB},
            {"sender": "@mallory:here.example"},
            {"state_key": BOB},
            {"state_key": ""},
            {"content": {"membership": "ban"}},
            {"content": {"membership": "leave"}},
            {"content": {}},
            {"content": "join"},
            {"prev_events": []},
            {"prev_events": [5]},
            {"prev_events": ["$x"] * 50},
            {"auth_events": "x"},
            {"depth": "5"},
            {"depth": -1},
        ):
            room.serve(room.template(**changes))
            with self.assertRaises(BadAnswer):
                self._join(room.room_id)
        for template in ([], 5, "x", {}):
            room.serve(template)
            with self.assertRaises(BadAnswer):
                self._join(room.room_id)
        self.assertEqual(room.sent("send_join"), [])

    def test_extras_of_a_template_are_not_signed(self) -> None:
        """Of a template only its hints are in the event handed in (security: F6)."""
        room = Their(self.world, self.there)
        evil = {"membership": "join", "displayname": "Admin", "third_party_invite": {}, "evil": 1}
        room.serve(
            room.template(
                content=evil,
                redacts="$x",
                origin="evil",
                unsigned={"a": 1},
                signatures={"evil.example": {}},
                hashes={"sha256": "x"},
                evil=1,
                origin_server_ts=1,
            )
        )
        self._join(room.room_id)
        (sent,) = room.sent("send_join")
        self.assertEqual(sent["content"], {"membership": "join", "displayname": "Alice"})
        self.assertEqual(
            set(sent),
            {
                "auth_events",
                "content",
                "depth",
                "hashes",
                "origin_server_ts",
                "prev_events",
                "room_id",
                "sender",
                "signatures",
                "state_key",
                "type",
            },
        )
        self.assertEqual((set(sent["signatures"]), sent["origin_server_ts"]), ({HERE}, self.world.now))

    def test_the_room_given_must_be_the_room_joined(self) -> None:
        """No create event, another version, members left out, a room that shuts us out (security: D7)."""
        room, private = Their(self.world, self.there), Their(self.world, self.there)
        good = [event.pdu for event in room.events]
        private.events[3:] = []
        private.add("m.room.join_rules", {"join_rule": "invite"})
        stranger = Their(self.world, self.there, V12)
        for state in (
            [],
            good[1:],
            [event.pdu for event in private.events],
            [event.pdu for event in stranger.events],
        ):
            room.serve(answer={"state": state, "auth_chain": state})
            with self.assertRaises(BadAnswer):
                self._join(room.room_id)
        for answer in (
            {},
            {"state": good},
            {"state": 5, "auth_chain": []},
            {"state": {}, "auth_chain": {}},
            {"state": good, "auth_chain": good, "members_omitted": True},
        ):
            room.serve(answer=answer)
            with self.assertRaises(BadAnswer):
                self._join(room.room_id)
        room.server.say("GET", f"{V1_PATH}/make_join/", {"room_version": "10", "event": room.template()})
        with self.assertRaises(MatrixError):
            self._join(room.room_id)
        self.assertEqual(self.placed.imported, [])

    def test_one_broken_event_does_not_stop_the_join(self) -> None:
        """It is left out of what is taken over (security: F2)."""
        room = Their(self.world, self.there)
        state = [event.pdu for event in room.events]
        broken = [5, {}, {**state[1], "signatures": {}}, {**state[1], "depth": 2**60}]
        room.serve(answer={"state": [*broken, *state], "auth_chain": [*state, *broken]})
        self._join(room.room_id)
        self.assertEqual(len(self.placed.imported[0].state), 4)

    def test_a_restricted_join_must_come_back_countersigned(self) -> None:
        """The event with the authorising server's signature is what counts, and only if it is ours."""
        room = Their(self.world, self.there, V8)
        content = {"membership": "join", "join_authorised_via_users_server": BOB}
        room.events.pop()
        allow = [{"type": "m.room_membership", "room_id": "!x:there.example"}]
        room.rules = room.add("m.room.join_rules", {"join_rule": "restricted", "allow": allow})
        state = [event.pdu for event in room.events]

        def answer(signing: str) -> Any:
            def send_join(asked: Asked) -> Answer:
                ours = decode(asked.body)
                signed = countersign(parse_pdu(ours, V8).event, THERE, self.there.key).pdu
                other = {**signed, "content": {**signed["content"], "displayname": "Admin"}}
                given = {"good": signed, "unsigned": ours, "altered": other, "other": state[1]}.get(signing)
                body = {"state": state, "auth_chain": state} | ({"event": given} if given else {})
                return Answer(200, dumps(body))

            return send_join

        for signing, count in (("good", 1), ("unsigned", 0), ("altered", 0), ("other", 0), ("missing", 0)):
            room.serve(room.template(content=content))
            self.there.answers["PUT", f"{V2_PATH}/send_join/"] = answer(signing)
            self.placed.imported.clear()
            if count:
                self._join(room.room_id)
            else:
                with self.assertRaises(BadAnswer):
                    self._join(room.room_id)
            self.assertEqual(len(self.placed.imported), count, signing)
        self.assertEqual(room.sent("send_join")[0]["content"]["join_authorised_via_users_server"], BOB)

    def test_another_server_is_tried(self) -> None:
        """When the first fails at either step, the next one serves; our own name is never asked."""
        room = Their(self.world, self.there)
        room.serve()
        carol = self.world.server(CAROL, 3)
        self._join(room.room_id, [HERE, CAROL, THERE])
        carol.say("GET", f"{V1_PATH}/make_join/", {"room_version": "11", "event": room.template()})
        self._join(room.room_id, [CAROL, THERE])
        self.assertEqual([taken.resident for taken in self.placed.imported], [THERE, THERE])
        self.assertEqual(len([asked for asked in carol.asked if asked.method == "PUT"]), 1)

    def test_a_silent_server_costs_seconds_alone(self) -> None:
        """The next one is asked beside it."""
        room = Their(self.world, self.there)
        room.serve()
        self.world.resolver.hosts[CAROL] = ["93.184.216.200"]
        before = self.world.now
        self._join(room.room_id, [CAROL, THERE])
        self.assertLess(self.world.now - before, 5_000)

    def test_joins_under_way_are_shared(self) -> None:
        """The same user's join of the same room is done once (security: D7)."""
        room = Their(self.world, self.there)
        room.serve()
        assert room.room_id is not None
        content = {"membership": "join"}
        joins = [
            Deferred.fromCoroutine(self.remote.join(ALICE, room.room_id, [THERE], content)) for _ in range(10)
        ]
        self.world.network.outcome(gatherResults(joins))
        self.assertEqual(len(self.placed.imported), 1)

    def test_refusals_are_told(self) -> None:
        """What the room says is told in its name; nothing to ask is not found (security: C10)."""
        for status, errcode, kind in (
            (403, "M_FORBIDDEN", Forbidden),
            (400, "M_INCOMPATIBLE_ROOM_VERSION", IncompatibleRoomVersion),
            (401, "M_UNKNOWN_TOKEN", Refused),
        ):
            self.there.say("GET", f"{V1_PATH}/make_join/", {"errcode": errcode, "error": "no"}, status)
            with self.assertRaises(kind):
                self._join(RoomID("!r:there.example"))
        with self.assertRaises(NotFound):
            self._join(RoomID("!r:there.example"), [HERE])
        self.there.say("GET", f"{V1_PATH}/make_join/", {"errcode": "M_FORBIDDEN", "error": "no"}, 403)
        with self.assertRaises(Forbidden):
            self._join(RoomID("!r:there.example"), [THERE, ServerName("dead.example")])

    def test_unknown_versions(self) -> None:
        """A version that we do not know is refused before anything is signed."""
        room = Their(self.world, self.there)
        for version in ("99", "", 11, None, []):
            self.there.say(
                "GET", f"{V1_PATH}/make_join/", {"room_version": version, "event": room.template()}
            )
            with self.assertRaises(MatrixError):
                self._join(room.room_id)
