"""Tests of decoding WebSocket frames."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from protocol.errors import BadJson, MatrixError, NotJson, Unrecognized
from protocol.frames import CLOSE_CODES, Ack, Auth, Request, decode_frame, frame_id


class FrameTests(SynchronousTestCase):
    """Frames in."""

    def test_known_frames(self) -> None:
        """A frame becomes its type; unknown fields are ignored."""
        self.assertEqual(decode_frame(b'{"type":"ack","seq":7,"later":1}'), Ack(seq=7))
        self.assertEqual(decode_frame(b'{"type":"auth","token":"x"}'), Auth(token="x"))
        request = decode_frame(b'{"type":"request","id":"a","method":"GET","path":"/x"}')
        self.assertEqual(request, Request(id="a", method="GET", path="/x"))

    def test_unknown_type(self) -> None:
        """An unknown type is told as such, with the frame's id still to be found."""
        raw = b'{"type":"dance","id":3}'
        self.assertEqual(self.assertRaises(Unrecognized, decode_frame, raw).error, "Unknown message type")
        self.assertEqual(frame_id(raw), 3)

    def test_malformed(self) -> None:
        """Wrong types, missing fields, bad UTF-8 and deep nesting are protocol errors (security: D1)."""
        for raw in (b'{"type":"ack"}', b'{"type":"ack","seq":"1"}', b"[]", b"{}", b'{"type":"ack","seq":-1}'):
            self.assertRaises(BadJson, decode_frame, raw)
        for raw in (b"", b"{", b'"\xff"', b'{"type":"ack","seq":1}x'):
            self.assertRaises((NotJson, BadJson), decode_frame, raw)
        self.assertRaises(MatrixError, decode_frame, b"[" * 100_000)

    @given(st.binary(max_size=200))
    def test_any_bytes(self, raw: bytes) -> None:
        """Any bytes give a frame or a protocol error."""
        try:
            decode_frame(raw)
        except MatrixError:
            frame_id(raw)

    def test_close_codes_are_distinct(self) -> None:
        """Each way to end has a code and a reason of its own, in the private range."""
        self.assertEqual(len({code.code for code in CLOSE_CODES}), len(CLOSE_CODES))
        self.assertEqual(len({code.reason for code in CLOSE_CODES}), len(CLOSE_CODES))
        self.assertTrue(all(4000 <= code.code < 5000 for code in CLOSE_CODES))
