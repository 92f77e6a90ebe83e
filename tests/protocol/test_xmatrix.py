"""Tests of the X-Matrix authorisation header."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from protocol.errors import Unauthorized
from protocol.identifiers import KeyID, ServerName
from protocol.signing import InvalidSignature, sign_json, verify_json
from protocol.xmatrix import XMatrix, build_xmatrix, parse_xmatrix, signed_request
from tests.protocol.helpers import KEY

ORIGIN = ServerName("origin.hs.example.com")
DESTINATION = ServerName("destination.hs.example.com:8448")
WANTED = XMatrix(ORIGIN, DESTINATION, KeyID("ed25519:key1"), "ABC+/def")


class ParseTests(SynchronousTestCase):
    """Reading the header."""

    def test_example_of_the_specification(self) -> None:
        """What the specification prints is read."""
        header = (
            b'X-Matrix origin="origin.hs.example.com",destination="destination.hs.example.com:8448",'
            b'key="ed25519:key1",sig="ABC+/def"'
        )
        self.assertEqual(parse_xmatrix(header), WANTED)

    def test_leniency(self) -> None:
        """Order, case of names, blanks at commas, quotes and unknown parameters do not matter."""
        origin, destination = b"origin=origin.hs.example.com", b"destination=destination.hs.example.com:8448"
        for header in (
            b"X-Matrix " + origin + b"," + destination + b',key="ed25519:key1",sig="ABC+/def"',
            b'x-matrix   sig="ABC+/def"\t,\t KEY=ed25519:key1 , ' + destination + b"," + origin,
            b'X-MATRIX key=ed25519:key1,sig="ABC\\+/d\\ef",,'
            + origin
            + b",x=y,"
            + destination
            + b'  ,z="\\""',
            b"X-Matrix " + origin + b"," + destination + b',key="ed25519:key1",signature="ABC+/def" ',
        ):
            self.assertEqual(parse_xmatrix(header), WANTED, header)

    def test_a_destination_may_be_missing(self) -> None:
        """Servers from before version 1.3 send none."""
        parsed = parse_xmatrix(b'X-Matrix origin=a.example,key="ed25519:1",sig="x"')
        self.assertIsNone(parsed.destination)

    def test_malformed_headers(self) -> None:
        """Whatever breaks the grammar, or could be read in two ways, is refused (security: F17)."""
        good = b'X-Matrix origin="a.example",key="ed25519:1",sig="x"'
        self.assertEqual(parse_xmatrix(good).origin, "a.example")
        bad = [
            b"",
            b"X-Matrix",
            b"X-Matrix ",
            b"Bearer abc",
            b"X-Matrixorigin=a",
            b"X-Matrix\torigin=a.example",
        ]
        bad += [good + b',origin="b.example"', good + b',Origin="a.example"', good + b",sig=y", good + b" x"]
        bad += [good.replace(b",", b" "), good.replace(b",", b";"), good.replace(b"=", b" = "), good[:-1]]
        bad += [
            good.replace(b"a.example", value)
            for value in (b"", b"a b", b"a/b", b"\xff", b"a\0", b'a"b', b"@a:b")
        ]
        bad += [good.replace(b"ed25519:1", value) for value in (b"", b"ed25519", b"ed 25519:1")]
        bad += [
            good + b',destination="a b"',
            good + b",destination=",
            good + b',destination=""',
            good + b",=x",
        ]
        bad += [
            good.replace(b'sig="x"', b"x=y"),
            good.replace(b"key=", b"kez="),
            good.replace(b"origin=", b"o="),
        ]
        bad += [
            good + b"," + b"x" * 5000 + b"=y",
            good + b"\n",
            good + b'\r\nX: "y"',
            b"X-Matrix ," + good[9:],
        ]
        for header in bad:
            with self.assertRaises(Unauthorized, msg=header):
                parse_xmatrix(header)

    @given(st.binary() | st.text('X-Matrix orignkeysdta="\\, \t:.').map(str.encode))
    def test_any_bytes(self, rest: bytes) -> None:
        """Any bytes are a header or refused with 401 (security: F17)."""
        for header in (rest, b"X-Matrix " + rest, b'X-Matrix origin="a",key="b:c",sig="d",' + rest):
            try:
                parse_xmatrix(header)
            except Unauthorized as error:
                self.assertEqual(error.status, 401)


class BuildTests(SynchronousTestCase):
    """Writing the header."""

    def test_built_strictly(self) -> None:
        """One blank, lower case, quotes, no blanks at commas: what the oldest server reads."""
        header = build_xmatrix(
            origin=ORIGIN, destination=DESTINATION, key_id=KeyID("ed25519:key1"), signature="ABC+/def"
        )
        self.assertEqual(
            header,
            b'X-Matrix origin="origin.hs.example.com",destination="destination.hs.example.com:8448",'
            b'key="ed25519:key1",sig="ABC+/def"',
        )
        self.assertEqual(parse_xmatrix(header), WANTED)

    def test_nothing_is_escaped(self) -> None:
        """What would need an escape is refused, for old servers read none."""
        for name in ('a"', "a\\", "a\r\nX: y", "é", "a\0"):
            with self.assertRaises(ValueError):
                build_xmatrix(
                    origin=ServerName(name), destination=DESTINATION, key_id=KeyID("ed25519:1"), signature="x"
                )


class SignedRequestTests(SynchronousTestCase):
    """What is signed."""

    def test_every_part_is_signed(self) -> None:
        """A change of method, URI, origin, destination or body breaks the signature (security: F17)."""
        uri = "/_matrix/federation/v1/send/%21a%2Fb?x=%20"
        request = signed_request("PUT", uri, ORIGIN, DESTINATION, {"pdus": []})
        signatures = sign_json(request, ORIGIN, KEY)["signatures"]
        verify_json({**request, "signatures": signatures}, ORIGIN, KEY.key_id, KEY.verify_key)
        for altered in (
            signed_request("POST", uri, ORIGIN, DESTINATION, {"pdus": []}),
            signed_request("PUT", uri.replace("%21", "!"), ORIGIN, DESTINATION, {"pdus": []}),
            signed_request("PUT", uri.partition("?")[0], ORIGIN, DESTINATION, {"pdus": []}),
            signed_request("PUT", uri, DESTINATION, DESTINATION, {"pdus": []}),
            signed_request("PUT", uri, ORIGIN, ORIGIN, {"pdus": []}),
            signed_request("PUT", uri, ORIGIN, DESTINATION, {"pdus": [1]}),
            signed_request("PUT", uri, ORIGIN, DESTINATION),
        ):
            with self.assertRaises(InvalidSignature):
                verify_json({**altered, "signatures": signatures}, ORIGIN, KEY.key_id, KEY.verify_key)

    def test_no_body_is_no_content(self) -> None:
        """Without a body there is no `content`; an empty object is one."""
        self.assertNotIn("content", signed_request("GET", "/_matrix/x", ORIGIN, DESTINATION))
        self.assertEqual(signed_request("PUT", "/_matrix/x", ORIGIN, DESTINATION, {})["content"], {})
