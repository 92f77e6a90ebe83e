"""Tests of content hashes, reference hashes and the IDs made of them."""

from __future__ import annotations

import hashlib

from twisted.trial.unittest import SynchronousTestCase

from protocol.hashes import (
    content_hash,
    encode_pdu,
    event_id_of,
    reference_hash,
    room_id_of_create,
)
from protocol.room_versions import V1, V12
from protocol.signing import encode_base64
from tests.protocol.helpers import ALL_VERSIONS, build, read_vectors


class HashTests(SynchronousTestCase):
    """Hashes and IDs."""

    def test_examples_of_the_specification(self) -> None:
        """The two events of the appendix have the content hashes that it prints."""
        minimal = {
            "room_id": "!x:domain",
            "sender": "@a:domain",
            "origin": "domain",
            "origin_server_ts": 1000000,
            "signatures": {},
            "hashes": {},
            "type": "X",
            "content": {},
            "prev_events": [],
            "auth_events": [],
            "depth": 3,
            "unsigned": {"age_ts": 1000000},
        }
        message = {
            "content": {"body": "Here is the message content"},
            "event_id": "$0:domain",
            "origin": "domain",
            "origin_server_ts": 1000000,
            "type": "m.room.message",
            "room_id": "!r:domain",
            "sender": "@u:domain",
            "signatures": {},
            "unsigned": {"age_ts": 1000000},
        }
        self.assertEqual(
            encode_base64(content_hash(minimal, V1)), "5jM4wQpv6lnBo7CLIghJuHdW+s2CMBJPUOGOC89ncos"
        )
        self.assertEqual(
            encode_base64(content_hash(message, V1)), "onLKD1bGljeBWQhWZ1kaP9SorVmRQNdN5aM2JYU2n/g"
        )

    def test_synapse_agrees(self) -> None:
        """Canonical JSON, hashes, event ID and room ID are Synapse's in all versions, floats and all."""
        seen = set()
        for version, _, _, vector in read_vectors():
            what, pdu = f"{vector['name']} in version {version.id}", vector["pdu"]
            digest = hashlib.sha256(encode_pdu(pdu, version)).hexdigest()
            self.assertEqual(digest, vector["canonical_sha256"], what)
            self.assertEqual(encode_base64(content_hash(pdu, version)), pdu["hashes"]["sha256"], what)
            self.assertEqual(encode_base64(reference_hash(pdu, version)), vector["reference_hash"], what)
            self.assertEqual(event_id_of(pdu, version), vector["event_id"], what)
            if vector["name"] == "create":
                self.assertEqual(room_id_of_create(pdu, version), vector["room_id"], what)
            seen.add(version.id)
        self.assertEqual(len(seen), 12)

    def test_unknown_keys_count(self) -> None:
        """The content hash covers keys nobody knows, the reference hash does not."""
        for version in ALL_VERSIONS:
            pdu = build(version).pdu
            other = {**pdu, "org.example": 1}
            self.assertNotEqual(content_hash(pdu, version), content_hash(other, version))
            self.assertEqual(reference_hash(pdu, version), reference_hash(other, version))

    def test_unsigned_and_signatures_do_not_count(self) -> None:
        """What may change on the way is in neither hash."""
        for version in ALL_VERSIONS:
            pdu = build(version).pdu
            other = {**pdu, "unsigned": {"age": 5}, "signatures": {}}
            self.assertEqual(content_hash(pdu, version), content_hash(other, version))
            self.assertEqual(reference_hash(pdu, version), reference_hash(other, version))

    def test_the_room_id_is_the_create_event(self) -> None:
        """From version 12 on, the room ID is the create event's ID with another sigil (security: F19)."""
        create = build(V12, room_id=None, type="m.room.create", state_key="", content={"room_version": "12"})
        self.assertEqual(create.room_id, "!" + create.event_id[1:])
        self.assertEqual(room_id_of_create(create.pdu, V12), create.room_id)
