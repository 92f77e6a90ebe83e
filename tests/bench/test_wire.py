"""Reading HTTP answers from a stream, whatever way it is cut."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from bench.wire import Answer, build_request, take_answer

PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nServer: x\r\n\r\n{}"
CHUNKED = b"HTTP/1.1 404 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{\r\n\r\n2;x=y\r\n }\r\n0\r\n\r\n"


class TakeAnswerTests(SynchronousTestCase):
    """`take_answer` takes one whole answer or nothing."""

    def test_takes_nothing_until_the_answer_is_whole(self) -> None:
        """However short the answer falls, nothing is taken and nothing is lost."""
        for whole in (PLAIN, CHUNKED):
            for length in range(len(whole)):
                received = bytearray(whole[:length])
                self.assertIsNone(take_answer(received))
                self.assertEqual(received, whole[:length])

    def test_takes_one_answer_and_leaves_the_next(self) -> None:
        """What follows an answer stays for the next call."""
        received = bytearray(PLAIN + PLAIN[:10])
        self.assertEqual(take_answer(received), Answer(200, b"{}"))
        self.assertEqual(received, PLAIN[:10])

    def test_joins_chunks(self) -> None:
        """A chunked body comes whole, with chunk extensions passed over."""
        self.assertEqual(take_answer(bytearray(CHUNKED)), Answer(404, b"{\r\n }"))


class BuildRequestTests(SynchronousTestCase):
    """`build_request` writes what HTTP asks for."""

    def test_writes_length_and_token(self) -> None:
        """A body has its length, a token its header."""
        request = build_request("PUT", "/path", "secret", b"{}")
        head, body = request.split(b"\r\n\r\n")
        self.assertEqual(body, b"{}")
        self.assertTrue(head.startswith(b"PUT /path HTTP/1.1\r\n"))
        self.assertIn(b"\r\nContent-Length: 2", head)
        self.assertIn(b"\r\nAuthorization: Bearer secret", head)
