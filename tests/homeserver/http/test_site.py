"""Tests of requests on their way in: framing, bodies, bounds."""

from __future__ import annotations

from tests.homeserver.http.helpers import ALICE, MemoryServer, request_bytes
from tests.homeserver.http.site_helpers import SiteCase


class RequestTests(SiteCase):
    """What comes in."""

    def test_a_request_reaches_its_handler(self) -> None:
        """Path, query, body and user are decoded; the answer is JSON with its length."""
        answer = self.server.ask("PUT", "/object?a=1&a=2&b=%C3%A9", {"x": [1.5]}, token="alice")
        self.assertEqual((answer.status, answer.json["who"]), (200, ALICE.user_id))
        call = self.handlers.calls[0]
        self.assertEqual(
            (call.query.all("a"), call.query.get("b"), call.body), (["1", "2"], "é", {"x": [1.5]})
        )

    def test_errors_of_a_body_name_the_field(self) -> None:
        """Wrong type, missing field, no JSON, no UTF-8, wrong range: each has its code."""
        for body, errcode, part in (
            (b'{"name": 3}', "M_BAD_JSON", "field name"),
            (b'{"name": "x", "count": -1}', "M_BAD_JSON", "field count"),
            (b'{"name": "x", "count": "1"}', "M_BAD_JSON", "field count"),
            (b"{}", "M_MISSING_PARAM", "field name"),
            (b"", "M_MISSING_PARAM", "field name"),
            (b"[]", "M_BAD_JSON", "body"),
            (b"nonsense", "M_NOT_JSON", "not JSON"),
            (b'{"name": "\xff"}', "M_NOT_JSON", "not JSON"),
            (b'{"name": "\\ud800"}', "M_NOT_JSON", "not JSON"),
        ):
            answer = self.server.ask("POST", "/typed", body)
            self.assertEqual((answer.status, answer.errcode), (400, errcode), body)
            self.assertIn(part, answer.json["error"])
        self.assertEqual(self.handlers.calls, [])

    def test_deep_json_is_refused(self) -> None:
        """Nesting of 10^5 and numbers of 10^6 digits are a 400, not a crash (security: D1)."""
        server = MemoryServer(self.handlers.routes(), max_body=3_000_000)
        for target in ("/typed", "/object"):
            method = "POST" if target == "/typed" else "PUT"
            for body in (
                b"[" * 100_000,
                b'{"name":' * 100_000 + b"1" + b"}" * 100_000,
                b'{"name":' + b"9" * 1_000_000 + b"}",
                b"[" * 50_000 + b"]" * 50_000,
            ):
                answer = server.ask(method, target, body, token="alice")
                self.assertIn(answer.status, (200, 400))
                self.assertNotIn("Recursion", answer.body.decode())

    def test_a_large_body_is_refused_before_it_is_read(self) -> None:
        """A long Content-Length is answered 413 at the headers, and the connection ends."""
        connection = self.server.connect()
        connection.send(
            request_bytes("PUT", "/object", token="alice", headers=[("Content-Length", "2000000000")])
        )
        (answer,) = connection.answers()
        self.assertEqual((answer.status, answer.errcode), (413, "M_TOO_LARGE"))
        self.assertTrue(connection.closed)
        connection.send(b"x" * 100_000)
        self.assertEqual(connection.answers(), [])

    def test_a_large_chunked_body_is_cut_off(self) -> None:
        """Bytes received count, not what headers say."""
        connection = self.server.connect()
        connection.send(
            request_bytes("PUT", "/object", token="alice", headers=[("Transfer-Encoding", "chunked")])
        )
        connection.send(b"400\r\n" + b"x" * 0x400 + b"\r\n")
        (answer,) = connection.answers()
        self.assertEqual(answer.status, 413)
        self.assertTrue(connection.closed)

    def test_chunked_bodies_are_read(self) -> None:
        """A body in chunks is as good as one with a length."""
        connection = self.server.connect()
        connection.send(
            request_bytes("PUT", "/object", token="alice", headers=[("Transfer-Encoding", "chunked")])
        )
        connection.send(b'5\r\n{"a":\r\n2\r\n1}\r\n0\r\n\r\n')
        self.assertEqual(connection.answers()[0].status, 200)
        self.assertEqual(self.handlers.calls[0].body, {"a": 1})

    def test_forms_are_refused_at_the_headers(self) -> None:
        """Multipart is not read into memory (security: M10)."""
        connection = self.server.connect()
        connection.send(
            request_bytes(
                "PUT",
                "/object",
                token="alice",
                headers=[
                    ("Content-Type", "Multipart/form-data; boundary=x"),
                    ("Content-Length", "2000000000"),
                ],
            )
        )
        self.assertEqual(connection.answers()[0].status, 400)
        self.assertTrue(connection.closed)

    def test_a_refusal_with_a_short_body_keeps_the_connection(self) -> None:
        """What is refused at the headers is answered after its short body, and the next request is served."""
        connection = self.server.connect()
        connection.send(request_bytes("PUT", "/object", b"{}") + request_bytes("GET", "/open/1"))
        self.assertEqual([answer.status for answer in connection.answers()], [401, 200])
        self.assertFalse(connection.closed)

    def test_options_is_answered_for_every_path(self) -> None:
        """A pre-flight needs no token and calls no handler."""
        for target in ("/object", "/nowhere", "*"):
            answer = self.server.ask("OPTIONS", target)
            self.assertEqual((answer.status, answer.body), (204, b""))
            self.assertEqual(answer.headers["access-control-allow-origin"], "*")
        self.assertEqual(self.handlers.calls, [])

    def test_absolute_targets_are_served(self) -> None:
        """A target with scheme and host leads to its path."""
        self.assertEqual(self.server.ask("GET", "http://plait.test/open/1").status, 200)

    def test_disordered_framing_ends_the_connection(self) -> None:
        """Both lengths, repeated lengths, folded and odd headers are a 400 and the end (security: C15)."""
        for lines in (
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nContent-Length: 5",
            "Content-Length: 5\r\nContent-Length: 6",
            "Content-Length: 5\r\nContent-Length: 5",
            "Content-Length: +5",
            "Content-Length: 5, 5",
            "Content-Length: -1",
            "Content-Length: 0x5",
            f"Content-Length: {'9' * 5000}",
            "Transfer-Encoding: chunked, chunked",
            "Transfer-Encoding: xchunked",
            "Transfer-Encoding : chunked",
            "X: a\x00b",
            "X: a\r\n folded",
            "X: a\r\n\tfolded",
            ": nameless",
        ):
            connection = self.server.connect()
            connection.send(f"PUT /object HTTP/1.1\r\nHost: x\r\n{lines}\r\n\r\n".encode() + b"GET /open/1")
            self.assertTrue(connection.transport.value().startswith(b"HTTP/1.1 400 "), lines)
            self.assertTrue(connection.closed, lines)
        self.assertEqual(self.handlers.calls, [])

    def test_pipelined_requests_are_answered_in_order(self) -> None:
        """A second request waits for the first one's answer (security: C15)."""
        connection = self.server.connect()
        connection.send(request_bytes("GET", "/slow") + request_bytes("GET", "/open/2"))
        self.assertEqual(connection.answers(), [])
        self.handlers.waiting.callback(None)
        self.assertEqual([answer.json for answer in connection.answers()][1]["path"], {"x": "2"})

    def test_a_drip_does_not_keep_a_request_open(self) -> None:
        """A request that takes too long to arrive is cut off though bytes keep coming."""
        connection = self.server.connect()
        connection.send(b"GET /open/1 HTTP/1.1\r\n")
        for _ in range(5):
            self.server.task_clock.advance(30)
            connection.send(b"X: y\r\n")
        self.assertTrue(connection.closed)

    def test_a_silent_connection_is_closed(self) -> None:
        """Nothing said, nothing kept."""
        connection = self.server.connect()
        self.server.task_clock.advance(100)
        self.assertTrue(connection.closed)
