"""Tests of the templates that this server gives others for its rooms."""

from __future__ import annotations

from federation.resident.making import Asked
from protocol.errors import Forbidden, IncompatibleRoomVersion, MatrixError, NotFound, UnableToAuthoriseJoin
from protocol.identifiers import RoomID, ServerName, UserID
from protocol.room_versions import V1, V6, V10, V11, V12
from tests.federation.core import ALICE
from tests.federation.helpers import THERE
from tests.federation.resident_helpers import BOB, EVE, MEMBER, ResidentCase


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
