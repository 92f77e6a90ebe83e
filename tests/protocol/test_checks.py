"""Tests of the one door: format, size, signatures and hash of what other servers send."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from protocol.canonical_json import JsonObject, encode
from protocol.checks import keys_named, parse_pdu, safe_unsigned, signatures_needed, verify_pdu
from protocol.errors import BadJson, EventTooLarge, MatrixError, NotJson
from protocol.events import countersign
from protocol.hashes import content_hash, essential_bytes
from protocol.identifiers import ServerName
from protocol.limits import MAX_DEPTH, MAX_EVENT_BYTES
from protocol.room_versions import ROOM_VERSIONS, V1, V2, V3, V5, V6, V7, V8, V9, V10, V11, V12, RoomVersion
from protocol.server_keys import read_key_document
from protocol.signing import InvalidSignature, add_signature, encode_base64
from tests.protocol.helpers import (
    ALICE,
    ALL_VERSIONS,
    BOB,
    KEY,
    OTHER_KEY,
    SERVER,
    VECTORS,
    build,
    read_vectors,
    room_id_for,
)
from tests.protocol.test_canonical_json import INTEGERS, json_values

KEYS = {(SERVER, KEY.key_id): KEY.verify_key}
BETA = ServerName("beta.example")


def signed(pdu: JsonObject, version: RoomVersion) -> JsonObject:
    """Hash and sign a PDU as its sender would, whatever nonsense it holds."""
    pdu = {**pdu, "hashes": {"sha256": encode_base64(content_hash(pdu, version))}, "signatures": {}}
    return resigned(pdu, version)


def resigned(pdu: JsonObject, version: RoomVersion) -> JsonObject:
    """Sign a PDU as its sender would, whatever its hash."""
    return add_signature(pdu, SERVER, KEY.key_id, KEY.sign(essential_bytes(pdu, version)))


def _spellings(text: str) -> list[str]:
    """Give other ways to write the same bytes."""
    odd_end = text[:-1] + chr(ord(text[-1]) + 1)
    return [text + "==", text + "====", text.replace("+", "-").replace("/", "_"), odd_end]


class FormatTests(SynchronousTestCase):
    """What has the format of its room version."""

    def refuse(self, version: RoomVersion, error: type[MatrixError] = BadJson, **fields: Any) -> None:
        """Assert that a good event with these fields changed is refused."""
        pdu = {**build(version, state_key="").pdu, **fields}
        with self.assertRaises(error, msg=f"{fields!r:.100} in version {version.id}"):
            parse_pdu(pdu, version)

    def test_events_of_synapse_come_in(self) -> None:
        """Every vector has the right format, the ID and the room that Synapse gave it."""
        for version, key, server, vector in read_vectors():
            pdu = parse_pdu(vector["pdu"], version)
            self.assertEqual((pdu.event_id, pdu.room_id), (vector["event_id"], vector["room_id"]))
            if server in signatures_needed(pdu) and len(signatures_needed(pdu)) == 1:
                event = verify_pdu(pdu, {(ServerName(server), key.key_id): key.verify_key})
                self.assertFalse(event.hash_mismatch)

    def test_every_field_must_be_there(self) -> None:
        """An event that lacks a field is refused, and one with a field too many is not."""
        for version in ALL_VERSIONS:
            good = build(version).pdu
            self.assertEqual(parse_pdu({**good, "org.example": [None]}, version).event.type, "m.room.message")
            for name in good:
                pdu = {key: value for key, value in good.items() if key != name}
                with self.assertRaises(BadJson, msg=name):
                    parse_pdu(pdu, version)

    def test_integers(self) -> None:
        """Times and depths are integers in range and nothing like one (security: F1)."""
        strange = [2**53, -(2**53), 2**63, 10**400, 1e400, 1.0, -0.0, "1", True, None, [1], {"a": 1}]
        for version in (V6, V10, V11, V12):
            self.refuse(version, depth=-1)
            parse_pdu({**build(version).pdu, "origin_server_ts": -MAX_DEPTH}, version)
            for name in ("depth", "origin_server_ts"):
                for value in strange:
                    self.refuse(version, **{name: value})
                parse_pdu({**build(version).pdu, name: MAX_DEPTH}, version)

    def test_integers_anywhere(self) -> None:
        """The range holds for the whole PDU, content, unknown keys and hashes alike (security: F1)."""
        for value in (2**53, -(2**53), 2**63, 10**400, float("inf"), float("nan"), 1.0, -0.0):
            for name in ("content", "org.example", "prev_content", "hashes"):
                good = build(V11).pdu.get(name, {})
                self.refuse(V11, **{name: {**good, "x": [{"y": value}]}})
            self.refuse(V6, origin=value)
            raw = build(V11).raw.replace(b'"body":', b'"n":-0,"body":')
            with self.assertRaises(BadJson):
                parse_pdu(raw, V11)

    def test_old_rooms_may_hold_any_number(self) -> None:
        """Before version 6 numbers are let through as they are, and depth is clamped (security: F13)."""
        for version in (V1, V3, V5):
            event = build(version, content={"f": 1.5, "i": 2**70})
            pdu = signed({**event.pdu, "depth": 2**63 - 1, "origin_server_ts": 2**53}, version)
            received = verify_pdu(parse_pdu(pdu, version), KEYS)
            self.assertEqual(received.content, {"f": 1.5, "i": 2**70})
            self.assertEqual((received.depth, received.origin_server_ts), (MAX_DEPTH, MAX_DEPTH))
            self.assertEqual(received.pdu["depth"], 2**63 - 1)
            self.refuse(version, depth=2**63)
            self.refuse(version, depth=1.0)
            self.refuse(version, depth=True)

    def test_types(self) -> None:
        """Each field has its type, in every version."""
        for version in ALL_VERSIONS:
            for name in ("type", "sender", "state_key", "room_id"):
                for value in (None, 5, [], {}, True):
                    self.refuse(version, **{name: value})
            for name in ("content", "hashes", "signatures"):
                for value in (None, 5, [], "x"):
                    self.refuse(version, **{name: value})
            for name in ("prev_events", "auth_events"):
                for value in (
                    None,
                    5,
                    {},
                    "x",
                    [5],
                    [None],
                    [["$a:b"]] if version.hashed_event_ids else ["$a:b"],
                    [[]],
                ):
                    self.refuse(version, **{name: value})
            for value in ({}, {"sha256": 5}, {"sha256": "AAAAA"}, {"sha256": "é"}, {"md5": "x"}):
                self.refuse(version, hashes=value)
            for value in ("alice", "@alice", "@a:b:c", "@\0:a.org", ""):
                self.refuse(version, sender=value)
        for obj in (None, 5, [], "x", [{}], True):
            with self.assertRaises(BadJson):
                parse_pdu(obj, V11)

    def test_room_ids(self) -> None:
        """A room ID is a hash in version 12, and names a server before (security: F19)."""
        for version in ALL_VERSIONS:
            other = V1 if version.room_id_is_create_hash else V12
            self.refuse(version, room_id=room_id_for(other))
            self.refuse(version, room_id="!a\0:b")
            self.refuse(version, room_id="#a:b")
        create = build(V12, room_id=None, type="m.room.create", state_key="").pdu
        self.assertEqual(parse_pdu(create, V12).room_id, "!" + parse_pdu(create, V12).event_id[1:])
        with self.assertRaises(BadJson):
            parse_pdu({**create, "room_id": "!" + "R" * 43}, V12)

    def test_a_forged_room_id_is_not_the_one_of_the_create_event(self) -> None:
        """A create event altered in any way makes another room than the one asked for (security: F19)."""
        create = build(V12, room_id=None, type="m.room.create", state_key="", content={"room_version": "12"})
        for changed in ({"sender": BOB}, {"content": {"room_version": "11"}}, {"origin_server_ts": 1}):
            forged = parse_pdu({**create.pdu, **changed}, V12)
            self.assertNotEqual(forged.room_id, create.room_id)

    def test_event_ids(self) -> None:
        """Versions 1 and 2 name their events, later ones must not."""
        for version in (V1, V2):
            for value in ("x", "$x", "$:", "x:y", None, 5):
                self.refuse(version, event_id=value)
        for version in (V3, V12):
            self.refuse(version, event_id="$" + "A" * 43)

    def test_lengths(self) -> None:
        """Identifiers have at most 255 bytes; old rooms reject longer ones later (security: F12)."""
        crab = "\U0001f980"
        for version in ALL_VERSIONS:
            for name, prefix, suffix in (
                ("type", "", ""),
                ("state_key", "", ""),
                ("sender", "@", ":a.org"),
                ("room_id", "!", ":a.org"),
            ):
                if name == "room_id" and version.room_id_is_create_hash:
                    continue
                space = 255 - len(prefix) - len(suffix)
                fits = prefix + crab * (space // 4) + "x" * (space % 4) + suffix
                too_many = prefix + crab + crab * (space // 4) + "x" * (space % 4) + suffix
                pdu = build(version, state_key="").pdu
                self.assertFalse(parse_pdu({**pdu, name: fits}, version).event.too_long)
                if version.strict_byte_limits:
                    self.refuse(version, EventTooLarge, **{name: too_many})
                else:
                    self.assertTrue(parse_pdu({**pdu, name: too_many}, version).event.too_long)
                self.refuse(version, EventTooLarge, **{name: prefix + "x" * (space + 1) + suffix})

    def test_size(self) -> None:
        """The whole event has at most 65,536 bytes of canonical JSON (security: F12)."""
        for version in ALL_VERSIONS:
            pdu = build(version, content={"body": ""}).pdu
            space = MAX_EVENT_BYTES - len(encode(pdu))
            fits = {**pdu, "content": {"body": "\U0001f980" * (space // 4) + "x" * (space % 4)}}
            self.assertEqual(len(parse_pdu(fits, version).event.raw), MAX_EVENT_BYTES)
            fits["content"]["body"] += "x"
            with self.assertRaises(EventTooLarge):
                parse_pdu(fits, version)

    def test_counts_of_references(self) -> None:
        """An event has at most 20 parents and names 10 for its authority, save for events of the past."""
        for version in ALL_VERSIONS:
            pdu = build(version).pdu
            for name, bound in (("prev_events", 20), ("auth_events", 10)):
                one = pdu[name][0]
                parse_pdu({**pdu, name: [one] * bound}, version)
                self.refuse(version, **{name: [one] * (bound + 1)})
                parse_pdu({**pdu, name: [one] * 200}, version, backfill=True)
                with self.assertRaises(MatrixError):
                    parse_pdu({**pdu, name: [one] * 1001}, version, backfill=True)

    def test_signatures_are_capped(self) -> None:
        """Five thousand signatures are refused before anybody looks up a key (security: K9)."""
        self.refuse(V11, signatures={f"s{number}": {} for number in range(5000)})
        self.refuse(V11, signatures={SERVER: {f"ed25519:{number}": "" for number in range(5000)}})
        for value in (
            {SERVER: None},
            {SERVER: []},
            {SERVER: {"ed25519:1": 5}},
            {SERVER: {"ed25519:1": None}},
        ):
            self.refuse(V11, signatures=value)

    def test_bytes_are_read_by_the_version(self) -> None:
        """Bytes are parsed strictly or laxly, and what is not JSON is told so (security: K2)."""
        event = build(V11)
        self.assertEqual(parse_pdu(event.raw, V11).event, event)
        for raw in (b"", b"{", b"\xff", b"[" * 100_000, b'{"a":"\\ud800"}'):
            with self.assertRaises((NotJson, BadJson)):
                parse_pdu(raw, V11)
        duplicate = event.raw.replace(b'"content":{', b'"content":{"body":"other"},"content":{')
        self.assertEqual(parse_pdu(duplicate, V11).event.raw, event.raw)

    @given(st.sampled_from(ALL_VERSIONS), st.data())
    def test_any_nonsense_is_an_error_with_a_name(self, version: RoomVersion, data: st.DataObject) -> None:
        """Whatever JSON stands in whatever field, the event comes in or a MatrixError says why not."""
        pdu = build(version, state_key="").pdu
        for name in data.draw(
            st.lists(st.sampled_from([*sorted(pdu), "redacts", "unsigned", "x"]), max_size=4)
        ):
            pdu[name] = data.draw(json_values(INTEGERS | st.floats()))
        try:
            parsed = parse_pdu(pdu, version)
            verify_pdu(parsed, KEYS)
        except MatrixError:
            return
        self.assertEqual(parsed.event.pdu.keys(), pdu.keys() - {"unsigned"})
        self.assertEqual(parsed.event.content, parsed.event.pdu["content"])


class UnsignedTests(SynchronousTestCase):
    """What is kept of `unsigned`."""

    def test_only_the_harmless_is_kept(self) -> None:
        """Age and stripped state are kept; what would pass for our own word is not."""
        found = safe_unsigned(
            {
                "age": 5,
                "redacted_because": {"type": "m.room.redaction"},
                "prev_content": {"membership": "join"},
                "transaction_id": "x",
                "m.relations": {},
                "invite_room_state": [{"type": "m.room.name"}, 5, None, "x"],
                "knock_room_state": "nonsense",
            }
        )
        self.assertEqual(found, {"age": 5, "invite_room_state": [{"type": "m.room.name"}]})

    def test_nonsense_is_nothing(self) -> None:
        """Nonsense in `unsigned` neither harms the event nor is it kept (security: F11)."""
        for unsigned in (
            None,
            5,
            [],
            "x",
            {"age": "5"},
            {"age": -1},
            {"age": True},
            {"invite_room_state": 5},
        ):
            pdu = parse_pdu({**build(V11).pdu, "unsigned": unsigned}, V11)
            self.assertEqual(pdu.unsigned, {})
            self.assertNotIn(b"unsigned", pdu.event.raw)
        many = safe_unsigned({"invite_room_state": [{}] * 10_000})
        self.assertEqual(len(many["invite_room_state"]), 100)


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
