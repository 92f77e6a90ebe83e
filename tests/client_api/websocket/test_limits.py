"""Tests of floods, sizes and malformed frames."""

from __future__ import annotations

import json
import zlib

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.client_api.websocket.helpers import BINARY, PING, TEXT, WsClient, WsServer, frame_bytes

ECHO = "/_matrix/client/v3/echo"


class SizeTests(SynchronousTestCase):
    """How large messages may be."""

    def setUp(self) -> None:
        """Make a server that takes 10,000 bytes."""
        self.server = WsServer(frame_bytes=10_000)

    def test_every_bound_is_set(self) -> None:
        """The live factory has no option left that means "without limit" (security: W2)."""
        factory = self.server.open().socket.factory
        self.assertEqual((factory.maxFramePayloadSize, factory.maxMessagePayloadSize), (4096, 4096))
        self.assertTrue(factory.requireMaskedClientFrames and factory.utf8validateIncoming)
        self.assertEqual((factory.versions, factory.webStatus), ([13], False))

    def test_4_kb_before_authentication(self) -> None:
        """Before authentication a message has at most 4,096 bytes, all frames together (security: W2)."""
        frame = json.dumps({"type": "ping", "pad": ""}).encode()
        whole = frame[:-2] + b"x" * (4096 - len(frame)) + frame[-2:]
        client = self.server.open()
        client.frames()
        client.send_raw(whole)
        self.assertEqual(client.frame()["type"], "pong")
        client.send_raw(whole + b" ")
        self.assertEqual(client.frame()["reason"], "frame_too_large")
        self.assertEqual(client.close_code, 4021)
        client = self.server.open()
        client.frames()
        client.send_raw(b"x" * 2048, fin=False)
        client.send_raw(b"x" * 2049, 0, fin=False)
        self.assertEqual(client.frame()["reason"], "frame_too_large")

    def test_the_limit_after_authentication(self) -> None:
        """After authentication a message has at most `frame_bytes` (security: W2)."""
        client = self.server.live()
        client.frames()
        client.send(type="ping", pad="x" * 9_900)
        self.assertEqual(client.frame()["type"], "pong")
        client.write(bytes((0x81, 0xFF)) + (2**40).to_bytes(8, "big") + bytes(4))
        self.assertEqual(client.frame()["reason"], "frame_too_large")

    def test_endless_fragments(self) -> None:
        """Empty fragments without end are a flood (security: W2)."""
        client = self.server.live()
        client.frames()
        client.send_raw(b"", TEXT, fin=False)
        client.write(frame_bytes(b"", 0, fin=False) * 3000)
        self.assertEqual((client.frame()["reason"], client.close_code), ("flood", 4022))

    def test_unmasked_frames(self) -> None:
        """A frame that is not masked ends the connection (security: W2)."""
        client = self.server.live()
        client.frames()
        client.send_raw(b'{"type":"ping"}', masked=False)
        self.assertEqual((client.frames(), client.close_code), ([], 1002))

    def test_faults_one_after_the_other(self) -> None:
        """Two faults drop the connection; a frame that is too large besides adds nothing (security: W2)."""
        client = self.server.live()
        client.frames()
        too_large = bytes((0xF1, 0x7F)) + (2**40).to_bytes(8, "big")
        client.write(too_large)
        self.assertEqual((client.frames(), client.close_code), ([], 1002))
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_bytes_that_are_no_text(self) -> None:
        """A binary message ends the session with `bad_frame`, invalid UTF-8 with 1007 (security: W2)."""
        client = self.server.live()
        client.frames()
        client.send_raw(b"\x00", BINARY)
        self.assertEqual((client.frame()["reason"], client.close_code), ("bad_frame", 4020))
        client = self.server.live()
        client.frames()
        client.send_raw(b"\xff\xfe")
        self.assertEqual((client.frames(), client.close_code), ([], 1007))

    def test_what_is_no_json_several_times(self) -> None:
        """Messages that are no JSON are refused, and end the session when there are several."""
        client = self.server.live()
        client.frames()
        for _ in range(5):
            client.send_raw(b"{")
        found = client.frames()
        self.assertEqual([frame.get("errcode") for frame in found], ["M_NOT_JSON"] * 5 + [None])
        self.assertEqual(found[-1]["reason"], "bad_frame")

    def test_deep_json(self) -> None:
        """JSON nested more than 64 deep is refused (security: D1)."""
        client = self.server.live()
        client.frames()
        client.send_raw(b'{"type":"ping","x":' + b"[" * 4000 + b"]" * 4000 + b"}")
        self.assertEqual(client.frame()["errcode"], "M_BAD_JSON")

    @settings(max_examples=200, deadline=None)
    @given(st.binary(max_size=300))
    def test_any_bytes_on_the_wire(self, raw: bytes) -> None:
        """Whatever bytes come after the handshake, nothing fails but the connection (security: W2)."""
        client = self.server.live()
        client.write(raw)
        client.drop()
        self.assertEqual(self.flushLoggedErrors(), [])


class FloodTests(SynchronousTestCase):
    """How much may come."""

    def live(self) -> WsClient:
        """Give a live client."""
        client = WsServer().live()
        client.frames()
        return client

    def test_ping_floods(self) -> None:
        """Pings of either kind are bounded (security: W4)."""
        for flood in (frame_bytes(b"x", PING) * 3000, frame_bytes(b'{"type":"ping"}') * 3000):
            client = self.live()
            client.write(flood)
            found = client.frames()
            self.assertEqual((found[-1]["reason"], client.close_code), ("flood", 4022))
            self.assertLessEqual(len(found), 2001)

    def test_pipelined_requests(self) -> None:
        """A flood of requests is refused past 32, then ends; nobody else waits for it (security: W12)."""
        server = WsServer()
        client, other = server.live(), server.live("bob")
        other.frames()
        client.frames()
        one = json.dumps({"type": "request", "id": 0, "method": "GET", "path": "/_matrix/client/v3/wait"})
        client.write(
            b"".join(frame_bytes(one.replace('"id": 0', f'"id": {n}').encode()) for n in range(3000))
        )
        found = client.frames()
        self.assertEqual(len(server.waiting), 32)
        self.assertEqual(found[-1]["reason"], "flood")
        other.send(type="request", id=1, method="GET", path=ECHO)
        self.assertEqual(other.frame()["status"], 200)

    def test_a_flood_is_not_read_when_answers_are_not(self) -> None:
        """A client that reads no answers is not read from either (security: W12)."""
        client = self.live()
        client.pause()
        self.assertEqual(client.transport.producerState, "paused")

    def test_ordinary_use_is_no_flood(self) -> None:
        """A client that sends a hundred frames a second is let be."""
        server = WsServer()
        client = server.live()
        for _ in range(60):
            server.task_clock.advance(1)
            for _ in range(100):
                client.send(type="ping")
        self.assertEqual({frame["type"] for frame in client.frames()[1:]}, {"sync", "pong", "ping"})


class CompressionTests(SynchronousTestCase):
    """permessage-deflate."""

    EXTENSION = {"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits"}

    def test_off_by_default(self) -> None:
        """Compression that is offered is not taken (security: W3)."""
        self.assertNotIn("deflate", WsServer().open(self.EXTENSION).head)

    def test_a_bomb(self) -> None:
        """A message that inflates past the limit ends the connection (security: W3)."""
        server = WsServer(compression=True, frame_bytes=100_000)
        client = server.open(self.EXTENSION)
        self.assertIn("client_no_context_takeover", client.head)
        squeezer = zlib.compressobj(wbits=-15)
        bomb = squeezer.compress(b"x" * 1_000_000) + squeezer.flush(zlib.Z_SYNC_FLUSH)
        client.send_raw(bomb[:-4], TEXT | 0x40)
        self.assertTrue(client.transport.value())
        self.assertEqual(client.transport.value()[0] & 0xF, 8)
