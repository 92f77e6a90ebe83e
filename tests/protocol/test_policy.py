"""Tests of policy servers: which one a room names, and its signatures on events."""

from __future__ import annotations

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from protocol.checks import keys_named, parse_pdu, verify_pdu
from protocol.errors import EventTooLarge
from protocol.events import Event, EventDraft, Links, build_event
from protocol.hashes import essential_bytes
from protocol.identifiers import EventID, KeyID, RoomID, ServerName, UserID
from protocol.policy import POLICY_KEY_ID, PolicyServer, needs_policy
from protocol.room_versions import V1, V10, V12, RoomVersion
from protocol.signing import InvalidSignature, SigningKey, encode_base64

ORIGIN = ServerName("here.example")
KEY = SigningKey(b"\1" * 32, KeyID("ed25519:1"))
POLICY = SigningKey(b"\2" * 32, POLICY_KEY_ID)
PUBLIC = encode_base64(bytes(POLICY.verify_key))


def content(via: str = "policy.example", key: object = PUBLIC) -> dict[str, object]:
    """Give the content of an `m.room.policy`."""
    return {"via": via, "public_keys": {"ed25519": key}}


def event(version: RoomVersion = V12, body: str = "hello") -> Event:
    """Build a message."""
    draft = EventDraft(
        RoomID("!room:here.example"), "m.room.message", UserID("@a:here.example"), {"body": body}
    )
    links = Links((EventID("$a"),), (EventID("$b"),), 3)
    return build_event(draft, version, links, now=1, server_name=ORIGIN, key=KEY)


def signature(of: Event, key: SigningKey = POLICY) -> str:
    """Sign an event as a policy server does."""
    return key.sign_base64(essential_bytes(of.pdu, of.version))


class NamingTests(SynchronousTestCase):
    """What a room's state says."""

    def test_only_whole_content_names_a_policy_server(self) -> None:
        """Both `via` and the key must be there, as strings."""
        named = PolicyServer.of(content())
        assert named is not None
        self.assertEqual((named.name, named.key), ("policy.example", POLICY.verify_key))
        for broken in ({}, {"via": "a.example"}, content(key=5), {**content(), "via": None}, {"via": []}):
            self.assertIsNone(PolicyServer.of(broken))
        self.assertIsNone(PolicyServer.of({"via": "a.example", "public_keys": ["ed25519"]}))

    def test_by_a_key_that_is_none_nothing_is_recommended(self) -> None:
        """The room uses the server all the same, but no signature counts."""
        named = PolicyServer.of(content(key="not a key"))
        assert named is not None
        one = event()
        self.assertFalse(named.recommends(one))
        with self.assertRaises(InvalidSignature):
            named.signed(one, signature(one))

    def test_all_but_the_event_that_names_it_need_it(self) -> None:
        """A message of that type, or other state of it, needs a signature like any event."""
        self.assertFalse(needs_policy("m.room.policy", ""))
        for event_type, state_key in (("m.room.policy", None), ("m.room.policy", "x"), ("m.room.member", "")):
            self.assertTrue(needs_policy(event_type, state_key))


class SignatureTests(SynchronousTestCase):
    """Signatures of policy servers on events."""

    def test_a_good_signature_is_added_and_counts(self) -> None:
        """In every format of events; the event's ID stays, and its origin's signature too."""
        named = PolicyServer.of(content())
        assert named is not None
        for version in (V1, V10, V12):
            one = event(version)
            self.assertFalse(named.recommends(one))
            both = named.signed(one, signature(one))
            self.assertTrue(named.recommends(both))
            self.assertEqual(both.event_id, one.event_id)
            self.assertEqual(both.pdu["signatures"][ORIGIN], one.pdu["signatures"][ORIGIN])

    def test_under_one_name_both_signatures_stand(self) -> None:
        """A policy server that is the origin as well does not lose its own signature."""
        named = PolicyServer.of(content(via=ORIGIN))
        assert named is not None
        one = event()
        both = named.signed(one, signature(one))
        self.assertEqual(set(both.pdu["signatures"][ORIGIN]), {"ed25519:1", POLICY_KEY_ID})
        self.assertTrue(named.recommends(both))

    def test_a_bad_signature_is_not_taken(self) -> None:
        """Neither of another key, nor on another event, nor what is none."""
        named = PolicyServer.of(content())
        assert named is not None
        one = event()
        for bad in (signature(one, KEY), signature(event(body="other")), "AAAA", "!", ""):
            with self.assertRaises(InvalidSignature):
                named.signed(one, bad)

    def test_an_event_without_room_for_the_signature(self) -> None:
        """The bound on bytes holds with the signature."""
        named = PolicyServer.of(content())
        assert named is not None
        spare = 65_536 - len(event(body="").raw)
        one = event(body="x" * spare)
        with self.assertRaises(EventTooLarge):
            named.signed(one, signature(one))

    def test_its_key_speaks_for_no_server(self) -> None:
        """When an event's own signatures are checked, that key ID is passed over, whatever key it is."""
        named = PolicyServer.of(content(via=ORIGIN))
        assert named is not None
        one = event(V10)
        both = parse_pdu(named.signed(one, signature(one)).pdu, V10)
        self.assertEqual(keys_named(both), {(ORIGIN, KeyID("ed25519:1"))})
        verify_pdu(both, {(ORIGIN, KeyID("ed25519:1")): KEY.verify_key})
        broken = both.json
        broken["signatures"][ORIGIN][POLICY_KEY_ID] = "A" * 86
        verify_pdu(
            evolve(both, json=broken),
            {
                (ORIGIN, KeyID("ed25519:1")): KEY.verify_key,
                (ORIGIN, POLICY_KEY_ID): POLICY.verify_key,
            },
        )
        with self.assertRaises(InvalidSignature):
            verify_pdu(both, {(ORIGIN, POLICY_KEY_ID): POLICY.verify_key})
