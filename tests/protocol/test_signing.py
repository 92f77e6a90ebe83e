"""Tests of keys, signatures and base64."""

from __future__ import annotations

from base64 import b64decode
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from protocol.errors import BadJson
from protocol.hashes import essential_bytes
from protocol.identifiers import KeyID, ServerName
from protocol.room_versions import V1
from protocol.signing import (
    InvalidSignature,
    SigningKey,
    VerifyKey,
    decode_base64,
    encode_base64,
    encode_base64_urlsafe,
    sign_json,
    verify_json,
)
from tests.protocol.helpers import KEY, OTHER_KEY, SERVER, read_vectors
from tests.protocol.test_canonical_json import INTEGERS, TEXT, json_values

DOMAIN = ServerName("domain")
SPEC_KEY = SigningKey(b64decode("YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1="), KeyID("ed25519:1"))
ORDER = 2**252 + 27742317777372353535851937790883648493
"""The order of the group that Ed25519 computes in."""
MESSAGE = b'{"a":1}'
HONEST = "7767a3242dc9b58bbc68488c1265cc6cc5f26c6f3c88a5d55e901b0734dca572"
MIXED = "6a84d583f06569edb3f5ed77df65544b27d6948b4f0b2cb76f33dd8413b20719"
"""A public key, and the same plus a point of order 8."""


class SignJsonTests(SynchronousTestCase):
    """Signatures on JSON objects."""

    def test_examples_of_the_specification(self) -> None:
        """The objects of the appendix get the signatures that it prints."""
        for obj, wanted in (
            ({}, "K8280/U9SSy9IVtjBuVeLr+HpOB4BQFWbg+UZaADMtTdGYI7Geitb76LTrr5QV/7Xg4ahLwYGYZzuHGZKM5ZAQ"),
            (
                {"one": 1, "two": "Two"},
                "KqmLSbO39/Bzb0QIYE82zqLwsA+PDzYIpIRA2sRQ4sL53+sN6/fpNSoqE7BP7vBZhG6kYdD13EIMJpvhJI+6Bw",
            ),
        ):
            signed = sign_json(obj, DOMAIN, SPEC_KEY)
            self.assertEqual(signed, {**obj, "signatures": {"domain": {"ed25519:1": wanted}}})
            verify_json(signed, DOMAIN, SPEC_KEY.key_id, SPEC_KEY.verify_key)

    def test_events_of_the_specification(self) -> None:
        """The events of the appendix get the signatures that it prints."""
        event = {
            "room_id": "!x:domain",
            "sender": "@a:domain",
            "origin": "domain",
            "origin_server_ts": 1000000,
            "hashes": {"sha256": "5jM4wQpv6lnBo7CLIghJuHdW+s2CMBJPUOGOC89ncos"},
            "type": "X",
            "content": {},
            "prev_events": [],
            "auth_events": [],
            "depth": 3,
            "unsigned": {"age_ts": 1000000},
        }
        self.assertEqual(
            SPEC_KEY.sign_base64(essential_bytes(event, V1)),
            "KxwGjPSDEtvnFgU00fwFz+l6d2pJM6XBIaMEn81SXPTRl16AqLAYqfIReFGZlHi5KLjAWbOoMszkwsQma+lYAg",
        )
        message = {
            "content": {"body": "Here is the message content"},
            "event_id": "$0:domain",
            "hashes": {"sha256": "onLKD1bGljeBWQhWZ1kaP9SorVmRQNdN5aM2JYU2n/g"},
            "origin": "domain",
            "origin_server_ts": 1000000,
            "type": "m.room.message",
            "room_id": "!r:domain",
            "sender": "@u:domain",
        }
        self.assertEqual(
            SPEC_KEY.sign_base64(essential_bytes(message, V1)),
            "Wm+VzmOUOz08Ds+0NTWb1d4CZrVsJSikkeRxh6aCcUwu6pNC78FunoD7KNWzqFn241eYHYMGCA5McEiVPdhzBA",
        )

    def test_synapse_signs_the_same(self) -> None:
        """Our signature on every vector is Synapse's."""
        for version, key, server, vector in read_vectors():
            pdu = vector["pdu"]
            self.assertEqual(
                key.sign_base64(essential_bytes(pdu, version)),
                pdu["signatures"][server][key.key_id],
                f"{vector['name']} in version {version.id}",
            )

    @given(st.dictionaries(TEXT, json_values(INTEGERS)))
    def test_what_is_signed_verifies(self, obj: dict[str, Any]) -> None:
        """A signature holds for its object, whatever is in `unsigned`, and for no other."""
        obj = {key: value for key, value in obj.items() if key not in ("signatures", "unsigned")}
        signed = sign_json(obj, SERVER, KEY)
        verify_json({**signed, "unsigned": {"age": 1}}, SERVER, KEY.key_id, KEY.verify_key)
        with self.assertRaises(InvalidSignature):
            verify_json({**signed, "more": 1, "": [obj]}, SERVER, KEY.key_id, KEY.verify_key)
        with self.assertRaises(InvalidSignature):
            verify_json(signed, SERVER, KEY.key_id, OTHER_KEY.verify_key)

    def test_signatures_add_up(self) -> None:
        """A second signature leaves the first as it is, and the object given too."""
        once = sign_json({"a": 1}, SERVER, KEY)
        twice = sign_json(sign_json(once, SERVER, OTHER_KEY), DOMAIN, OTHER_KEY)
        self.assertEqual(set(once["signatures"][SERVER]), {KEY.key_id})
        verify_json(twice, SERVER, KEY.key_id, KEY.verify_key)
        verify_json(twice, SERVER, OTHER_KEY.key_id, OTHER_KEY.verify_key)
        verify_json(twice, DOMAIN, OTHER_KEY.key_id, OTHER_KEY.verify_key)

    def test_malformed_signatures(self) -> None:
        """Whatever stands where a signature should, the answer is that it is invalid (security: K8)."""
        good = sign_json({"a": 1}, SERVER, KEY)["signatures"][SERVER][KEY.key_id]
        bad: list[Any] = [
            None,
            5,
            "",
            "!",
            good[:-2],
            good + "AA",
            good + " ",
            " " + good,
            [good],
            good[:40] + "\n",
        ]
        bad += [good.replace(good[3], "-"), good[:-1] + "é", good + "==="]
        for text in bad:
            obj = {"a": 1, "signatures": {SERVER: {KEY.key_id: text}}}
            with self.assertRaises(InvalidSignature, msg=repr(text)):
                verify_json(obj, SERVER, KEY.key_id, KEY.verify_key)
        shapes: list[Any] = [None, [], "x", {SERVER: None}, {SERVER: []}, {SERVER: "x"}, {}, {SERVER: {}}]
        for shape in shapes:
            with self.assertRaises(InvalidSignature, msg=repr(shape)):
                verify_json({"a": 1, "signatures": shape}, SERVER, KEY.key_id, KEY.verify_key)

    def test_what_is_not_canonical_has_no_signature(self) -> None:
        """An object with a float cannot be verified, and does not break the verifier (security: K2)."""
        signed = sign_json({"a": 1}, SERVER, KEY)
        with self.assertRaises(InvalidSignature):
            verify_json({**signed, "a": 1.0}, SERVER, KEY.key_id, KEY.verify_key)
        with self.assertRaises(BadJson):
            sign_json({"a": 1.5}, SERVER, KEY)


class KeyTests(SynchronousTestCase):
    """Keys themselves."""

    def test_rfc_8032(self) -> None:
        """The first and third vector of RFC 8032 come out (security: K8)."""
        for seed, public, message, signature in (
            (
                "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
                "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
                "",
                "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555"
                "fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
            ),
            (
                "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
                "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
                "af82",
                "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
                "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
            ),
        ):
            key = SigningKey(bytes.fromhex(seed), KeyID("ed25519:1"))
            self.assertEqual(bytes(key.verify_key).hex(), public)
            self.assertEqual(key.sign(bytes.fromhex(message)).hex(), signature)
            key.verify_key.verify(bytes.fromhex(signature), bytes.fromhex(message))

    def test_malleable_signatures_are_refused(self) -> None:
        """A signature with the group order added to its S is refused (security: K8)."""
        signature = KEY.sign(b"x")
        scalar = int.from_bytes(signature[32:], "little") + ORDER
        forged = signature[:32] + scalar.to_bytes(32, "little")
        with self.assertRaises(InvalidSignature):
            KEY.verify_key.verify(forged, b"x")

    def test_corner_cases_are_judged_as_by_the_network(self) -> None:
        """Points of small order and spellings of a point that are not its own are refused (security: K8).

        Made by hand, and judged alike by Synapse, which checks by the same function; others (OpenSSL) let
        points of small order pass.
        """
        for _, key, signature in (
            (
                "an honest one",
                HONEST,
                "7db0dc9222f3c183457ddde4c708de8e5ea6bf3d5c4404cca14b32729a05c32a"
                "eec9da44b2e02cc007b44380a35101bc275553ed28755a3a2d33fa96b2f2550b",
            ),
            (
                "a key off the main group, and a hash that is a multiple of 8",
                MIXED,
                "47cf6321efcbc6d6f2c4ef34e28ec5dc76dde8808b2cf08eac6b22249b17fe53"
                "fd3868cd97bf6a38de93cbf87d5b7c6401194329a1541f295e6afa43e1028b0b",
            ),
        ):
            VerifyKey(bytes.fromhex(key)).verify(bytes.fromhex(signature), MESSAGE)
        for name, key, signature in (
            (
                "S above the order of the group",
                HONEST,
                "7db0dc9222f3c183457ddde4c708de8e5ea6bf3d5c4404cca14b32729a05c32a"
                "db9dd0a1cc433f18de503b23824be0d0275553ed28755a3a2d33fa96b2f2551b",
            ),
            (
                "R of small order",
                HONEST,
                "0100000000000000000000000000000000000000000000000000000000000000"
                "f4a54b073c9d8dd6f8ca02590e55d3bd52f45fe930f8a37f3e61a4e7267e1701",
            ),
            (
                "R of small order, and written with a y above the prime",
                HONEST,
                "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"
                "31e853a9099ab38409bc6b3bda2bb470242bb3e65401e32ec6b09400b4ec5306",
            ),
            (
                "R off the main group by a point of order 8",
                HONEST,
                "6999d5cb5126005c325892f1c6eab824b310708befff12fbaf45dda050cb12f0"
                "1df5bf2b9a1fcabe67ee04dd7c255806b71541dc78888123e642fae1b5249600",
            ),
            (
                "a key off the main group, and a hash that is no multiple of 8",
                MIXED,
                "9b99ef6f54380d5420f7dffbc655ef02d710376c2f78419fe219d997efc88cc1"
                "401b3490e2f81b69b1953d4edb126248c79211148aed42bed5ac49916e2b3a01",
            ),
            (
                "a key of order 1",
                "0100000000000000000000000000000000000000000000000000000000000000",
                "7db0dc9222f3c183457ddde4c708de8e5ea6bf3d5c4404cca14b32729a05c32a"
                "b168de3a00000000000000000000000000000000000000000000000000000000",
            ),
            (
                "a key of order 1, and R too",
                "0100000000000000000000000000000000000000000000000000000000000000",
                "0100000000000000000000000000000000000000000000000000000000000000"
                "0000000000000000000000000000000000000000000000000000000000000000",
            ),
            (
                "a key of order 2",
                "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
                "7db0dc9222f3c183457ddde4c708de8e5ea6bf3d5c4404cca14b32729a05c32a"
                "b168de3a00000000000000000000000000000000000000000000000000000000",
            ),
            (
                "a key of order 1, written with a y above the prime",
                "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
                "7db0dc9222f3c183457ddde4c708de8e5ea6bf3d5c4404cca14b32729a05c32a"
                "b168de3a00000000000000000000000000000000000000000000000000000000",
            ),
            (
                "a key that is no point",
                "0200000000000000000000000000000000000000000000000000000000000000",
                "7db0dc9222f3c183457ddde4c708de8e5ea6bf3d5c4404cca14b32729a05c32a"
                "b168de3a00000000000000000000000000000000000000000000000000000000",
            ),
        ):
            with self.assertRaises(InvalidSignature, msg=name):
                VerifyKey(bytes.fromhex(key)).verify(bytes.fromhex(signature), MESSAGE)

    def test_no_byte_moves_between_signature_and_message(self) -> None:
        """Signature and message are two things, wherever their bytes are cut apart."""
        joined = KEY.sign(MESSAGE) + MESSAGE
        for cut in (0, 32, 63, 65, len(joined)):
            with self.assertRaises(InvalidSignature):
                KEY.verify_key.verify(joined[:cut], joined[cut:])

    def test_lengths_are_exact(self) -> None:
        """Keys have 32 bytes and signatures 64, no more and no fewer (security: K8)."""
        for size in (0, 31, 33, 64):
            with self.assertRaises(BadJson):
                VerifyKey(bytes(size))
            with self.assertRaises(ValueError):
                SigningKey(bytes(size), KeyID("ed25519:1"))
        for size in (0, 32, 63, 65, 128):
            with self.assertRaises(InvalidSignature):
                KEY.verify_key.verify(bytes(size), b"x")

    def test_a_signing_key_does_not_show_itself(self) -> None:
        """The secret is in no repr; the key ID must name the algorithm."""
        self.assertEqual(repr(KEY), "SigningKey(ed25519:a_1)")
        with self.assertRaises(ValueError):
            SigningKey(bytes(32), KeyID("rsa:1"))

    def test_verify_keys_compare_by_value(self) -> None:
        """Two keys of the same bytes are one key."""
        again = VerifyKey(bytes(KEY.verify_key))
        self.assertEqual(again, KEY.verify_key)
        self.assertEqual(len({again, KEY.verify_key, OTHER_KEY.verify_key}), 2)


class Base64Tests(SynchronousTestCase):
    """Unpadded base64."""

    def test_examples_of_the_specification(self) -> None:
        """The examples of the appendix come out, and are read with and without padding."""
        for data, text in (
            (b"", ""),
            (b"f", "Zg"),
            (b"fo", "Zm8"),
            (b"foo", "Zm9v"),
            (b"foobar", "Zm9vYmFy"),
        ):
            self.assertEqual(encode_base64(data), text)
            self.assertEqual(decode_base64(text), data)
            self.assertEqual(decode_base64(text + "=" * (-len(text) % 4)), data)

    def test_urlsafe(self) -> None:
        """The URL-safe alphabet has - and _ for + and /."""
        self.assertEqual(encode_base64(b"\xfb\xff\xbf"), "+/+/")
        self.assertEqual(encode_base64_urlsafe(b"\xfb\xff\xbf"), "-_-_")

    @given(st.binary())
    def test_round_trip(self, data: bytes) -> None:
        """Bytes come back as they were."""
        self.assertEqual(decode_base64(encode_base64(data)), data)

    def test_each_byte_string_has_one_spelling(self) -> None:
        """Foreign characters, odd lengths, wrong padding and spare bits are refused (security: K8)."""
        bad: list[object] = [
            "Z",
            "Zm9vY",
            "Zg=",
            "Zg===",
            "Zm9v=",
            "Zh",
            "Zm9",
            "Z-_A",
            "Zm 9v",
            "Zm9v\n",
            "=",
            "é",
        ]
        for text in [*bad, "Zg==Zg==", "Zm=9", None, 5, b"Zg"]:
            with self.assertRaises(BadJson, msg=repr(text)):
                decode_base64(text)
