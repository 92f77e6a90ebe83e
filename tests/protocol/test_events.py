"""Tests of events: built, loaded, read."""

from __future__ import annotations

import json

import attrs
from attrs.exceptions import FrozenInstanceError
from twisted.trial.unittest import SynchronousTestCase

from protocol.checks import parse_pdu, verify_pdu
from protocol.errors import BadJson, EventTooLarge
from protocol.events import Event, EventDraft, Links, build_event, countersign, load_event
from protocol.hashes import encode_pdu
from protocol.identifiers import EventID, RoomID, ServerName, UserID
from protocol.limits import MAX_DEPTH, MAX_EVENT_BYTES
from protocol.room_versions import V1, V2, V5, V6, V10, V11, V12
from protocol.signing import signed_part
from tests.protocol.helpers import (
    ALICE,
    ALL_VERSIONS,
    KEY,
    NOW,
    OTHER_KEY,
    SERVER,
    build,
    event_id_for,
    read_vectors,
    room_id_for,
)

KEYS = {(SERVER, KEY.key_id): KEY.verify_key}
BETA = ServerName("beta.example")


class BuildEventTests(SynchronousTestCase):
    """Making events of this server."""

    def test_what_is_built_passes_the_door(self) -> None:
        """In every version, what we build is what another server would accept from us, byte for byte."""
        for version in ALL_VERSIONS:
            event = build(version)
            received = verify_pdu(parse_pdu(event.raw, version), KEYS)
            self.assertEqual(received.raw, event.raw)
            self.assertEqual(received.event_id, event.event_id)
            self.assertFalse(received.hash_mismatch)

    def test_what_is_built_is_what_synapse_builds(self) -> None:
        """From the same parts, with the same key, Synapse and we build the same bytes."""
        built = 0
        for version, key, server, vector in read_vectors():
            pdu = vector["pdu"]
            if not version.hashed_event_ids or vector["name"] in ("top level keys", "lax numbers"):
                continue
            content = pdu["content"]
            if vector["name"] == "redaction" and ("redacts" in pdu) == version.redacts_in_content:
                continue
            draft = EventDraft(
                RoomID(pdu["room_id"]) if "room_id" in pdu else None,
                pdu["type"],
                UserID(pdu["sender"]),
                content,
                pdu.get("state_key"),
                pdu.get("redacts"),
            )
            links = Links(tuple(pdu["prev_events"]), tuple(pdu["auth_events"]), pdu["depth"])
            event = build_event(
                draft, version, links, now=pdu["origin_server_ts"], server_name=ServerName(server), key=key
            )
            self.assertEqual(event.event_id, vector["event_id"], vector["name"])
            self.assertEqual(event.room_id, vector["room_id"])
            self.assertEqual(event.raw, encode_pdu(pdu, version))
            built += 1
        self.assertGreater(built, 80)

    def test_fields(self) -> None:
        """An event says what its draft and links said."""
        for version in ALL_VERSIONS:
            event = build(version, type="m.room.topic", state_key="", content={"topic": "x"})
            self.assertEqual(event.room_id, room_id_for(version))
            self.assertEqual((event.type, event.state_key, event.sender), ("m.room.topic", "", ALICE))
            self.assertEqual(event.prev_events, (event_id_for(version, "A"),))
            self.assertEqual(event.auth_events, (event_id_for(version, "B"), event_id_for(version, "C")))
            self.assertEqual((event.depth, event.origin_server_ts), (7, NOW))
            self.assertEqual(event.content, {"topic": "x"})
            self.assertTrue(event.is_state)
            self.assertEqual(event.key, ("m.room.topic", ""))
            self.assertIsNone(event.membership)
            self.assertEqual(encode_pdu(event.pdu, version), event.raw)
            self.assertNotIn("unsigned", event.pdu)

    def test_old_versions_name_their_events(self) -> None:
        """In versions 1 and 2 the event bears an ID of this server, its own for each event."""
        for version in (V1, V2):
            one, other = build(version), build(version, content={"body": "other"})
            self.assertTrue(one.event_id.startswith("$") and one.event_id.endswith(f":{SERVER}"))
            self.assertNotEqual(one.event_id, other.event_id)
            self.assertEqual(one.pdu["prev_events"], [[event_id_for(version, "A"), {}]])

    def test_references_with_hashes(self) -> None:
        """In versions 1 and 2 references bear the hashes that are known."""
        parent = EventID("$p:alpha.example")
        draft = EventDraft(room_id_for(V1), "m.room.message", ALICE, {})
        links = Links((parent,), (), 1, {parent: "abc"})
        event = build_event(draft, V1, links, now=NOW, server_name=SERVER, key=KEY)
        self.assertEqual(event.pdu["prev_events"], [[parent, {"sha256": "abc"}]])
        self.assertEqual(event.prev_events, (parent,))

    def test_redactions_name_their_target_where_it_belongs(self) -> None:
        """The target stands at the top up to version 10, and in the content from 11 on."""
        target = EventID("$" + "T" * 43)
        for version in ALL_VERSIONS:
            content = {"reason": "spam"}
            event = build(version, type="m.room.redaction", content=content, redacts=target)
            self.assertEqual(event.redacts, target)
            self.assertEqual("redacts" in event.pdu, not version.redacts_in_content)
            self.assertEqual("redacts" in event.content, version.redacts_in_content)
            self.assertEqual(content, {"reason": "spam"})

    def test_a_create_event_makes_its_room(self) -> None:
        """In version 12 the create event bears no room ID and makes it (security: F19)."""
        create = build(V12, room_id=None, type="m.room.create", state_key="")
        self.assertNotIn("room_id", create.pdu)
        self.assertEqual(create.room_id, "!" + create.event_id[1:])

    def test_size_is_checked_before_anybody_sees_the_event(self) -> None:
        """An event fits 65,536 bytes of UTF-8, to the byte (security: F12)."""
        empty = len(build(V12, content={"body": ""}).raw)
        fits = "\U0001f980" * ((MAX_EVENT_BYTES - empty) // 4)
        fits += "x" * ((MAX_EVENT_BYTES - empty) % 4)
        self.assertEqual(len(build(V12, content={"body": fits}).raw), MAX_EVENT_BYTES)
        with self.assertRaises(EventTooLarge):
            build(V12, content={"body": fits + "x"})

    def test_fields_are_measured_in_bytes(self) -> None:
        """Type and state key have at most 255 bytes, however few characters (security: F12)."""
        for version in ALL_VERSIONS:
            for name in ("type", "state_key"):
                fits = "\U0001f980" * 63 + "abc"
                self.assertEqual(len(build(version, **{name: fits}).raw) > 0, True)
                for text in (fits + "d", "a" * 256, "\U0001f980" * 64):
                    with self.assertRaises(EventTooLarge):
                        build(version, **{name: text})

    def test_numbers_are_checked_by_version(self) -> None:
        """Floats and big integers are refused from version 6 on, and kept before (security: F1)."""
        for number in (1.5, 2**53, -(2**60), 1e22):
            with self.assertRaises(BadJson):
                build(V6, content={"a": [number]})
            self.assertEqual(build(V5, content={"a": [number]}).content, {"a": [number]})
        with self.assertRaises(BadJson):
            build(V12, content={"a": "\ud800"})

    def test_depth_saturates(self) -> None:
        """An event after the deepest one possible is as deep, not deeper (security: F13)."""
        draft = EventDraft(room_id_for(V10), "m.room.message", ALICE, {})
        links = Links((), (), MAX_DEPTH + 1)
        event = build_event(draft, V10, links, now=NOW, server_name=SERVER, key=KEY)
        self.assertEqual(event.depth, MAX_DEPTH)


class LoadEventTests(SynchronousTestCase):
    """Reading events back from the database."""

    def test_an_event_survives_its_row(self) -> None:
        """What is loaded has the same attributes as what was stored, in every version."""
        target = EventID("$" + "T" * 43)
        for version in ALL_VERSIONS:
            for fields in (
                {"type": "m.room.message"},
                {"type": "m.room.member", "state_key": ALICE, "content": {"membership": "join"}},
                {"type": "m.room.redaction", "redacts": target},
            ):
                event = build(version, **fields)
                loaded = load_event(event.raw, version, event_id=event.event_id, room_id=event.room_id)
                for attribute in attrs.fields(Event):
                    if attribute.init:
                        name = attribute.name
                        self.assertEqual(getattr(loaded, name), getattr(event, name), name)
                self.assertEqual((loaded.content, loaded.pdu), (event.content, event.pdu))

    def test_vectors_load(self) -> None:
        """Events of Synapse load, odd old ones too; times and depths are clamped (security: F13)."""
        for version, _, _, vector in read_vectors():
            raw = encode_pdu(vector["pdu"], version)
            event = load_event(raw, version, event_id=vector["event_id"], room_id=vector["room_id"])
            self.assertEqual(event.content, vector["pdu"]["content"])
            self.assertEqual(event.depth, min(vector["pdu"]["depth"], MAX_DEPTH))

    def test_unknown_keys_survive(self) -> None:
        """Keys at the top that nobody knows are part of what travels."""
        for version, _, _, vector in read_vectors():
            if vector["name"] == "top level keys":
                event = parse_pdu({**vector["pdu"], "unsigned": {"age": 1, "x": 2}}, version).event
                self.assertEqual(json.loads(event.raw), vector["pdu"])


class EventTests(SynchronousTestCase):
    """Events as values."""

    def test_events_are_known_by_their_ids(self) -> None:
        """Two events of one ID are equal, whatever else they hold."""
        event = build(V11)
        again = load_event(event.raw, V11, event_id=event.event_id, room_id=event.room_id)
        self.assertEqual(event, again)
        self.assertEqual(len({event, again, build(V11, content={})}), 2)
        self.assertNotEqual(event, event.event_id)

    def test_events_do_not_change(self) -> None:
        """No attribute can be set, and a PDU read from an event is the reader's own."""
        event = build(V11)
        with self.assertRaises(FrozenInstanceError):
            event.sender = UserID("@eve:evil.example")  # type: ignore[misc]  # the point of the test
        event.pdu["content"]["body"] = "changed"
        self.assertEqual(event.content["body"], "hello")
        self.assertIs(event.content, event.content)

    def test_membership(self) -> None:
        """Membership is what a member event states, if that is text."""
        for content, wanted in (({"membership": "join"}, "join"), ({"membership": 5}, None), ({}, None)):
            event = build(V11, type="m.room.member", state_key=ALICE, content=content)
            self.assertEqual(event.membership, wanted)
        self.assertIsNone(build(V11, type="m.room.member", content={"membership": "join"}).membership)
        with self.assertRaises(ValueError):
            _ = build(V11).key


class CountersignTests(SynchronousTestCase):
    """Adding our signature to another server's event."""

    def test_both_signatures_hold(self) -> None:
        """The event keeps its ID and first signature; the second verifies as well."""
        for version in ALL_VERSIONS:
            event = build(version)
            signed = countersign(event, BETA, OTHER_KEY)
            self.assertEqual(signed.event_id, event.event_id)
            self.assertEqual(set(signed.pdu["signatures"]), {SERVER, BETA})
            self.assertEqual(signed_part(signed.pdu), signed_part(event.pdu))
            again = verify_pdu(parse_pdu(signed.raw, version), KEYS)
            self.assertEqual(again.raw, signed.raw)

    def test_there_must_be_room_for_it(self) -> None:
        """An event that is full cannot be signed once more."""
        empty = len(build(V12, content={"body": ""}).raw)
        event = build(V12, content={"body": "x" * (MAX_EVENT_BYTES - empty)})
        with self.assertRaises(EventTooLarge):
            countersign(event, BETA, OTHER_KEY)
