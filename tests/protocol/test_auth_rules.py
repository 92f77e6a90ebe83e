"""The authorisation rules against Synapse's verdicts, and what no event may get by.

Each vector is a small room and an event; `allowed` has a digit for each room version, 1 to 12: Synapse's
verdict, or `-` where Synapse gives none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from protocol.auth_rules import (
    AuthError,
    auth_keys_for,
    check_auth,
    check_auth_events,
    may_ask_to_redact,
    may_redact,
)
from protocol.events import Event
from protocol.identifiers import EventID, RoomID, StateKey, UserID, server_of
from protocol.power_levels import PowerLevels
from protocol.room_versions import V1, V3, V5, V10, V11, V12, RoomVersion
from tests.protocol.helpers import ALICE, ALL_VERSIONS, BOB, VECTORS
from tests.protocol.rooms import Room

CAROL = UserID("@carol:alpha.example")
NONSENSE = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


class VectorsTest(SynchronousTestCase):
    """Verdicts of the reference implementation."""

    def test_agree_with_synapse(self) -> None:
        """Events are allowed and refused as Synapse does in all versions (security: S3)."""
        vectors = json.loads((VECTORS / "auth_rules.json").read_text(encoding="utf-8"))
        wrong = [
            (version.id, vector)
            for vector in vectors
            for version, verdict in zip(ALL_VERSIONS, vector["allowed"], strict=True)
            if verdict != "-" and _verdict(version, vector) != verdict
        ]
        self.assertEqual(wrong, [])


def _verdict(version: RoomVersion, vector: Mapping[str, Any]) -> str:
    room = Room.of(version, UserID("@alice:alpha"), vector.get("create", {}))
    for user_id, membership in vector["members"].items():
        room.set("m.room.member", {"membership": membership}, user_id)
    if "rule" in vector:
        room.set("m.room.join_rules", {"join_rule": vector["rule"]})
    if "levels" in vector:
        room.set("m.room.power_levels", vector["levels"])
    event = room.event(**vector["event"], first=vector.get("first", False))
    return "1" if room.allows(event) else "0"


class CreateTest(SynchronousTestCase):
    """The create event."""

    def test_refuse_second_create(self) -> None:
        """A create event with parents is refused (security: S5)."""
        for version in ALL_VERSIONS:
            room = Room.of(version, ALICE)
            second = room.event("m.room.create", ALICE, {"room_version": version.id, "creator": ALICE}, "")
            self.assertFalse(room.allows(second), version.id)

    def test_refuse_foreign_create(self) -> None:
        """The room ID of a create event is of its sender's server where it names one (security: S5)."""
        for version in ALL_VERSIONS[:11]:
            with self.assertRaises(AuthError):
                Room.of(version, BOB, room_id=RoomID("!room:alpha.example"))

    def test_refuse_unknown_version(self) -> None:
        """A create event names a version that is known, as a string."""
        for name in ("99", 1, None, ["1"], {}):
            with self.assertRaises(AuthError):
                Room.of(V11, ALICE, {"room_version": name})

    def test_need_creator(self) -> None:
        """Up to version 10 the creator is named."""
        for version in ALL_VERSIONS:
            room = Room.of(version, ALICE)
            self.assertEqual("creator" in room.create.content, not version.implicit_room_creator)
        with self.assertRaises(AuthError):
            Room.of(V10, ALICE, {"creator": None}, drop=("creator",))

    def test_check_additional_creators(self) -> None:
        """Additional creators are a list of user IDs, where they mean something (security: S5)."""
        for value in ("@bob:beta.example", [1], ["bob"], {}, None):
            with self.assertRaises(AuthError):
                Room.of(V12, ALICE, {"additional_creators": value})
            Room.of(V11, ALICE, {"additional_creators": value})
        Room.of(V12, ALICE, {"additional_creators": [BOB]})

    def test_creators_stand_above_levels(self) -> None:
        """Creators of version 12 outrank each level, and levels may not name them (security: S5)."""
        room = Room.of(V12, ALICE, {"additional_creators": [BOB]}).with_members(ALICE, BOB, CAROL)
        room.set("m.room.power_levels", {"users": {CAROL: 2**53 - 1}})
        kick = {"membership": "leave"}
        self.assertTrue(room.allows(room.event("m.room.member", BOB, kick, CAROL)))
        self.assertFalse(room.allows(room.event("m.room.member", CAROL, kick, BOB)))
        self.assertFalse(room.allows(room.event("m.room.member", ALICE, kick, BOB)))
        for named in (ALICE, BOB):
            levels = {"users": {CAROL: 2**53 - 1, named: 100}}
            self.assertFalse(room.allows(room.event("m.room.power_levels", ALICE, levels, "")))

    def test_need_create(self) -> None:
        """Without a create event, or with another room's, nothing is allowed."""
        for version in ALL_VERSIONS:
            room = Room.of(version, ALICE).with_members(ALICE)
            event = room.event("m.room.message", ALICE, {})
            create = room.state.pop(("m.room.create", ""))
            self.assertFalse(room.allows(event))
            other = Room.of(version, ALICE, {"x": 1}, room_id=RoomID("!other:alpha.example"))
            room.state[create.key] = other.create
            self.assertFalse(room.allows(event))


class AuthEventsTest(SynchronousTestCase):
    """The events that an event names as its authority."""

    def _room(self, version: RoomVersion) -> tuple[Room, Event, list[Event]]:
        room = Room.of(version, ALICE).with_members(ALICE, BOB)
        levels = room.set("m.room.power_levels", {"users": {}})
        event = room.event("m.room.message", ALICE, {})
        named = [room.state["m.room.member", ALICE], levels]
        return room, event, [room.create, *named] if version.create_in_auth_events else named

    def test_accept_needed(self) -> None:
        """What the selection asks for is accepted in every version."""
        for version in ALL_VERSIONS:
            _, event, named = self._room(version)
            check_auth_events(event, named)

    def test_refuse_wrong(self) -> None:
        """Events twice, not needed, of no state or of another room are refused (security: S3, F16)."""
        for version in ALL_VERSIONS:
            room, event, named = self._room(version)
            other = Room.of(version, ALICE, {"x": 1}, room_id=RoomID("!other:alpha.example"))
            elsewhere = other.with_members(ALICE).state["m.room.member", ALICE]
            unneeded = room.state["m.room.member", BOB]
            again = room.event("m.room.member", ALICE, {"membership": "join", "again": True}, ALICE)
            for extra in (named[-1], again, unneeded, elsewhere, event):
                with self.assertRaises(AuthError, msg=f"{version.id} {extra}"):
                    check_auth_events(event, [*named, extra])

    def test_create_among_them(self) -> None:
        """The create event is named up to version 11 and not from 12 on (security: S3)."""
        for version in ALL_VERSIONS:
            room, event, named = self._room(version)
            wrong = named[1:] if version.create_in_auth_events else [room.create, *named]
            with self.assertRaises(AuthError):
                check_auth_events(event, wrong)

    def test_create_names_none(self) -> None:
        """A create event names no authority."""
        room, event, _ = self._room(V11)
        check_auth_events(room.create, [])
        with self.assertRaises(AuthError):
            check_auth_events(room.create, [event])

    def test_slots_of_another_room(self) -> None:
        """State of another room counts in no slot of what an event is judged by (security: S2)."""
        token = {"third_party_invite": {"signed": {"token": "t"}}}
        authority = {"join_authorised_via_users_server": CAROL}
        slots: list[tuple[str, dict[str, Any], str]] = [
            ("m.room.power_levels", {"users": {BOB: 100}}, ""),
            ("m.room.join_rules", {"join_rule": "public"}, ""),
            ("m.room.third_party_invite", {}, "t"),
            *(("m.room.member", {"membership": "join"}, user) for user in (ALICE, BOB, CAROL)),
        ]
        for version in ALL_VERSIONS:
            for membership, more in (("join", authority), ("invite", token)):
                for event_type, content, state_key in slots:
                    room = Room.of(version, ALICE).with_members(ALICE)
                    other = Room.of(version, ALICE, {"x": 1}, room_id=RoomID("!other:alpha.example"))
                    key = (event_type, state_key)
                    event = room.event("m.room.member", ALICE, {"membership": membership, **more}, BOB)
                    wanted = auth_keys_for(version, event.type, ALICE, BOB, event.content)
                    if key not in wanted:
                        continue
                    room.state[key] = other.set(event_type, content, state_key)
                    with self.assertRaisesRegex(AuthError, "another room", msg=f"{version.id} {key}"):
                        check_auth(event, room.state)
                    with self.assertRaisesRegex(AuthError, "another room"):
                        named = [each for each in room.state.values() if each.key in wanted]
                        check_auth_events(event, named[version.create_in_auth_events ^ 1 :])

    def test_select(self) -> None:
        """Memberships ask for join rules, tokens and authorities only where the rules read them."""
        base = {("m.room.create", ""), ("m.room.power_levels", ""), ("m.room.member", ALICE)}
        rules, target = ("m.room.join_rules", ""), ("m.room.member", BOB)
        token = {"third_party_invite": {"signed": {"token": "t"}}}
        authority = {"join_authorised_via_users_server": CAROL}
        cases: list[tuple[RoomVersion, dict[str, Any], set[StateKey]]] = [
            (V11, {"membership": "leave", **token, **authority}, set()),
            (V11, {"membership": "ban"}, set()),
            (V11, {"membership": "join", **token, **authority}, {rules, ("m.room.member", CAROL)}),
            (V5, {"membership": "join", **authority}, {rules}),
            (V11, {"membership": "invite", **token}, {rules, ("m.room.third_party_invite", "t")}),
            (V11, {"membership": "invite", "third_party_invite": 3}, {rules}),
            (V11, {"membership": "knock"}, {rules}),
        ]
        for version, content, more in cases:
            found = auth_keys_for(version, "m.room.member", ALICE, BOB, content)
            self.assertEqual(found, base | {target} | more, content)
        self.assertEqual(auth_keys_for(V11, "m.room.create", ALICE, "", {}), frozenset())


class RedactionTest(SynchronousTestCase):
    """Who may redact what."""

    def test_old_rule(self) -> None:
        """Versions 1 and 2 ask for the level, or an event of the redacting event's server (security: S7)."""
        room = Room.of(V1, ALICE).with_members(ALICE, BOB)
        own, other = EventID("$x:beta.example"), EventID("$x:alpha.example")
        for redacts, allowed in ((own, True), (other, False), (EventID("nonsense"), False), (None, False)):
            event = room.event("m.room.redaction", BOB, {}, redacts=redacts)
            self.assertEqual(room.allows(event), allowed, redacts)
        self.assertTrue(room.allows(room.event("m.room.redaction", ALICE, {}, redacts=own)))

    def test_apply(self) -> None:
        """From version 3 a redaction applies by level, or to its sender's server's events (security: S7)."""
        table = ((ALICE, BOB, True), (CAROL, ALICE, True), (BOB, ALICE, False), (BOB, BOB, True))
        for version in ALL_VERSIONS[2:]:
            room = Room.of(version, ALICE).with_members(ALICE, BOB, CAROL)
            power = PowerLevels.of(version, room.create, None)
            for redactor, author, applies in table:
                target = room.event("m.room.message", author, {})
                redaction = room.event("m.room.redaction", redactor, {}, redacts=target.event_id)
                self.assertTrue(room.allows(redaction))
                self.assertEqual(may_redact(redaction, target, power), applies, (version.id, redactor))
            other = Room.of(version, ALICE, {"x": 1}, room_id=RoomID("!other:alpha.example"))
            self.assertFalse(may_redact(redaction, other.event("m.room.message", BOB, {}), power))

    def test_ask(self) -> None:
        """A user of this server needs the level for events of another user of it (security: S7)."""
        room = Room.of(V3, ALICE).with_members(ALICE, CAROL)
        power = PowerLevels.of(V3, room.create, None)
        target = room.event("m.room.message", ALICE, {})
        self.assertEqual(server_of(CAROL), server_of(ALICE))
        self.assertFalse(may_ask_to_redact(CAROL, target, power))
        self.assertTrue(may_ask_to_redact(ALICE, room.event("m.room.message", CAROL, {}), power))

    def test_ask_for_what_nobody_redacts(self) -> None:
        """Nobody here redacts the create event or an ACL, not even who sent it (security: S5)."""
        for version in ALL_VERSIONS:
            room = Room.of(version, ALICE).with_members(ALICE)
            power = PowerLevels.of(version, room.create, None)
            self.assertFalse(may_ask_to_redact(ALICE, room.create, power))
            acl = room.event("m.room.server_acl", ALICE, {"allow": ["*"]}, "")
            self.assertFalse(may_ask_to_redact(ALICE, acl, power))


class NonsenseTest(SynchronousTestCase):
    """Content of any shape, in what is judged and in what it is judged by."""

    TYPES = st.sampled_from(
        (
            "m.room.create",
            "m.room.member",
            "m.room.power_levels",
            "m.room.join_rules",
            "m.room.third_party_invite",
            "m.room.redaction",
            "m.room.aliases",
            "m.room.message",
        )
    )
    NAMES = st.sampled_from(
        (
            "membership",
            "users",
            "events",
            "notifications",
            "users_default",
            "ban",
            "invite",
            "join_rule",
            "third_party_invite",
            "join_authorised_via_users_server",
            "public_key",
            "public_keys",
            "additional_creators",
            "creator",
            "redacts",
        )
    )
    MEANT = st.sampled_from(("join", "invite", "leave", "ban", "knock", "restricted", ALICE, BOB))
    CONTENT = st.dictionaries(NAMES, NONSENSE | MEANT, max_size=5)

    @settings(max_examples=150, deadline=None)
    @given(
        version=st.sampled_from(ALL_VERSIONS),
        event_type=TYPES,
        state_key=st.sampled_from((None, "", ALICE, BOB, "nonsense")),
        content=CONTENT,
        state=st.dictionaries(TYPES, CONTENT, max_size=4),
    )
    def test_only_refuse(
        self,
        version: RoomVersion,
        event_type: str,
        state_key: str | None,
        content: dict[str, Any],
        state: dict[str, dict[str, Any]],
    ) -> None:
        """No content makes the rules raise anything but a refusal (security: F16, S4)."""
        room = Room.of(version, ALICE).with_members(ALICE)
        for each, its_content in state.items():
            if each == "m.room.create":
                room.set(each, {**room.create.content, **its_content})
            else:
                room.set(each, its_content, ALICE if each == "m.room.member" else "")
        event = room.event(event_type, ALICE, content, state_key)
        for check in (lambda: check_auth(event, room.state), lambda: check_auth_events(event, [event])):
            try:
                check()
            except AuthError:
                continue
