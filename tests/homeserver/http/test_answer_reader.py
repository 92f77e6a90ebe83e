"""Tests of the reading of HTTP/1.1 answers: framing, bounds, and what is refused."""

from __future__ import annotations

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from homeserver.http.answer_reader import MAX_HEADER_BYTES, AnswerReader, OutboundAnswer
from homeserver.http.outbound_errors import AnswerTooLarge, CannotConnect

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = (
    OK + b"Transfer-Encoding: chunked\r\nX-A: one\r\n\r\n5;x=y\r\nhello\r\n006\r\n world\r\n0\r\nT: t\r\n\r\n"
)
ANSWERS = (
    (OK + b"Content-Length: 5\r\n\r\nhello", OutboundAnswer(200, {"content-length": "5"}, b"hello")),
    (CHUNKED, OutboundAnswer(200, {"transfer-encoding": "chunked", "x-a": "one"}, b"hello world")),
    (b"HTTP/1.1 204 \r\nX: \r\n\r\n", OutboundAnswer(204, {"x": ""}, b"")),
    (b"HTTP/1.1 304\r\nContent-Length: 7\r\n\r\n", OutboundAnswer(304, {"content-length": "7"}, b"")),
    (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nA: b\r\n\r\n" + OK + b"Content-Length:0\r\n\r\n",
        OutboundAnswer(200, {"content-length": "0"}, b""),
    ),
    (
        OK + b"Fold: a\r\n b\r\nTwice: 1\r\ntwice: 2\r\nContent-Length: 0\r\n\r\n",
        OutboundAnswer(200, {"fold": "a  b", "twice": "1", "content-length": "0"}, b""),
    ),
)
REFUSED = (
    b"SSH-2.0-OpenSSH\r\n\r\n",
    b"HTTP/2.0 200 OK\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
    OK + b"Content-Length: -1\r\n\r\n",
    OK + b"Content-Length: 5, 5\r\n\r\n",
    OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    OK + b"No colon\r\n\r\n",
    OK + b"Space : a\r\n\r\n",
    OK + b"Bare: a\nContent-Length: 0\r\n\r\n",
    OK + b"Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n",
    OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhelloX\r\n",
    OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"5" * 2000,
    OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"T: t\r\n" * 20_000,
    OK + b"X: " + b"x" * MAX_HEADER_BYTES,
    b"HTTP/1.1 100 Continue\r\nA: b\r\n\r\n" * 5_000,
)


def read(data: bytes, *, is_head: bool = False, max_bytes: int = 100) -> OutboundAnswer | None:
    """Read an answer that comes in one piece."""
    return AnswerReader(is_head, max_bytes).feed(data)


class AnswerReaderTests(SynchronousTestCase):
    """What counts as an answer."""

    def test_answers_are_read(self) -> None:
        """Lengths, chunks with trailers, bodiless statuses, interim answers and folds are understood."""
        for data, wanted in ANSWERS:
            reader = AnswerReader(False, 100)
            self.assertEqual(reader.feed(data), wanted)
            self.assertTrue(reader.persistent)

    @given(st.sampled_from(ANSWERS), st.lists(st.integers(1, 40), max_size=30))
    def test_pieces_make_no_difference(self, answer: tuple[bytes, OutboundAnswer], sizes: list[int]) -> None:
        """However the bytes are cut, the answer is the same, and complete with the last byte alone."""
        data, wanted = answer
        reader, found = AnswerReader(False, 100), None
        for size in [*sizes, *[1] * len(data)]:
            if data:
                self.assertIsNone(found)
                found, data = reader.feed(data[:size]), data[size:]
        self.assertEqual(found, wanted)

    def test_the_answer_to_head_has_no_body(self) -> None:
        """A length announced in answer to HEAD is of what GET would give."""
        answer = read(OK + b"Content-Length: 5000\r\n\r\n", is_head=True)
        self.assertEqual(answer, OutboundAnswer(200, {"content-length": "5000"}, b""))

    def test_an_answer_without_a_length_ends_with_the_connection(self) -> None:
        """Its body is all that comes, and the connection serves no more requests."""
        reader = AnswerReader(False, 100)
        self.assertIsNone(reader.feed(OK + b"\r\nhel"))
        self.assertIsNone(reader.feed(b"lo"))
        self.assertEqual(reader.end(), OutboundAnswer(200, {}, b"hello"))
        self.assertFalse(reader.persistent)

    def test_a_cut_answer_is_none(self) -> None:
        """The end of the connection completes neither a length nor chunks."""
        for data in (b"HTTP/1.1 2", OK + b"Content-Length: 5\r\n\r\nhell", CHUNKED[:-2]):
            reader = AnswerReader(False, 100)
            self.assertIsNone(reader.feed(data))
            self.assertRaises(CannotConnect, reader.end)

    def test_doubtful_answers_are_refused(self) -> None:
        """What could be read in two ways, or has no end, is no answer (security: C15, D5)."""
        for data in REFUSED:
            with self.assertRaises(CannotConnect, msg=data[:80]):
                read(data)

    def test_large_bodies_are_refused(self) -> None:
        """An announced length or chunk is refused before its body comes, an unannounced one when it does."""
        for data in (
            OK + b"Content-Length: 101\r\n\r\n",
            OK + b"Transfer-Encoding: chunked\r\n\r\n64\r\n" + b"x" * 100 + b"\r\n1\r\n",
            OK + b"\r\n" + b"x" * 101,
        ):
            with self.assertRaises(AnswerTooLarge):
                read(data)

    def test_small_chunks_take_no_more_memory_than_large_ones(self) -> None:
        """A peer that sends a body two bytes at a time does not multiply it."""
        body = b"2\r\nxy\r\n" * 50_000
        tracemalloc.start()
        try:
            reader = AnswerReader(False, 200_000)
            reader.feed(OK + b"Transfer-Encoding: chunked\r\n\r\n")
            for start in range(0, len(body), 7_000):
                self.assertIsNone(reader.feed(body[start : start + 7_000]))
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        self.assertLess(held, 300_000)

    def test_who_keeps_the_connection(self) -> None:
        """It ends after `close`, after HTTP/1.0, and after bytes that nobody asked for."""
        for data in (
            OK + b"Connection: TE, Close\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
            OK + b"Content-Length: 0\r\n\r\nHTTP/1.1 200",
        ):
            reader = AnswerReader(False, 100)
            self.assertIsNotNone(reader.feed(data))
            self.assertFalse(reader.persistent)
