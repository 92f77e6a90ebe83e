"""Tests of what this server does for others in its rooms: templates, handshakes, invites."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from federation.pdus import PduChecker
from federation.resident.access import RoomAccess
from federation.resident.invited import Invitation, Invitations
from federation.resident.making import Asked, Templates
from federation.resident.rooms_given import JoinedRooms
from federation.resident.taking import Submissions, Submitted
from federation.stripped import stripped_of
from homeserver.events.stored import Status
from homeserver.events.texts import EventTexts
from protocol.canonical_json import JsonObject, decode
from protocol.errors import (
    BadJson,
    Forbidden,
    IncompatibleRoomVersion,
    InvalidParam,
    MatrixError,
    NotFound,
    UnableToAuthoriseJoin,
)
from protocol.events import Event, EventDraft, Links, build_event, countersign
from protocol.identifiers import EventID, RoomID, ServerName, UserID
from protocol.room_versions import V1, V6, V10, V11, V12, RoomVersion
from protocol.signing import SigningKey
from tests.federation.core import ALICE, Core, Placed, gathered, run_now
from tests.federation.helpers import HERE, THERE, World, signing_key

BOB = UserID("@bob:there.example")
EVE = UserID("@eve:eve.example")
EVE_SERVER = ServerName("eve.example")
MEMBER = "m.room.member"
VERSIONS = frozenset({"1", "6", "10", "11", "12"})


class Accounts:
    """Knows ALICE; may forbid invites."""

    blocked = False

    async def exists(self, user_id: UserID) -> bool:
        """Tell whether there is an account."""
        return user_id == ALICE

    async def require_allowed(self, sender: UserID, target: UserID, room_id: RoomID) -> None:
        """Refuse if told so."""
        if self.blocked:
            raise Forbidden("no invites")


class ResidentCase(SynchronousTestCase):
    """A server with rooms, and two others."""

    def setUp(self) -> None:
        """Wire everything; the core places nothing itself."""
        self.world = World(Path(self.mktemp()))
        self.there = self.world.server()
        self.eve = self.world.server(EVE_SERVER, 3)
        self.core = Core(self.world)
        self.placed = Placed(self.core)
        access = RoomAccess(self.core.nids, self.core.heads)
        checker = PduChecker(self.world.ring, run_now)
        identity = self.world.own.identity
        self.accounts = Accounts()
        self.templates = Templates(HERE, access, self.core.unplaced, self.core.restricted)
        self.submissions = Submissions(identity, access, checker, self.core.restricted, self.placed)
        self.rooms = JoinedRooms(
            HERE, self.core.state, self.placed, EventTexts(self.world.database, self.core.nids)
        )
        self.invitations = Invitations(identity, access, checker, self.accounts, self.accounts, self.placed)

    def _make(
        self, room_id: RoomID, membership: str = "join", user_id: UserID = BOB, origin: ServerName = THERE
    ) -> JsonObject:
        asked = Asked(origin, room_id, user_id, membership, VERSIONS if membership != "leave" else ())
        return self.world.network.outcome(self.templates.make(asked, self.world.now))

    def _join_of(
        self,
        room_id: RoomID,
        *,
        version: RoomVersion = V11,
        sender: UserID = BOB,
        content: Mapping[str, Any] | None = None,
        state_key: str | None = None,
        event_type: str = MEMBER,
        key: SigningKey | None = None,
    ) -> Event:
        template = self._make(room_id)["event"]
        draft = EventDraft(
            room_id,
            event_type,
            sender,
            content or {"membership": "join"},
            sender if state_key is None else state_key,
        )
        links = Links(tuple(template["prev_events"]), tuple(template["auth_events"]), template["depth"])
        return build_event(
            draft, version, links, now=self.world.now, server_name=THERE, key=key or self.there.key
        )

    def _submit(self, room_id: RoomID, event: Event, /, **changes: Any) -> Event:
        submitted = evolve(Submitted(THERE, room_id, event.event_id, "join", event.pdu), **changes)
        return self.world.network.outcome(self.submissions.take(submitted)).stored.event


class TemplateTests(ResidentCase):
    """make_join, make_leave and make_knock."""

    def test_a_template_bears_no_signature_and_no_hash(self) -> None:
        """It says where the event would stand, and no more (security: S14)."""
        for version in (V1, V6, V11, V12):
            room_id = self.core.room(version, name=f"v{version.id}")
            answer = self._make(room_id)
            self.assertEqual(answer["room_version"], version.id)
            event = answer["event"]
            self.assertFalse({"signatures", "hashes", "event_id", "unsigned"} & set(event))
            self.assertEqual(
                [event[name] for name in ("type", "room_id", "sender", "state_key", "content")],
                [MEMBER, room_id, BOB, BOB, {"membership": "join"}],
            )
            create = self.core.state_of(room_id)
            named = {item[0] if isinstance(item, list) else item for item in event["auth_events"]}
            created = next(one.event_id for one in create if one.type == "m.room.create")
            self.assertEqual(created in named, version.create_in_auth_events)

    def test_only_users_of_the_asking_server(self) -> None:
        """Whatever is asked for another server's user, or ours, is refused (security: S14, F4)."""
        room_id = self.core.room()
        for membership in ("join", "leave", "knock"):
            for user_id in (EVE, ALICE):
                with self.assertRaises(Forbidden):
                    self._make(room_id, membership, user_id)

    def test_unknown_rooms_and_versions(self) -> None:
        """404 for a room we are not in; the version is told to those who do not know it."""
        with self.assertRaises(NotFound):
            self._make(RoomID("!other:here.example"))
        room_id = self.core.room(V12)
        with self.assertRaises(IncompatibleRoomVersion) as caught:
            asked = Asked(THERE, room_id, BOB, "join", frozenset({"1"}))
            self.world.network.outcome(self.templates.make(asked, 0))
        self.assertEqual(caught.exception.to_json()["room_version"], "12")

    def test_the_rules_are_asked_first(self) -> None:
        """No template for a private room, a knock where none is taken, or a leave of nobody."""
        room_id = self.core.room(rules={"join_rule": "invite"})
        for membership in ("join", "leave", "knock"):
            with self.assertRaises(MatrixError):
                self._make(room_id, membership)
        self.assertEqual(
            self._make(self.core.room(rules={"join_rule": "knock"}, name="k"), "knock")["room_version"], "11"
        )
        with self.assertRaises(Forbidden):
            self._make(self.core.room(V6, name="old"), "knock")

    def test_a_denied_server_gets_nothing(self) -> None:
        """The ACL holds at each endpoint, in any spelling of the name (security: F9)."""
        room_id = self.core.room()
        event = self._join_of(room_id)
        self.core.send(room_id, "m.room.server_acl", {"allow": ["*"], "deny": ["*.EXAMPLE"]}, "")
        for membership in ("join", "leave", "knock"):
            with self.assertRaises(Forbidden):
                self._make(room_id, membership)
        for origin in ("there.example:8448", "THERE.example"):
            with self.assertRaises(Forbidden):
                self._make(room_id, "join", UserID(f"@bob:{origin}"), ServerName(origin))
        with self.assertRaises(Forbidden):
            self._submit(room_id, event)
        self.assertEqual(self.placed.events, [])

    def test_restricted_joins_name_who_lets_in(self) -> None:
        """A member of an allowed room is let in by a local user; others are told why not."""
        allowed = self.core.room(name="allowed")
        rules = {"join_rule": "restricted", "allow": [{"type": "m.room_membership", "room_id": allowed}]}
        room_id = self.core.room(V10, rules, name="restricted")
        with self.assertRaises(Forbidden):
            self._make(room_id)

    def test_restricted_joins_that_cannot_be_judged_are_for_other_servers(self) -> None:
        """Who may be in a room that is not here is sent elsewhere; where no room is allowed, none will do."""
        allowed = self.core.room(name="allowed")
        here = {"type": "m.room_membership", "room_id": allowed}
        unknown = {"type": "m.room_membership", "room_id": "!unknown:x.example"}
        for number, allow in enumerate(([unknown], [here, unknown], [unknown, here])):
            blind = self.core.room(V10, {"join_rule": "restricted", "allow": allow}, name=f"blind{number}")
            with self.assertRaises(UnableToAuthoriseJoin):
                self._make(blind)
        for number, nothing in enumerate(([], [{"type": "m.other"}], 5, [{"type": "m.room_membership"}])):
            shut = self.core.room(V10, {"join_rule": "restricted", "allow": nothing}, name=f"shut{number}")
            with self.assertRaises(Forbidden):
                self._make(shut)


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


class InvitationTests(ResidentCase):
    """Invites to our users."""

    ROOM = RoomID("!theirs:there.example")

    def _invite(
        self,
        *,
        sender: UserID = BOB,
        state_key: str = ALICE,
        membership: Any = "invite",
        event_type: str = MEMBER,
        version: RoomVersion = V11,
        room_id: RoomID | None = None,
        key: SigningKey | None = None,
        server: ServerName = THERE,
    ) -> Event:
        draft = EventDraft(room_id or self.ROOM, event_type, sender, {"membership": membership}, state_key)
        links = Links((EventID("$p"),), (EventID("$a"),), 5)
        return build_event(
            draft, version, links, now=self.world.now, server_name=server, key=key or self.there.key
        )

    def _take(self, event: Event, shown: list[Any] | None = None, /, **changes: Any) -> Event:
        invitation = Invitation(THERE, event.room_id, event.event_id, "11", event.pdu, shown or [])
        return self.world.network.outcome(
            self.invitations.take(evolve(invitation, **changes), self.world.now), 60
        )

    def test_our_signature_appears_in_exactly_one_case(self) -> None:
        """All memberships, senders, state keys: only the invite of ALICE by BOB is signed (security: F5)."""
        signed = []
        for membership in ("invite", "join", "leave", "ban", "knock", "", 5, None):
            for sender in (BOB, EVE, ALICE):
                for state_key in (ALICE, "@nobody:here.example", BOB, EVE, "", "alice", HERE):
                    for event_type in (MEMBER, "m.room.power_levels"):
                        event = self._invite(
                            membership=membership, sender=sender, state_key=state_key, event_type=event_type
                        )
                        try:
                            signed.append(self._take(event))
                        except MatrixError:
                            continue
        self.assertEqual(
            [(one.sender, one.state_key, one.membership) for one in signed], [(BOB, ALICE, "invite")]
        )
        self.assertEqual(set(signed[0].pdu["signatures"]), {HERE, THERE})
        self.assertEqual(len(self.placed.outside), 1)

    def test_path_and_event_must_agree(self) -> None:
        """Room and event ID of the path, and the room version (security: F3)."""
        event = self._invite()
        for changes in (
            {"room_id": RoomID("!other:there.example")},
            {"event_id": EventID("$other")},
            {"event": None},
            {"event": {**event.pdu, "content": {"membership": "invite", "displayname": "x"}}},
            {"room_version": "99"},
            {"room_version": "1"},
            {"origin": EVE_SERVER},
        ):
            with self.assertRaises(MatrixError):
                self._take(event, **changes)
        self.assertEqual(self.placed.outside, [])

    def test_forged_signatures(self) -> None:
        """Another key, another server's signature (security: F4)."""
        for event in (
            self._invite(key=signing_key(9)),
            self._invite(server=EVE_SERVER, key=self.eve.key),
            countersign(self._invite(server=EVE_SERVER, key=self.eve.key), EVE_SERVER, self.eve.key),
        ):
            with self.assertRaises(Forbidden):
                self._take(event)

    def test_nonsense_in_the_shown_state_is_left_out(self) -> None:
        """Whatever is shown, the invite stands, and only well-formed state is kept (security: F11)."""
        good = {"type": "m.room.name", "state_key": "", "sender": BOB, "content": {"name": "x"}, "extra": 1}
        nonsense = [
            5,
            None,
            [],
            "x",
            {},
            {**good, "type": 5},
            {**good, "state_key": None},
            {**good, "sender": "nonsense"},
            {**good, "sender": ["@x:y"]},
            {**good, "content": []},
            {**good, "content": "x"},
            {**good, "type": "x" * 300},
            {**good, "content": {"x": "y" * 70_000}},
            {"type": "m.room.name"},
        ]
        self._take(self._invite(), [*nonsense, good])
        kept = self.placed.outside[0][1]
        self.assertEqual(kept[0], {name: good[name] for name in ("type", "state_key", "sender", "content")})
        self.assertEqual([event["type"] for event in kept], ["m.room.name", MEMBER])
        self.assertEqual(len(stripped_of([good] * 1000)), 1)

    def test_in_version_12_the_room_proves_itself(self) -> None:
        """The create event must be there and make the room; all that is shown is of it (security: F19)."""
        draft = EventDraft(None, "m.room.create", BOB, {"room_version": "12"}, "")
        sign = {"now": self.world.now, "server_name": THERE, "key": self.there.key}
        create = build_event(draft, V12, Links((), (), 1), **sign)
        other = build_event(
            evolve(draft, content={"room_version": "12", "n": 1}), V12, Links((), (), 1), **sign
        )
        event = self._invite(version=V12, room_id=create.room_id)
        name = build_event(
            EventDraft(create.room_id, "m.room.name", BOB, {"name": "x"}, ""),
            V12,
            Links((create.event_id,), (), 2),
            **sign,
        )
        for shown in (
            [],
            [name.pdu],
            [other.pdu],
            [create.pdu, 5],
            [create.pdu, {**name.pdu, "signatures": {}}],
        ):
            with self.assertRaises(InvalidParam):
                self._take(event, shown, room_version="12")
        self._take(event, [create.pdu, name.pdu], room_version="12")
        self.assertEqual(len(self.placed.outside), 1)

    def test_users_who_take_no_invites(self) -> None:
        """The invite is neither signed nor kept."""
        self.accounts.blocked = True
        with self.assertRaises(Forbidden):
            self._take(self._invite())
        self.assertEqual(self.placed.outside, [])

    def test_a_room_we_are_in(self) -> None:
        """Its ACL holds; the invite comes again through the room, so it is not kept (security: F9)."""
        room_id = self.core.room()
        self._take(self._invite(room_id=room_id))
        self.assertEqual(self.placed.outside, [])
        self.core.send(room_id, "m.room.server_acl", {"allow": ["*"], "deny": [THERE]}, "")
        with self.assertRaises(Forbidden):
            self._take(self._invite(room_id=room_id))
