"""Tests of answers on their way out."""

from __future__ import annotations

import gzip

from twisted.python.failure import Failure

from homeserver.http.metrics import MetricsPage
from tests.homeserver.http.helpers import MemoryServer, request_bytes
from tests.homeserver.http.site_helpers import SiteCase


class AnswerTests(SiteCase):
    """What goes out."""

    def test_errors_carry_their_code(self) -> None:
        """Unknown path, wrong method, an error of a handler: each in the one form."""
        for target, status, errcode in (
            ("/nowhere", 404, "M_UNRECOGNIZED"),
            ("/object", 405, "M_UNRECOGNIZED"),
            ("/fail/forbidden", 403, "M_FORBIDDEN"),
        ):
            answer = self.server.ask("GET", target)
            self.assertEqual((answer.status, answer.errcode), (status, errcode))

    def test_a_bug_is_told_nothing_of(self) -> None:
        """An exception nobody foresaw is a bare 500, and logged."""
        answer = self.server.ask("GET", "/fail/bug")
        self.assertEqual(answer.status, 500)
        self.assertEqual(answer.json, {"errcode": "M_UNKNOWN", "error": "Internal server error"})
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_a_database_that_is_gone_is_a_503(self) -> None:
        """The client may come again; the reason is not told."""
        answer = self.server.ask("GET", "/fail/gone")
        self.assertEqual((answer.status, answer.headers["retry-after"]), (503, "1"))
        self.assertNotIn(b"secret", answer.body)

    def test_all_answers_bear_the_security_headers(self) -> None:
        """CORS on the API only, and no sniffing or framing anywhere, errors included (security: C12)."""
        for method, target in (
            ("GET", "/open/1"),
            ("GET", "/nowhere"),
            ("POST", "/open/1"),
            ("GET", "/mine"),
            ("GET", "/fail/forbidden"),
            ("OPTIONS", "/mine"),
            ("PUT", "/object"),
            ("GET", "/page"),
        ):
            answer = self.server.ask(method, target)
            self.assertEqual(answer.headers["x-content-type-options"], "nosniff")
            self.assertIn("frame-ancestors 'none'", answer.headers["content-security-policy"])
            self.assertEqual(answer.headers["referrer-policy"], "no-referrer")
            self.assertNotIn("access-control-allow-credentials", answer.headers)
            if target == "/page":
                self.assertNotIn("access-control-allow-origin", answer.headers)
            else:
                self.assertEqual(answer.headers["access-control-allow-origin"], "*")

    def test_headers_cannot_be_split(self) -> None:
        """Line breaks do not get into a header (security: C14)."""
        answer = self.server.ask("GET", "/page", headers=[("Host", 'x"><script>')])
        self.assertEqual(answer.headers["location"], "https://x/Set-Cookie: a=b")
        self.assertNotIn("set-cookie", answer.headers)
        self.assertNotIn("script", str(answer))

    def test_head_gives_headers_alone(self) -> None:
        """HEAD tells the length and sends no body."""
        connection = self.server.connect()
        connection.send(request_bytes("HEAD", "/open/1"))
        self.assertTrue(connection.transport.value().endswith(b"\r\n\r\n"))
        self.assertNotIn(b"Content-Length: 0", connection.transport.value())

    def test_a_large_answer_follows_the_reader(self) -> None:
        """Past a bound, pieces are written only while the transport takes them."""
        connection = self.server.connect()
        write = connection.transport.write
        held = False

        def write_and_pause(data: bytes) -> None:
            nonlocal held
            write(data)
            if len(data) > 1000 and not held:
                held = True
                connection.channel.pauseProducing()

        connection.transport.write = write_and_pause  # type: ignore[method-assign]
        connection.send(request_bytes("GET", "/big"))
        self.assertLess(len(connection.transport.value()), 500_000)
        connection.channel.resumeProducing()
        (answer,) = connection.answers()
        self.assertEqual(len(answer.body), 2_000_002)
        connection.send(request_bytes("GET", "/open/1"))
        self.assertEqual(connection.answers()[0].status, 200)

    def test_answers_are_compressed_where_wanted(self) -> None:
        """Only where switched on, for those who take it, and not what is small."""
        headers = [("Accept-Encoding", "br, gzip")]
        for switched_on, target, coding in (
            (False, "/middling", None),
            (True, "/middling", "gzip"),
            (True, "/open/1", None),
            (True, "/big", None),
        ):
            self.server.site.settings.compress = switched_on
            answer = self.server.ask("GET", target, headers=headers)
            self.assertEqual(answer.headers.get("content-encoding"), coding, target)
            if coding is not None:
                self.assertEqual(gzip.decompress(answer.body), b'"' + b"y" * 10_000 + b'"')
        self.assertNotIn("content-encoding", self.server.ask("GET", "/middling").headers)

    def test_a_handler_that_waits_stops_when_the_client_goes(self) -> None:
        """A long-poll ends with its connection; other handlers go on to their end."""
        for target, cancelled in (("/slow", False), ("/wait", True)):
            connection = self.server.connect()
            connection.send(request_bytes("GET", target))
            connection.channel.connectionLost(Failure(ConnectionError()))
            self.assertEqual(self.handlers.cancelled, cancelled)

    def test_a_connection_can_be_taken_over(self) -> None:
        """A handler may get the transport itself."""
        connection = self.server.connect()
        connection.send(request_bytes("GET", "/ws"))
        self.assertEqual(connection.transport.value(), b"mine:")

    def test_requests_are_counted_by_template(self) -> None:
        """Series name the endpoint, never the path sent."""
        for number in range(3):
            self.server.ask("GET", f"/open/secret{number}")
        self.server.ask("GET", "/nowhere")
        page = MemoryServer(MetricsPage(self.server.registry).routes()).ask("GET", "/metrics").body.decode()
        self.assertIn('plait_http_requests_total{endpoint="/open/{x}",method="GET",status="200"} 3.0', page)
        self.assertIn('plait_http_requests_total{endpoint="unknown",method="",status="404"} 1.0', page)
        self.assertNotIn("secret", page)
