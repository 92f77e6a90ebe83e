"""Memberships: knocking, restricted joins and third-party invites, condition by condition."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from protocol.canonical_json import JsonObject
from protocol.identifiers import KeyID, ServerName, UserID
from protocol.room_versions import V11, RoomVersion
from protocol.signing import SigningKey, encode_base64, sign_json
from protocol.third_party_invites import MAX_CHECKS, third_party_token
from tests.protocol.helpers import ALICE, ALL_VERSIONS, BOB, KEY, OTHER_KEY
from tests.protocol.rooms import Room

CAROL = UserID("@carol:alpha.example")
IDENTITY = ServerName("identity.example")


def _member(room: Room, user_id: UserID, content: JsonObject, sender: UserID | None = None) -> bool:
    return room.allows(room.event("m.room.member", sender or user_id, content, user_id))


def _room(version: RoomVersion, rule: object = None, **levels: Any) -> Room:
    room = Room.of(version, ALICE).with_members(ALICE)
    users = {} if version.privileged_creators else {ALICE: 100}
    room.set("m.room.power_levels", {"users": users, **levels})
    if rule is not None:
        room.set("m.room.join_rules", {"join_rule": rule})
    return room


class KnockTest(SynchronousTestCase):
    """Knocking."""

    def test_versions(self) -> None:
        """Knocks are taken under `knock` from 7 and `knock_restricted` from 10 on (security: S3, S15)."""
        for version in ALL_VERSIONS:
            for rule, takes in (
                ("knock", version.knock),
                ("knock_restricted", version.knock_restricted_join),
                ("restricted", False),
                ("invite", False),
                ("public", False),
                (None, False),
                (["knock"], False),
            ):
                room = _room(version, rule)
                self.assertEqual(_member(room, BOB, {"membership": "knock"}), takes, (version.id, rule))

    def test_conditions(self) -> None:
        """Nobody knocks for others, nor when in, invited or banned; a knock is taken back (security: S15)."""
        room = _room(V11, "knock")
        knock = {"membership": "knock"}
        self.assertFalse(_member(room, BOB, knock, sender=ALICE))
        for present, allowed in (("join", False), ("invite", False), ("ban", False), ("knock", True)):
            room.set("m.room.member", {"membership": present}, BOB)
            self.assertEqual(_member(room, BOB, knock), allowed, present)
        room.set("m.room.member", knock, BOB)
        self.assertTrue(_member(room, BOB, {"membership": "leave"}))
        self.assertFalse(_member(room, BOB, {"membership": "join"}))


class RestrictedTest(SynchronousTestCase):
    """Joining by the authority of a member."""

    def _joins(self, room: Room, authority: object = ALICE) -> bool:
        content = {"membership": "join", "join_authorised_via_users_server": authority}
        return _member(room, BOB, content)

    def test_versions(self) -> None:
        """An authority counts under the rules of versions that know them (security: S15)."""
        for version in ALL_VERSIONS:
            restricted = self._joins(_room(version, "restricted"))
            self.assertEqual(restricted, version.restricted_join, version.id)
            knocking = self._joins(_room(version, "knock_restricted"))
            self.assertEqual(knocking, version.knock_restricted_join, version.id)
            self.assertFalse(self._joins(_room(version, "invite")))

    def test_authority(self) -> None:
        """An authority is in the room and may invite (security: S15)."""
        room = _room(V11, "restricted", invite=50)
        self.assertTrue(self._joins(room))
        self.assertFalse(self._joins(room, CAROL))
        room.with_members(CAROL)
        self.assertFalse(self._joins(room, CAROL))
        for value in (None, 3, [], "nonsense", BOB):
            self.assertFalse(self._joins(room, value))
        self.assertFalse(_member(room, BOB, {"membership": "join"}))

    def test_inside(self) -> None:
        """Members and invited users need no authority, and no authority lets banned ones in."""
        room = _room(V11, "restricted")
        for present, allowed in (("join", True), ("invite", True), ("ban", False), ("leave", False)):
            room.set("m.room.member", {"membership": present}, BOB)
            self.assertEqual(_member(room, BOB, {"membership": "join"}), allowed)
            self.assertEqual(self._joins(room), present != "ban")


class JoinRuleTest(SynchronousTestCase):
    """What the join rules let in."""

    def test_unsaid(self) -> None:
        """Where no rule is said only the invited join; under nonsense nobody does (security: S3)."""
        for version in ALL_VERSIONS:
            for content, invited in (({}, True), (None, True), ({"join_rule": None}, False)):
                room = _room(version)
                if content is not None:
                    room.set("m.room.join_rules", content)
                for present, inside in (("invite", True), ("join", True), ("leave", False), ("ban", False)):
                    room.set("m.room.member", {"membership": present}, BOB)
                    joins = _member(room, BOB, {"membership": "join"})
                    self.assertEqual(joins, invited and inside, (version.id, content, present))


class ThirdPartyTest(SynchronousTestCase):
    """Invites to addresses that an identity server knows."""

    def _content(self, key: SigningKey = KEY, **changes: Any) -> JsonObject:
        signed = sign_json({"mxid": BOB, "token": "t", **changes}, IDENTITY, key)
        return {"membership": "invite", "third_party_invite": {"display_name": "b", "signed": signed}}

    def _issued(self, content: JsonObject | None = None) -> Room:
        room = _room(V11)
        if content is None:
            content = {"public_key": encode_base64(bytes(KEY.verify_key))}
        room.set("m.room.third_party_invite", content, "t")
        return room

    def test_accept(self) -> None:
        """A signed invite with the token and a key of the state is good, in either alphabet of base64."""
        text = encode_base64(bytes(KEY.verify_key))
        urlsafe = text.replace("+", "-").replace("/", "_") + "="
        for content in ({"public_key": text}, {"public_keys": [3, {"public_key": urlsafe}]}):
            self.assertTrue(_member(self._issued(content), BOB, self._content(), sender=ALICE))

    def test_each_condition(self) -> None:
        """An invite that lacks any condition is refused (security: S15)."""
        room = self._issued()
        good = self._content()
        wrong: list[JsonObject] = [
            self._content(mxid=CAROL),
            self._content(token="other"),
            self._content(token=3),
            self._content(key=OTHER_KEY),
            {**good, "third_party_invite": {}},
            {**good, "third_party_invite": None},
            {**good, "third_party_invite": {"signed": []}},
        ]
        altered = self._content()
        altered["third_party_invite"]["signed"]["more"] = 1
        unsigned = self._content()
        del unsigned["third_party_invite"]["signed"]["signatures"]
        for content in (*wrong, altered, unsigned):
            self.assertFalse(_member(room, BOB, content, sender=ALICE), content)
        room.with_members(CAROL)
        self.assertFalse(_member(room, BOB, good, sender=CAROL))
        room.set("m.room.member", {"membership": "ban"}, BOB)
        self.assertFalse(_member(room, BOB, good, sender=ALICE))

    def test_key_of_attacker(self) -> None:
        """Only keys in the state count; one beside the signature does not (security: S15)."""
        content = self._content(key=OTHER_KEY)
        content["public_key"] = content["third_party_invite"]["public_key"] = encode_base64(
            bytes(OTHER_KEY.verify_key)
        )
        for issued in (None, {}, {"public_key": "?"}, {"public_key": 3, "public_keys": "x"}):
            self.assertFalse(_member(self._issued(issued), BOB, content, sender=ALICE))

    def test_bound_checks(self) -> None:
        """Signatures beyond a bound are not looked at (security: F16)."""
        content = self._content()
        signatures = content["third_party_invite"]["signed"]["signatures"]
        last = signatures.pop(IDENTITY)
        for number in range(MAX_CHECKS):
            signatures[f"s{number}.example"] = {KeyID("ed25519:1"): "AAAA"}
        signatures["zzz.example"] = last
        self.assertFalse(_member(self._issued(), BOB, content, sender=ALICE))

    def test_token(self) -> None:
        """A token is found where the invite has one."""
        self.assertEqual(third_party_token(self._content()), "t")
        for value in (None, 3, {}, {"signed": 3}, {"signed": {"token": 3}}):
            self.assertIsNone(third_party_token({"third_party_invite": value}))
