"""Tests of answers that are made while they go out."""

from __future__ import annotations

from collections.abc import AsyncIterator

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from homeserver.http.calls import Call, Reply, Response
from homeserver.http.large_bodies import Making
from homeserver.http.routing import Auth, Route
from tests.homeserver.http.helpers import MemoryServer


@define
class Sent:
    """Notes what is sent, and who sets the pace."""

    data: list[bytes] = field(factory=list)
    following: list[object] = field(factory=list)
    ended: bool = False

    def send(self, data: bytes) -> None:
        """Note bytes."""
        self.data.append(data)

    def follow(self, producer: object) -> None:
        """Note a producer."""
        self.following.append(producer)

    def end(self) -> None:
        """Note the end."""
        self.ended = True


class MakingTests(SynchronousTestCase):
    """`Making`, over a transport that says when."""

    def setUp(self) -> None:
        """Begin with nothing made."""
        self.made = 0
        self.sent = Sent()

    async def _pieces(self, count: int = 5) -> AsyncIterator[bytes]:
        for number in range(count):
            self.made += 1
            yield b"%d" % number

    def _start(self, making: Making) -> Deferred[None]:
        return Deferred.fromCoroutine(making.run())

    def test_pieces_go_out_in_chunks(self) -> None:
        """Each with its length, an empty one left out, and an end that says that all is there."""

        async def pieces() -> AsyncIterator[bytes]:
            for piece in (b"{", b"", b"x" * 20, b"}"):
                yield piece

        self.successResultOf(self._start(Making(self.sent, pieces(), True)))
        chunks = [b"1\r\n{\r\n", b"14\r\n" + b"x" * 20 + b"\r\n", b"1\r\n}\r\n", b"0\r\n\r\n"]
        self.assertEqual(self.sent.data, chunks)
        self.assertTrue(self.sent.ended)
        self.assertIsNone(self.sent.following[-1])

    def test_nothing_is_made_ahead_of_the_peer(self) -> None:
        """While the transport is full, one piece waits at most; then it goes on (security: D7)."""
        making = Making(self.sent, self._pieces(), False)
        making.pauseProducing()
        running = self._start(making)
        self.assertEqual((self.made, self.sent.data), (1, [b"0"]))
        making.resumeProducing()
        self.successResultOf(running)
        self.assertEqual(b"".join(self.sent.data), b"01234")

    def test_a_peer_that_is_gone_ends_the_making(self) -> None:
        """No more pieces are made for nobody."""
        making = Making(self.sent, self._pieces(), True)
        making.pauseProducing()
        running = self._start(making)
        making.stopProducing()
        self.successResultOf(running)
        self.assertTrue(self.made <= 2)
        self.assertFalse(self.sent.ended)


class AnswerTests(SynchronousTestCase):
    """Such answers of a real site."""

    def _server(self, fails: bool = False) -> MemoryServer:
        async def pieces() -> AsyncIterator[bytes]:
            yield b'{"a":'
            if fails:
                raise RuntimeError("no more")
            yield b"1}"

        async def answer(call: Call[None]) -> Reply:
            return Response(200, b"", pieces=pieces())

        return MemoryServer([Route("GET", "/made", answer, auth=Auth.NONE)])

    def test_the_body_comes_in_chunks_and_the_connection_goes_on(self) -> None:
        """The length is not told; a second request on the connection is answered as well."""
        connection = self._server().connect()
        connection.send(b"GET /made HTTP/1.1\r\nHost: x\r\n\r\n" * 2)
        raw = connection.transport.value()
        self.assertEqual(raw.count(b"Transfer-Encoding: chunked\r\n"), 2)
        self.assertNotIn(b"Content-Length", raw)
        self.assertEqual(raw.count(b'\r\n\r\n5\r\n{"a":\r\n2\r\n1}\r\n0\r\n\r\n'), 2)

    def test_an_old_peer_gets_it_bare(self) -> None:
        """HTTP/1.0 knows no chunks: the end of the connection is the end of the body."""
        connection = self._server().connect()
        connection.send(b"GET /made HTTP/1.0\r\nHost: x\r\n\r\n")
        self.assertTrue(connection.transport.value().endswith(b'\r\n\r\n{"a":1}'))
        self.assertTrue(connection.transport.disconnecting)

    def test_what_fails_halfway_has_no_end(self) -> None:
        """The connection breaks off, so that nobody takes a part for the whole."""
        connection = self._server(fails=True).connect()
        connection.send(b"GET /made HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assertTrue(connection.transport.value().endswith(b'5\r\n{"a":\r\n'))
        self.assertTrue(connection.transport.disconnecting)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
