"""Tests of joining, leaving, knocking and inviting through other servers that may lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from random import SystemRandom
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import SynchronousTestCase

from federation.failures import BadAnswer, Refused
from federation.handshakes import Handshakes
from federation.inviting import Inviting
from federation.joining import Arrivals, Joining
from federation.knocking import Knocking
from federation.leaving import Leaving
from federation.pdus import PduChecker
from federation.queries import FederationQueries
from federation.remote_rooms import RemoteDirectories, RemoteMemberships
from protocol.canonical_json import JsonObject, decode, dumps, encode
from protocol.checks import parse_pdu
from protocol.errors import (
    Forbidden,
    IncompatibleRoomVersion,
    InviteBlocked,
    MatrixError,
    NotFound,
    UnsupportedRoomVersion,
)
from protocol.events import Event, EventDraft, Links, build_event, countersign
from protocol.identifiers import EventID, RoomAlias, RoomID, ServerName, UserID
from protocol.room_versions import V1, V8, V11, V12, RoomVersion
from tests.federation.core import ALICE, Core, Placed, run_now
from tests.federation.helpers import HERE, THERE, HostileServer, World
from tests.federation.network import Answer, Asked

BOB = UserID("@bob:there.example")
CAROL = ServerName("carol.example")
V1_PATH = "/_matrix/federation/v1"
V2_PATH = "/_matrix/federation/v2"


class Their:
    """A room on the other server: its first events, and templates for joining it."""

    def __init__(self, world: World, server: HostileServer, version: RoomVersion = V11) -> None:
        """Make a public room of BOB."""
        self.world = world
        self.server = server
        self.version = version
        self.room_id: RoomID | None = None if version.room_id_is_create_hash else RoomID("!r:there.example")
        self.events: list[Event] = []
        create: dict[str, Any] = {"room_version": version.id}
        if not version.implicit_room_creator:
            create["creator"] = BOB
        self.create = self.add("m.room.create", create)
        self.room_id = self.create.room_id
        self.member = self.add("m.room.member", {"membership": "join"}, BOB)
        users = {} if version.privileged_creators else {BOB: 100}
        self.levels = self.add("m.room.power_levels", {"users": users})
        self.rules = self.add("m.room.join_rules", {"join_rule": "public"})

    def add(self, event_type: str, content: Mapping[str, Any], state_key: str = "") -> Event:
        """Add a state event."""
        auth = [event for event in self.events if event.type != "m.room.join_rules"]
        if not self.version.create_in_auth_events:
            auth = auth[1:]
        links = Links(
            tuple(event.event_id for event in self.events[-1:]),
            tuple(event.event_id for event in auth),
            len(self.events) + 1,
        )
        draft = EventDraft(self.room_id, event_type, BOB, content, state_key)
        event = build_event(
            draft, self.version, links, now=self.world.now, server_name=self.server.name, key=self.server.key
        )
        self.events.append(event)
        return event

    def template(self, membership: str = "join", **changes: Any) -> JsonObject:
        """Give the template for ALICE."""
        auth = [self.levels, self.rules] + ([self.create] if self.version.create_in_auth_events else [])

        def references(events: Sequence[Event]) -> list[Any]:
            if not self.version.pairs_in_references:
                return [event.event_id for event in events]
            return [[event.event_id, {"sha256": "x" * 43}] for event in events]

        return {
            "type": "m.room.member",
            "room_id": self.room_id,
            "sender": ALICE,
            "state_key": ALICE,
            "content": {"membership": membership},
            "prev_events": references(self.events[-1:]),
            "auth_events": references(auth),
            "depth": 5,
            "origin_server_ts": 1,
            **changes,
        }

    def serve(self, template: object = None, answer: Mapping[str, Any] | None = None) -> None:
        """Answer make_join and send_join."""
        made = {"room_version": self.version.id, "event": self.template() if template is None else template}
        self.server.say("GET", f"{V1_PATH}/make_join/", made)
        state = [event.pdu for event in self.events]
        whole = {"state": state, "auth_chain": state}
        self.server.say("PUT", f"{V2_PATH}/send_join/", whole if answer is None else answer)

    def sent(self, path: str) -> list[Any]:
        """Give the events that were handed in."""
        return [
            decode(asked.body) for asked in self.server.asked if asked.method == "PUT" and path in asked.uri
        ]


class RemoteCase(SynchronousTestCase):
    """A server that acts through another."""

    def setUp(self) -> None:
        """Wire everything; rooms taken over are only noted."""
        self.world = World(Path(self.mktemp()))
        self.there = self.world.server()
        core = Core(self.world)
        self.placed = Placed(core)
        handshakes = Handshakes(self.world.requests, PduChecker(self.world.ring, run_now))
        identity, clock, random = self.world.own.identity, self.world.clock, SystemRandom()
        self.remote = RemoteMemberships(
            Joining(identity, handshakes, Arrivals(self.placed, self.placed, core.nids), clock, random),
            Knocking(identity, handshakes, self.placed, clock, random),
            Leaving(identity, handshakes, self.placed, clock, random),
            Inviting(handshakes),
        )

    def _join(
        self, room_id: RoomID | None, via: Sequence[ServerName] = (THERE,), seconds: float = 60
    ) -> None:
        assert room_id is not None
        content = {"membership": "join", "displayname": "Alice"}
        self.world.network.outcome(self.remote.join(ALICE, room_id, via, content), seconds)


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


class LeaveAndKnockTests(RemoteCase):
    """Leaving and knocking."""

    def setUp(self) -> None:
        """Make a room."""
        super().setUp()
        self.room = Their(self.world, self.there)

    def _say(self, membership: str, template: object = None) -> None:
        made = {
            "room_version": "11",
            "event": self.room.template(membership) if template is None else template,
        }
        self.there.say("GET", f"{V1_PATH}/make_{membership}/", made)
        self.there.say("PUT", f"{V2_PATH}/send_leave/", {})

    def _act(self, membership: str) -> None:
        assert self.room.room_id is not None
        action = self.remote.leave if membership == "leave" else self.remote.knock
        content = {"membership": membership, "reason": "x"}
        self.world.network.outcome(action(ALICE, self.room.room_id, [THERE], content), 120)

    def test_a_leave_is_handed_in_and_kept(self) -> None:
        """With the reason of the user."""
        self._say("leave")
        self._act("leave")
        (sent,) = self.room.sent("send_leave")
        self.assertEqual(sent["content"], {"membership": "leave", "reason": "x"})
        ((room_id, user_id, event),) = self.placed.left
        self.assertEqual((room_id, user_id), (self.room.room_id, ALICE))
        self.assertIsNotNone(event)

    def test_a_leave_counts_although_nobody_hears(self) -> None:
        """A dead or lying server does not keep a user in a room; nothing false is signed (security: F6)."""
        for template in (None, self.room.template("join"), self.room.template("leave", type="m.room.create")):
            self.placed.left.clear()
            self.there.answers.clear()
            if template is not None:
                self._say("leave", template)
            self._act("leave")
            self.assertEqual([event for _, _, event in self.placed.left], [None])
        self.assertEqual(self.room.sent("send_leave"), [])

    def test_a_knock_keeps_what_the_room_shows(self) -> None:
        """Nonsense among it is left out (security: F11)."""
        self._say("knock")
        shown = [
            5,
            {"type": "m.room.name", "state_key": "", "sender": BOB, "content": {"name": "n"}},
            {"a": 1},
        ]
        self.there.say("PUT", f"{V1_PATH}/send_knock/", {"knock_room_state": shown})
        self._act("knock")
        ((event, stripped),) = self.placed.outside
        self.assertEqual((event.membership, stripped), ("knock", [shown[1]]))
        for answer in ({}, {"knock_room_state": 5}):
            self.there.say("PUT", f"{V1_PATH}/send_knock/", answer)
            self._act("knock")
            self.assertEqual(self.placed.outside[-1][1], [])

    def test_a_template_of_a_knock_for_anything_else_is_not_signed(self) -> None:
        """As for joins (security: F6)."""
        for template in (self.room.template("join"), self.room.template("knock", sender=BOB)):
            self._say("knock", template)
            with self.assertRaises(BadAnswer):
                self._act("knock")
        self.assertEqual(self.room.sent("send_knock"), [])


class InviteTests(RemoteCase):
    """Inviting users of other servers."""

    def _invite(self, version: RoomVersion = V11) -> Event:
        draft = EventDraft(
            RoomID("!mine:here.example"), "m.room.member", ALICE, {"membership": "invite"}, BOB
        )
        links = Links((EventID("$p"),), (), 5)
        return build_event(
            draft, version, links, now=self.world.now, server_name=HERE, key=self.world.own.keys[0]
        )

    def _send(self, invite: Event) -> Event:
        return self.world.network.outcome(self.remote.invite(invite, [invite]))

    def test_the_invite_comes_back_signed_by_both(self) -> None:
        """And is the event that counts."""
        invite = self._invite()
        signed = countersign(invite, THERE, self.there.key)
        self.there.say("PUT", f"{V2_PATH}/invite/", {"event": signed.pdu})
        self.assertEqual(self._send(invite).raw, signed.raw)
        body: Any = decode(self.there.asked[-1].body)
        self.assertEqual(body, {"event": invite.pdu, "room_version": "11", "invite_room_state": [invite.pdu]})

    def test_another_event_is_refused(self) -> None:
        """What comes back must be what was sent (security: F6)."""
        invite = self._invite()
        for answer in ({}, {"event": 5}, {"event": {**invite.pdu, "content": {"membership": "join"}}}):
            self.there.say("PUT", f"{V2_PATH}/invite/", answer)
            with self.assertRaises(BadAnswer):
                self._send(invite)

    def test_old_servers_are_asked_the_old_way(self) -> None:
        """For room versions 1 and 2 alone."""
        old = self._invite(V1)
        signed = countersign(old, THERE, self.there.key)
        self.there.answers["PUT", f"{V1_PATH}/invite/"] = lambda _: Answer(
            200, b'[200,{"event":%b}]' % signed.raw
        )
        self.assertEqual(self._send(old).raw, signed.raw)
        body = self.there.asked[-1].body
        self.assertEqual(body, encode(decode(body)))
        self.assertEqual(decode(body), {**old.pdu, "unsigned": {"invite_room_state": [old.pdu]}})
        with self.assertRaises(MatrixError):
            self._send(self._invite())

    def test_refusals_are_told(self) -> None:
        """403 as such, anything else as 502 (security: C10)."""
        self.there.say("PUT", f"{V2_PATH}/invite/", {"errcode": "M_FORBIDDEN", "error": "no"}, 403)
        with self.assertRaises(Forbidden):
            self._send(self._invite())
        self.there.say("PUT", f"{V2_PATH}/invite/", {"errcode": "M_INVITE_BLOCKED"}, 403)
        with self.assertRaises(InviteBlocked):
            self._send(self._invite())

    def test_a_server_that_knows_the_version_not(self) -> None:
        """Its refusal has another name between servers than to clients."""
        answer = {"errcode": "M_INCOMPATIBLE_ROOM_VERSION", "room_version": "11"}
        self.there.say("PUT", f"{V2_PATH}/invite/", answer, 400)
        with self.assertRaises(UnsupportedRoomVersion):
            self._send(self._invite())


class DirectoryTests(RemoteCase):
    """Aliases of other servers."""

    def test_aliases(self) -> None:
        """A room and its servers, or not found."""
        directories = RemoteDirectories(FederationQueries(self.world.requests))
        alias = RoomAlias("#x:there.example")
        room = {"room_id": "!r:there.example", "servers": [THERE]}
        self.there.say("GET", f"{V1_PATH}/query/directory", room)
        self.assertEqual(
            self.world.network.outcome(directories.resolve_alias(alias)), ("!r:there.example", [THERE])
        )
        self.there.say("GET", f"{V1_PATH}/query/directory", {"errcode": "M_NOT_FOUND"}, 404)
        with self.assertRaises(NotFound):
            self.world.network.outcome(directories.resolve_alias(alias))
