"""Tests of requests and answers over a real site in memory."""

from __future__ import annotations

import gzip
import json
from typing import Annotated, Any

import msgspec
from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from homeserver.config.sections import Rate, RateLimits
from homeserver.http.calls import EMPTY, Call, Json, Reply, Response, TakeOver
from homeserver.http.dispatch import Asked
from homeserver.http.metrics import MetricsPage
from homeserver.http.routing import Auth, RateClass, Route
from protocol.errors import Forbidden
from storage.database import DatabaseGone
from tests.homeserver.http.helpers import ALICE, KnownTokens, MemoryServer, request_bytes


class Body(msgspec.Struct):
    """A body for tests."""

    name: str
    count: Annotated[int, msgspec.Meta(ge=0)] = 0


class Handlers:
    """Handlers that show what came in."""

    def __init__(self) -> None:
        """Start without calls."""
        self.calls: list[Call[Any]] = []
        self.waiting: Deferred[None] = Deferred()
        self.cancelled = False

    async def echo(self, call: Call[Any]) -> Reply:
        """Tell what came."""
        self.calls.append(call)
        return {"path": dict(call.path), "who": call.asker and call.asker.user_id}

    async def fail(self, call: Call[Any]) -> Reply:
        """Fail as told."""
        raise {
            "forbidden": Forbidden("No “entry”"),
            "gone": DatabaseGone("host=secret"),
            "bug": ZeroDivisionError("/secret/path.py"),
        }[call.path["how"]]

    async def wait(self, call: Call[Any]) -> Reply:
        """Wait long."""
        try:
            await self.waiting
        except CancelledError:
            self.cancelled = True
            raise
        return EMPTY

    async def big(self, call: Call[Any]) -> Reply:
        """Give a large answer."""
        return Json(b'"' + b"x" * 2_000_000 + b'"')

    async def middling(self, call: Call[Any]) -> Reply:
        """Give an answer worth compressing."""
        return Json(b'"' + b"y" * 10_000 + b'"')

    async def page(self, call: Call[Any]) -> Reply:
        """Give a page with odd headers."""
        return Response(
            302, b"", (("Location", "https://x/\r\nSet-Cookie: a=b"),), "text/html; charset=utf-8"
        )

    async def take(self, call: Call[Any]) -> Reply:
        """Take the connection over."""
        return TakeOver(lambda request: request.channel.transport.write(b"mine:" + request.content.read()))

    def routes(self) -> list[Route]:
        """List all."""
        return [
            Route("GET", "/open/{x}", self.echo, auth=Auth.NONE),
            Route("POST", "/typed", self.echo, body=Body, auth=Auth.NONE, limit=RateClass.LOGIN),
            Route("PUT", "/object", self.echo, body=dict, limit=RateClass.WRITES),
            Route("GET", "/mine", self.echo),
            Route("GET", "/maybe", self.echo, auth=Auth.OPTIONAL),
            Route("GET", "/guests", self.echo, auth=Auth.GUEST),
            Route("GET", "/admins", self.echo, auth=Auth.ADMIN),
            Route("POST", "/logout", self.echo, while_locked=True, while_suspended=True),
            Route("GET", "/fail/{how}", self.fail, auth=Auth.NONE),
            Route("GET", "/wait", self.wait, auth=Auth.NONE, waits=True),
            Route("GET", "/slow", self.wait, auth=Auth.NONE),
            Route("GET", "/middling", self.middling, auth=Auth.NONE),
            Route("GET", "/big", self.big, auth=Auth.NONE),
            Route("GET", "/page", self.page, auth=Auth.NONE, cors=False, over_websocket=False),
            Route("GET", "/ws", self.take, auth=Auth.NONE, over_websocket=False),
        ]


class SiteCase(SynchronousTestCase):
    """A server with all handlers."""

    def setUp(self) -> None:
        """Start it."""
        self.handlers = Handlers()
        self.server = MemoryServer(self.handlers.routes())


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


class AdmissionTests(SiteCase):
    """Who is let in."""

    def test_tokens_come_in_header_or_query(self) -> None:
        """Without one 401 M_MISSING_TOKEN, with a wrong one 401 M_UNKNOWN_TOKEN."""
        self.assertEqual(self.server.ask("GET", "/mine").errcode, "M_MISSING_TOKEN")
        self.assertEqual(self.server.ask("GET", "/mine", token="eve").errcode, "M_UNKNOWN_TOKEN")
        self.assertEqual(self.server.ask("GET", "/mine", token="alice").status, 200)
        self.assertEqual(self.server.ask("GET", "/mine?access_token=alice").status, 200)
        self.assertEqual(self.server.ask("GET", "/maybe").json["who"], None)
        self.assertEqual(self.server.ask("GET", "/maybe", token="alice").json["who"], ALICE.user_id)
        self.assertEqual(self.server.ask("GET", "/maybe", token="eve").status, 401)

    def test_tokens_in_the_query_can_be_switched_off(self) -> None:
        """A server may refuse them (security: L15)."""
        self.server.site.settings.query_tokens = False
        self.assertEqual(self.server.ask("GET", "/mine?access_token=alice").errcode, "M_MISSING_TOKEN")

    def test_account_states_close_routes(self) -> None:
        """Every state meets every kind of route, as declared (security: C8, C9)."""
        states = {
            "guest": evolve(ALICE, is_guest=True),
            "admin": evolve(ALICE, is_admin=True),
            "suspended": evolve(ALICE, suspended=True),
            "locked": evolve(ALICE, locked=True),
        }
        server = MemoryServer(self.handlers.routes(), tokens=KnownTokens(dict(states)))
        reached = {
            state: [
                server.ask(method, target, {} if method != "GET" else None, token=state).status
                for method, target in (
                    ("GET", "/mine"),
                    ("GET", "/guests"),
                    ("GET", "/admins"),
                    ("PUT", "/object"),
                    ("POST", "/logout"),
                )
            ]
            for state in states
        }
        self.assertEqual(
            reached,
            {
                "guest": [403, 200, 403, 403, 403],
                "admin": [200, 200, 200, 200, 200],
                "suspended": [200, 200, 403, 403, 200],
                "locked": [401, 401, 401, 401, 200],
            },
        )
        self.assertEqual(server.ask("GET", "/mine", token="locked").json["soft_logout"], True)

    def test_the_rate_limit_comes_before_the_body(self) -> None:
        """A request over the rate is refused unread, with the time to wait (security: D11)."""
        limits = RateLimits(login=Rate(per_second=0.5, burst=2))
        server = MemoryServer(self.handlers.routes(), limits=limits)
        answers = [server.ask("POST", "/typed", b"nonsense") for _ in range(3)]
        self.assertEqual([answer.status for answer in answers], [400, 400, 429])
        self.assertEqual(answers[2].json["retry_after_ms"], 2000)
        self.assertEqual(answers[2].headers["retry-after"], "2")
        server.task_clock.advance(2)
        self.assertEqual(server.ask("POST", "/typed", b"nonsense").status, 400)

    def test_too_many_requests_under_way_are_refused(self) -> None:
        """Past the bound a clear 503; long-polls do not count."""
        server = MemoryServer(self.handlers.routes(), bound=2)
        waiting = [server.connect() for _ in range(4)]
        for connection, target in zip(waiting, ("/wait", "/wait", "/slow", "/slow"), strict=True):
            connection.send(request_bytes("GET", target))
        self.assertEqual(server.ask("GET", "/open/1").status, 503)
        self.handlers.waiting.callback(None)
        self.assertEqual(server.ask("GET", "/open/1").status, 200)

    def test_only_trusted_proxies_name_the_client(self) -> None:
        """The rightmost hop that is no trusted proxy counts; strangers' headers do not (security: L10)."""
        spoofed = [("X-Forwarded-For", "9.9.9.9, 1.2.3.4"), ("X-Forwarded-For", "10.0.0.7")]
        for proxies, wanted in (((), "192.168.1.1"), (("192.168.0.0/16", "10.0.0.0/8"), "1.2.3.4")):
            server = MemoryServer(self.handlers.routes(), proxies=proxies)
            server.ask("GET", "/open/1", headers=spoofed)
            self.assertEqual(self.handlers.calls[-1].ip, wanted)


class DispatchTests(SiteCase):
    """The same endpoints for frames of a WebSocket."""

    def test_a_frame_and_a_request_meet_the_same_rules(self) -> None:
        """A known requester needs no token; what is for HTTP alone is refused."""

        def call(method: str, uri: bytes, body: bytes = b"") -> Response:
            answer = self.successResultOf(
                Deferred.fromCoroutine(self.server.dispatcher.dispatch(Asked(method, uri), body, ALICE))
            )
            assert isinstance(answer, Response)
            return answer

        self.assertEqual(json.loads(call("GET", b"/mine?x=1").body)["who"], ALICE.user_id)
        self.assertEqual(call("PUT", b"/object", b"[]").status, 400)
        self.assertEqual(call("GET", b"/page").status, 404)
        self.assertEqual(call("GET", b"/nowhere").status, 404)
        self.assertEqual(call("GET", b"/admins").status, 403)
