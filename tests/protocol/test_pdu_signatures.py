"""Tests of the signatures and the hash of what other servers send."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from protocol.canonical_json import JsonObject
from protocol.checks import keys_named, parse_pdu, signatures_needed, verify_pdu
from protocol.errors import BadJson
from protocol.events import countersign
from protocol.hashes import essential_bytes
from protocol.identifiers import ServerName
from protocol.room_versions import ROOM_VERSIONS, V1, V2, V6, V7, V8, V9, V10, V11, V12, RoomVersion
from protocol.server_keys import read_key_document
from protocol.signing import InvalidSignature
from tests.protocol.helpers import ALICE, ALL_VERSIONS, BOB, KEY, KEYS, OTHER_KEY, SERVER, VECTORS, build
from tests.protocol.test_checks import resigned

BETA = ServerName("beta.example")


def _spellings(text: str) -> list[str]:
    """Give other ways to write the same bytes."""
    odd_end = text[:-1] + chr(ord(text[-1]) + 1)
    return [text + "==", text + "====", text.replace("+", "-").replace("/", "_"), odd_end]


class SignaturesNeededTests(SynchronousTestCase):
    """Whose signatures an event needs."""

    def needed(self, version: RoomVersion, content: JsonObject, **fields: Any) -> set[str]:
        """Give the servers that must sign a membership with this content."""
        pdu = build(version, type="m.room.member", state_key=ALICE, content=content).pdu
        return set(signatures_needed(parse_pdu({**pdu, **fields}, version)))

    def test_the_sender_signs(self) -> None:
        """The sender's server signs, in every version."""
        for version in ALL_VERSIONS:
            self.assertEqual(self.needed(version, {"membership": "join"}), {SERVER})

    def test_the_server_of_an_old_event_id_signs(self) -> None:
        """In versions 1 and 2 so does the server that the event ID names."""
        for version in (V1, V2):
            self.assertEqual(self.needed(version, {}, event_id="$1:gamma.example"), {SERVER, "gamma.example"})

    def test_the_server_that_authorises_a_join_signs(self) -> None:
        """From version 8 on, a restricted join is signed by the server of the authorising user too."""
        content = {"membership": "join", "join_authorised_via_users_server": BOB}
        for version in (V6, V7):
            self.assertEqual(self.needed(version, content), {SERVER})
        for version in (V8, V9, V10, V11, V12):
            self.assertEqual(self.needed(version, content), {SERVER, BETA})
            self.assertEqual(self.needed(version, {**content, "membership": "leave"}), {SERVER})
            for nonsense in (5, "beta.example", [], "@bob"):
                with self.assertRaises(BadJson):
                    self.needed(version, {**content, "join_authorised_via_users_server": nonsense})

    def test_a_third_party_invite_is_excused(self) -> None:
        """An invite by a third-party token may come from any server; nothing else is excused by it."""
        content = {"membership": "invite", "third_party_invite": {"signed": {}}}
        self.assertEqual(self.needed(V11, content), set())
        self.assertEqual(self.needed(V11, {**content, "membership": "join"}), {SERVER})
        message = build(V11, content=content)
        self.assertEqual(signatures_needed(parse_pdu(message.raw, V11)), {SERVER})


class VerifyTests(SynchronousTestCase):
    """Signatures and hashes."""

    def test_events_of_a_running_synapse(self) -> None:
        """Whatever a Synapse process made and signed comes in whole, by the keys that it publishes."""
        found = json.loads((VECTORS / "synapse_process.json").read_text(encoding="utf-8"))
        document = found["key_document"]
        server = ServerName(found["server"])
        stated = read_key_document(document, server, document["valid_until_ts"]).keys
        keys = {(server, key_id): key.verify_key for key_id, key in stated.items()}
        versions = set()
        for vector in found["events"]:
            version = ROOM_VERSIONS[vector["room_version"]]
            event = verify_pdu(parse_pdu(vector["pdu"], version), keys)
            self.assertFalse(event.hash_mismatch)
            self.assertEqual((event.event_id, event.room_id), (vector["event_id"], vector["room_id"]))
            self.assertEqual(event.pdu, vector["pdu"])
            versions.add(version.id)
        self.assertEqual(versions, ROOM_VERSIONS.keys())

    def test_keys_named(self) -> None:
        """Only keys of servers whose signature is needed are asked for (security: K9)."""
        event = countersign(build(V11), BETA, OTHER_KEY)
        pdu = event.pdu
        pdu["signatures"][SERVER]["rsa:1"] = "x"
        self.assertEqual(keys_named(parse_pdu(pdu, V11)), {(SERVER, KEY.key_id)})

    def test_a_forged_event_is_refused(self) -> None:
        """An event without its sender's signature, or with another's, gets nowhere (security: F7)."""
        for version in ALL_VERSIONS:
            event = build(version)
            for signatures in (
                {},
                {SERVER: {}},
                {BETA: event.pdu["signatures"][SERVER]},
                {SERVER: {"ed25519:other": event.pdu["signatures"][SERVER][KEY.key_id]}},
                {SERVER: {KEY.key_id: OTHER_KEY.sign_base64(essential_bytes(event.pdu, version))}},
                {SERVER: {KEY.key_id: "!"}},
                {SERVER: {KEY.key_id: "AAAA"}},
            ):
                pdu = parse_pdu({**event.pdu, "signatures": signatures}, version)
                with self.assertRaises(InvalidSignature, msg=repr(signatures)):
                    verify_pdu(pdu, KEYS)

    def test_base64_is_read_as_others_read_it(self) -> None:
        """Who read it more strictly would lose the room to whoever writes it oddly."""
        pdu = build(V11, content={"n": 6}).pdu
        self.assertTrue({"+", "/"} & set(pdu["hashes"]["sha256"]))  # in which the alphabets differ
        signature = pdu["signatures"][SERVER][KEY.key_id]
        for spelling in _spellings(signature):
            odd = {**pdu, "signatures": {SERVER: {KEY.key_id: spelling}}}
            self.assertFalse(verify_pdu(parse_pdu(odd, V11), KEYS).hash_mismatch, spelling)
        for spelling in _spellings(pdu["hashes"]["sha256"]):
            odd = resigned({**pdu, "hashes": {"sha256": spelling}}, V11)
            self.assertFalse(verify_pdu(parse_pdu(odd, V11), KEYS).hash_mismatch, spelling)
        for wrong in ("", "AAAA", "!" * 43, "A" * 43):
            odd = resigned({**pdu, "hashes": {"sha256": wrong}}, V11)
            self.assertTrue(verify_pdu(parse_pdu(odd, V11), KEYS).hash_mismatch, wrong)

    def test_essential_fields_cannot_be_altered(self) -> None:
        """A change of anything that survives redaction breaks the signature."""
        for version in ALL_VERSIONS:
            event = build(version)
            for fields in (
                {"sender": "@eve:alpha.example"},
                {"depth": 8},
                {"type": "m.x"},
                {"state_key": "x"},
            ):
                with self.assertRaises(InvalidSignature):
                    verify_pdu(parse_pdu({**event.pdu, **fields}, version), KEYS)

    def test_unknown_keys_are_passed_over(self) -> None:
        """A signature by a key not given is no hindrance if another holds; a wrong one by a known key is."""
        event = build(V11)
        essential = essential_bytes(event.pdu, V11)
        pdu = event.pdu
        pdu["signatures"][SERVER]["ed25519:policy_server"] = "AAAA"
        self.assertFalse(verify_pdu(parse_pdu(pdu, V11), KEYS).hash_mismatch)
        pdu["signatures"][SERVER][OTHER_KEY.key_id] = KEY.sign_base64(essential)
        both = {**KEYS, (SERVER, OTHER_KEY.key_id): OTHER_KEY.verify_key}
        with self.assertRaises(InvalidSignature):
            verify_pdu(parse_pdu(pdu, V11), both)

    def test_a_wrong_hash_leaves_the_redacted_event(self) -> None:
        """Content altered by a relay is gone, and the event goes on under its ID (security: K7)."""
        for version in ALL_VERSIONS:
            event = build(version, content={"body": "original"})
            altered = {**event.pdu, "content": {"body": "altered"}, "org.example": 1}
            received = verify_pdu(parse_pdu(altered, version), KEYS)
            self.assertTrue(received.hash_mismatch)
            self.assertEqual(received.event_id, event.event_id)
            self.assertEqual(received.content, {})
            self.assertNotIn(b"altered", received.raw)
            self.assertNotIn("org.example", received.pdu)

    def test_a_redacted_copy_comes_in(self) -> None:
        """An event that its relay has redacted still bears good signatures (security: K7)."""
        event = build(V11, type="m.room.redaction", redacts="$" + "T" * 43, content={"reason": "x"})
        pdu = event.pdu
        del pdu["content"]["reason"]
        received = verify_pdu(parse_pdu(pdu, V11), KEYS)
        self.assertTrue(received.hash_mismatch)
        self.assertEqual(received.redacts, "$" + "T" * 43)
