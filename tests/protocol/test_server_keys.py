"""Tests of key documents and of the use that a key counts for."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from protocol.canonical_json import JsonObject
from protocol.errors import BadJson, MatrixError
from protocol.identifiers import KeyID, ServerName
from protocol.limits import MAX_KEY_VALIDITY
from protocol.server_keys import (
    KeyDocument,
    OldKey,
    ServerKey,
    build_key_document,
    check_notary,
    countersign,
    read_key_document,
)
from protocol.signing import InvalidSignature, SigningKey, encode_base64, sign_json
from tests.protocol.helpers import ALL_VERSIONS, KEY, NOW, OTHER_KEY, SERVER, VECTORS

NOTARY = ServerName("notary.example")
HOUR = 3_600_000
RETIRED = SigningKey(bytes(32), KeyID("ed25519:old"))


def own_document(valid_until: int = NOW + HOUR) -> JsonObject:
    """Make a document with two keys in use and one old key."""
    old = OldKey(RETIRED.key_id, RETIRED.verify_key, NOW - HOUR)
    return build_key_document(SERVER, [KEY, OTHER_KEY], [old], valid_until)


def read(document: object) -> KeyDocument:
    """Read a document of the server."""
    return read_key_document(document, SERVER, NOW)


class KeyDocumentTests(SynchronousTestCase):
    """Writing and reading key documents."""

    def test_what_is_built_is_believed(self) -> None:
        """A document is signed by every key in use, and all its keys are read back."""
        document = own_document()
        self.assertEqual(set(document["signatures"][SERVER]), {KEY.key_id, OTHER_KEY.key_id})
        keys = read(document).keys
        self.assertEqual(
            keys,
            {
                KEY.key_id: ServerKey(KEY.key_id, KEY.verify_key, NOW + HOUR),
                OTHER_KEY.key_id: ServerKey(OTHER_KEY.key_id, OTHER_KEY.verify_key, NOW + HOUR),
                RETIRED.key_id: ServerKey(RETIRED.key_id, RETIRED.verify_key, NOW - HOUR, expired=True),
            },
        )

    def test_a_document_of_synapse_is_believed(self) -> None:
        """A document that Synapse's libraries signed, and a notary's signature on it, hold."""
        document = json.loads((VECTORS / "key_document.json").read_text(encoding="utf-8"))
        found = read_key_document(document, SERVER, NOW)
        self.assertEqual(set(found.keys), {"ed25519:a_1", "ed25519:0"})
        notary = SigningKey(bytes(range(32)), KeyID("ed25519:b_2"))
        check_notary(document, NOTARY, {notary.key_id: notary.verify_key})

    def test_every_key_in_use_must_have_signed(self) -> None:
        """A document that lacks the signature of one of its keys is dropped (security: K5)."""
        for key_id in (KEY.key_id, OTHER_KEY.key_id):
            document = own_document()
            del document["signatures"][SERVER][key_id]
            with self.assertRaises(InvalidSignature):
                read(document)
        for signatures in ({}, None, {NOTARY: own_document()["signatures"][SERVER]}):
            with self.assertRaises(InvalidSignature):
                read({**own_document(), "signatures": signatures})

    def test_altered_documents_are_dropped(self) -> None:
        """Nothing in a document can be changed without breaking it (security: K5)."""
        stolen = {"key": encode_base64(bytes(RETIRED.verify_key))}
        document = own_document()
        for fields in (
            {"valid_until_ts": NOW + 2 * HOUR},
            {"verify_keys": {**document["verify_keys"], KEY.key_id: stolen}},
            {"verify_keys": {**document["verify_keys"], "ed25519:new": stolen}},
            {"old_verify_keys": {}},
            {"extra": 1},
        ):
            with self.assertRaises(InvalidSignature, msg=repr(fields)):
                read({**document, **fields})

    def test_the_document_is_of_the_server_asked_for(self) -> None:
        """Another server's document is dropped, however well signed (security: K5)."""
        with self.assertRaises(BadJson):
            read_key_document(own_document(), ServerName("other.example"), NOW)

    def test_malformed_documents(self) -> None:
        """Wrong types, no key of ours to check, and too many keys are refused (security: K5)."""
        times: list[Any] = [None, "1", 1.5, -1, True, 2**53]
        cases: list[JsonObject] = [{"valid_until_ts": value} for value in times]
        for value in (
            None,
            [],
            5,
            {},
            {"ed25519:1": None},
            {"ed25519:1": {}},
            {"ed25519:1": {"key": "AAAA"}},
        ):
            cases.append({"verify_keys": value})
        cases += [
            {"verify_keys": {f"ed25519:{n}": {} for n in range(65)}},
            {"verify_keys": {"rsa:1": {"key": "x"}}},
        ]
        cases += [{"old_verify_keys": value} for value in (None, [], {"ed25519:1": 5})]
        for value in times:
            cases.append(
                {"old_verify_keys": {"ed25519:z": {"key": encode_base64(bytes(32)), "expired_ts": value}}}
            )
        for fields in cases:
            document = {**own_document(), **fields, "signatures": {}}
            for key in (KEY, OTHER_KEY):
                try:
                    document = sign_json(document, SERVER, key)
                except BadJson:
                    break
            with self.assertRaises(MatrixError, msg=repr(fields)[:80]):
                read(document)
        for nonsense in (None, 5, [], "x", {}):
            with self.assertRaises(BadJson):
                read(nonsense)

    def test_unknown_algorithms_are_passed_over(self) -> None:
        """Keys of algorithms we do not know, and keys unknown to the layout, are no error."""
        document = own_document()
        document["verify_keys"]["rsa:1"] = {"key": "anything"}
        document["org.example"] = {"x": 1}
        document["signatures"] = {}
        for key in (KEY, OTHER_KEY):
            document = sign_json(document, SERVER, key)
        self.assertNotIn("rsa:1", read(document).keys)

    def test_a_key_in_use_is_not_old(self) -> None:
        """A key that is listed as old and in use is in use."""
        old = OldKey(KEY.key_id, RETIRED.verify_key, NOW - HOUR)
        keys = read(build_key_document(SERVER, [KEY], [old], NOW + HOUR)).keys
        self.assertEqual(keys[KEY.key_id], ServerKey(KEY.key_id, KEY.verify_key, NOW + HOUR))


class NotaryTests(SynchronousTestCase):
    """Documents passed on by notaries."""

    def test_a_notary_adds_its_signature_and_changes_nothing(self) -> None:
        """What the server signed stays as it was, and both signatures hold (security: K5)."""
        document = own_document()
        passed_on = countersign(read(document), NOTARY, RETIRED)
        self.assertEqual({**passed_on, "signatures": None}, {**document, "signatures": None})
        check_notary(passed_on, NOTARY, {RETIRED.key_id: RETIRED.verify_key})
        self.assertEqual(read(passed_on).keys, read(document).keys)

    def test_the_notary_asked_must_have_signed(self) -> None:
        """A document without the notary's own, known and right signature is dropped (security: K5)."""
        passed_on = countersign(read(own_document()), NOTARY, RETIRED)
        known = {RETIRED.key_id: RETIRED.verify_key}
        for document, notary, keys in (
            (own_document(), NOTARY, known),
            (passed_on, ServerName("other.example"), known),
            (passed_on, NOTARY, {}),
            (passed_on, NOTARY, {KeyID("ed25519:x"): RETIRED.verify_key}),
            (passed_on, NOTARY, {RETIRED.key_id: KEY.verify_key}),
            ({**passed_on, "valid_until_ts": 1}, NOTARY, known),
            ({**passed_on, "signatures": []}, NOTARY, known),
            ({**passed_on, "signatures": {NOTARY: "x"}}, NOTARY, known),
        ):
            with self.assertRaises(InvalidSignature):
                check_notary(document, notary, keys)

    def test_the_notary_alone_is_not_enough(self) -> None:
        """A document that the notary signed and the server did not is dropped (security: K5)."""
        forged = sign_json({**own_document(), "signatures": {}}, NOTARY, RETIRED)
        with self.assertRaises(InvalidSignature):
            read(forged)


class ValidityTests(SynchronousTestCase):
    """For which use, and until when, a key counts."""

    def test_a_document_is_believed_for_a_week(self) -> None:
        """However long a document claims to be valid, a week is the most (security: K1)."""
        for claimed, wanted in (
            (NOW + HOUR, NOW + HOUR),
            (NOW + MAX_KEY_VALIDITY, NOW + MAX_KEY_VALIDITY),
            (NOW + MAX_KEY_VALIDITY + 1, NOW + MAX_KEY_VALIDITY),
            (2**53 - 1, NOW + MAX_KEY_VALIDITY),
            (NOW - HOUR, NOW - HOUR),
        ):
            self.assertEqual(read(own_document(claimed)).keys[KEY.key_id].valid_until, wanted)

    def test_the_clock_table(self) -> None:
        """Requests need a key in use now; events, from version 5 on, one valid when sent (security: K1)."""
        keys = read(own_document()).keys
        in_use, old = keys[KEY.key_id], keys[RETIRED.key_id]
        for key, at, event, request in (
            (in_use, NOW - 10 * HOUR, True, True),
            (in_use, NOW, True, True),
            (in_use, NOW + HOUR, True, True),
            (in_use, NOW + HOUR + 1, False, False),
            (old, NOW - 2 * HOUR, True, False),
            (old, NOW - HOUR, True, False),
            (old, NOW - HOUR + 1, False, False),
            (old, NOW, False, False),
        ):
            self.assertEqual(key.counts_for_request(at), request, (key, at))
            for version in ALL_VERSIONS:
                wanted = event or not version.enforce_key_validity
                self.assertEqual(key.counts_for_event(version, at), wanted, (key, at, version.id))
