"""Whole requests are answered as those that come byte by byte; queries are read as by the library."""

from __future__ import annotations

from urllib.parse import parse_qsl

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from homeserver.http.calls import Call, Json, Query, Reply
from homeserver.http.heads import read_whole
from homeserver.http.routing import Auth, RateClass, Route
from homeserver.http.site import MAX_HEADERS
from protocol.canonical_json import dumps
from protocol.errors import InvalidParam
from tests.homeserver.http.helpers import Connection, MemoryServer

PIECES = st.sampled_from(
    [b"GET", b"PUT", b" ", b"/echo", b"/echo?a=b", b"/nowhere", b"HTTP/1.1", b"HTTP/1.0", b"\r\n", b"\r",
     b"\n", b"\0", b":", b": ", b"\t", b"Host", b"x", b"Authorization: Bearer alice\r\n", b"abc", b"\xe9",
     b"Content-Length: 3\r\n", b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n",
     b"3\r\nabc\r\n0\r\n", b"Connection: close\r\n", b"Expect: 100-continue\r\n",
     b"GET /echo HTTP/1.1\r\n", b"GET /echo HTTP/1.1\r\nHost: a\r\n\r\n"]
)  # fmt: skip
METHODS = st.sampled_from((b"GET", b"PUT", b"POST", b"DELETE", b"HEAD", b"PATCH"))
BODIES = st.sampled_from((b"", b"abc", b"abcd", b"\r\n", b"abc" + b"GET /echo HTTP/1.1\r\n\r\n"))
HEAD = b"GET /echo?q HTTP/1.1\r\nHost: a\r\nX: \t b \r\nx:c\r\n\r\n"
PUT = b"PUT /echo HTTP/1.1\r\nContent-Length: 5\r\n\r\nabc\r\n"


async def echo(call: Call[bytes]) -> Reply:
    """Tell what came."""
    asker = None if call.asker is None else call.asker.user_id
    uri, agent = call.uri.decode("latin-1"), call.user_agent
    return Json(dumps({"uri": uri, "body": call.body.decode("latin-1"), "asker": asker, "agent": agent}))


def connect() -> Connection:
    """Connect to a server that echoes."""
    routes = [
        Route(method, "/echo", echo, body=bytes, auth=Auth.OPTIONAL, limit=RateClass.NONE)
        for method in ("GET", "PUT", "DELETE")
    ]
    return MemoryServer(routes).connect()


class HeadTests(SynchronousTestCase):
    """Whole heads."""

    @settings(max_examples=300, deadline=None)
    @given(METHODS, st.lists(PIECES, max_size=12), BODIES)
    @example(b"GET", [b"GET /echo HTTP/1.1\r\n", b"Host: a\r\n", b" folded\r\n", b"\r\n"], b"")
    @example(b"GET", [HEAD, HEAD], b"")
    @example(b"GET", [HEAD[:-2], b"Connection: close\r\n\r\n"], b"")
    @example(b"PUT", [b"Content-Length: 3\r\n"], b"abc")
    @example(b"PUT", [b"Content-Length: 3\r\nConnection: close\r\n"], b"abc")
    @example(b"PUT", [b"Content-Length: 3\r\nContent-Type: multipart/form-data\r\n"], b"abc")
    @example(b"POST", [b"Content-Length: 3\r\n"], b"abc")
    def test_whole_or_in_pieces(self, method: bytes, pieces: list[bytes], body: bytes) -> None:
        """Whatever comes is answered alike, at once, byte by byte, and behind a request that came before."""
        raw = method + b" /echo HTTP/1.1\r\n" + b"".join(pieces) + b"\r\n" + body
        whole, single, later = connect(), connect(), connect()
        whole.send(raw)
        for index in range(len(raw)):
            if not single.closed:
                single.send(raw[index : index + 1])
        later.send(HEAD)
        self.assertEqual([each.status for each in later.answers()], [200])
        later.send(raw)
        expected = single.transport.value()
        self.assertEqual(whole.transport.value(), expected)
        self.assertEqual(later.transport.value(), expected)
        self.assertEqual((whole.closed, later.closed), (single.closed, single.closed))

    def test_what_is_read(self) -> None:
        """A whole request is read, its headers stripped; with more or less than that it is not."""
        head = read_whole(HEAD, MAX_HEADERS)
        assert head is not None
        self.assertEqual((head.method, head.target, head.body), (b"GET", b"/echo?q", b""))
        self.assertEqual(head.fields.getRawHeaders(b"HOST"), [b"a"])
        self.assertEqual(head.fields.getRawHeaders(b"x", ()), [b"b", b"c"])
        self.assertEqual(head.fields.getRawHeaders(b"y", ()), ())
        odd = read_whole(b"GET / HTTP/1.1\r\nA: \t\x0bv\x0c \r\n\r\n", 1)
        assert odd is not None
        self.assertEqual(odd.fields.getRawHeaders(b"a"), [b"\x0bv\x0c"])
        put = read_whole(PUT, MAX_HEADERS)
        assert put is not None
        self.assertEqual((put.method, put.target, put.body), (b"PUT", b"/echo", b"abc\r\n"))
        self.assertIsNotNone(read_whole(HEAD, 3))
        self.assertIsNone(read_whole(HEAD, 2))
        for other in (
            HEAD + b"x",
            HEAD + HEAD,
            HEAD[:-2],
            HEAD.replace(b"GET", b"HEAD"),
            PUT + b"x",
            PUT[:-1],
            PUT.replace(b"5", b"+5"),
            PUT.replace(b"5", b"5, 5"),
            PUT.replace(b"5", b"5\r\ncontent-length: 5"),
            PUT.replace(b"5", b"5\r\nExpect: 100-continue"),
            PUT.replace(b"5", b"\xb2"),
            HEAD.replace(b"Host:", b"Host :"),
            HEAD.replace(b"X:", b"content-LENGTH:"),
            HEAD.replace(b"X:", b"Transfer-Encoding:"),
            HEAD.replace(b"X:", b" X:"),
            HEAD.replace(b" b ", b"\n"),
            HEAD.replace(b" b ", b"\r"),
            HEAD.replace(b" b ", b"\0"),
            HEAD.replace(b"1.1", b"1.0"),
            HEAD.replace(b"?q", b" q"),
            HEAD.replace(b"?q", b"?" + b"q" * 9000),
        ):
            self.assertIsNone(read_whole(other, MAX_HEADERS), other)


class QueryTests(SynchronousTestCase):
    """Queries."""

    @settings(deadline=None)
    @given(st.text(alphabet="ab=&%+;2é0C3A9", max_size=30))
    @example("a=%C3%A9&a=+%2B&b&=c&&d==e")
    @example("a=%C3")
    def test_it_is_read_as_the_library_reads_it(self, text: str) -> None:
        """Names and values are those of `urllib.parse`; what is no text is refused."""
        raw = text.encode()
        try:
            expected = parse_qsl(raw.decode("ascii"), keep_blank_values=True, errors="strict")
        except ValueError:
            self.assertRaises(InvalidParam, Query(raw).get, "a")
            return
        for name in {name for name, _ in expected} | {"z"}:
            values = [value for each, value in expected if each == name]
            self.assertEqual(Query(raw).all(name), values)
