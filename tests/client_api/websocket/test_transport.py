"""Short frames that are read past Autobahn, beside those it reads."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from client_api.websocket.transport import read_short
from tests.client_api.websocket.helpers import WsServer

MASKS = st.binary(min_size=4, max_size=4)


def masked(payload: bytes, mask: bytes) -> bytes:
    """Mask a payload byte by byte, as RFC 6455 (5.3) describes it."""
    return bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))


class ShortFrameTests(SynchronousTestCase):
    """Frames that come alone and whole."""

    @given(st.binary(max_size=130), MASKS)
    def test_short_ascii_texts_are_read(self, payload: bytes, mask: bytes) -> None:
        """A text of 1 to 125 ASCII characters is unmasked; any other is left to Autobahn."""
        frame = bytes((0x81, 0x80 | min(len(payload), 126))) + mask + masked(payload, mask)
        is_short = 0 < len(payload) < 126 and payload.isascii()
        self.assertEqual(read_short(frame), payload if is_short else None)

    @given(st.integers(0, 255), st.integers(0, 255), st.binary(max_size=200))
    def test_all_else_is_left_alone(self, first: int, second: int, rest: bytes) -> None:
        """Fragments, other kinds, reserved bits, no mask, a wrong length: nothing of this is read."""
        payload = read_short(bytes((first, second)) + rest)
        if payload is not None:
            self.assertEqual((first, second, len(rest)), (0x81, 0x80 | len(payload), 4 + len(payload)))

    def test_a_short_frame_within_a_message_is_a_fault(self) -> None:
        """A whole text frame amid the fragments of another message ends the connection, as RFC 6455 wants."""
        client = WsServer().live()
        client.frames()
        client.send_raw(b'{"type":', fin=False)
        client.send_raw(b'{"type":"ping"}')
        client.frames()
        self.assertEqual(client.close_code, 1002)

    def test_a_frame_that_comes_in_pieces(self) -> None:
        """A frame that arrives byte by byte, or with another behind it, is read all the same."""
        client = WsServer().live()
        client.frames()
        mask, text = b"\x01\x02\x03\x04", b'{"type":"ping"}'
        frame = bytes((0x81, 0x80 | len(text))) + mask + masked(text, mask)
        for index in range(len(frame)):
            client.write(frame[index : index + 1])
        client.write(frame + frame)
        client.write(frame)
        self.assertEqual([each["type"] for each in client.frames()], ["pong"] * 4)
