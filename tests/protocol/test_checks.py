"""Tests of what other servers send: its format, its size, and what of it is kept."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from protocol.canonical_json import JsonObject, encode
from protocol.checks import parse_pdu, safe_unsigned, signatures_needed, verify_pdu
from protocol.errors import BadJson, EventTooLarge, MatrixError, NotJson
from protocol.hashes import content_hash, essential_bytes
from protocol.identifiers import ServerName
from protocol.limits import MAX_DEPTH, MAX_EVENT_BYTES
from protocol.room_versions import V1, V2, V3, V5, V6, V10, V11, V12, RoomVersion
from protocol.signing import add_signature, encode_base64
from tests.protocol.helpers import ALL_VERSIONS, BOB, KEY, KEYS, SERVER, build, read_vectors, room_id_for
from tests.protocol.test_canonical_json import INTEGERS, json_values


def signed(pdu: JsonObject, version: RoomVersion) -> JsonObject:
    """Hash and sign a PDU as its sender would, whatever nonsense it holds."""
    pdu = {**pdu, "hashes": {"sha256": encode_base64(content_hash(pdu, version))}, "signatures": {}}
    return resigned(pdu, version)


def resigned(pdu: JsonObject, version: RoomVersion) -> JsonObject:
    """Sign a PDU as its sender would, whatever its hash."""
    return add_signature(pdu, SERVER, KEY.key_id, KEY.sign(essential_bytes(pdu, version)))


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
