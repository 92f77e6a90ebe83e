"""Tests of the outbound agent over a network in memory, with real TLS."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import SynchronousTestCase

from homeserver.config.sections import PRIVATE_RANGES
from homeserver.http.addresses import IpPolicy
from homeserver.http.agent import Limits, OutboundAgent, OutboundRequest, request_for_url
from homeserver.http.answer_reader import OutboundAnswer
from homeserver.http.connections import IDLE_SECONDS
from homeserver.http.dialing import Dialer, Place
from homeserver.http.outbound_errors import AddressRefused, AnswerTooLarge, CannotConnect, TimedOut
from homeserver.http.outbound_tls import BadCaFile, OutboundTls
from tests.federation.network import Answer, Asked, Authority, MemoryNetwork, TableResolver, site

PUBLIC = "93.184.216.34"
URL = "http://good.example/"
LIMITS = Limits(max_bytes=1000, seconds=10, redirects=3)


class _Raw(Protocol):
    """Sends fixed bytes as soon as something is asked, over and over if told so."""

    def __init__(self, first: bytes, again: bytes = b"") -> None:
        self.first = first
        self.again = again
        self.lost = False

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(self.first)
        for _ in range(2000 if self.again else 0):
            self.transport.write(self.again)

    def connectionLost(self, reason: object = None) -> None:
        self.lost = True


class _Closing(Protocol):
    """Answers the first request of its connection, and closes at the second."""

    answered = False

    def dataReceived(self, data: bytes) -> None:
        if self.answered:
            self.transport.loseConnection()
        else:
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        self.answered = True


class TlsTests(SynchronousTestCase):
    """The context of outgoing TLS."""

    def test_a_file_without_certificates(self) -> None:
        """A file of authorities that is not there, or holds none, is named."""
        empty = Path(self.mktemp())
        empty.write_text("nothing")
        for file in (empty, empty.with_name("missing.pem")):
            with self.assertRaisesRegex(BadCaFile, file.name):
                OutboundTls.of([file], True)


class AgentTests(SynchronousTestCase):
    """What the agent lets out and in."""

    def setUp(self) -> None:
        """Make a network with one name."""
        self.network = MemoryNetwork()
        self.resolver = TableResolver({"good.example": [PUBLIC]})
        self.authority = Authority(Path(self.mktemp()), self.network)
        self.asked: list[Asked] = []
        self.agent = self._agent()

    def _agent(self, verify: bool = True) -> OutboundAgent:
        tls = OutboundTls.of([self.authority.pem], verify)
        policy = IpPolicy.of(PRIVATE_RANGES, ())
        return OutboundAgent(self.network, Dialer(self.network, self.resolver, policy, tls))

    def _serve(self, answer: Callable[[Asked], Answer]) -> Factory:
        def handler(asked: Asked) -> Answer:
            self.asked.append(asked)
            return answer(asked)

        return site(self.network, handler)

    def _get(self, url: str, limits: Limits = LIMITS, seconds: float = 0) -> OutboundAnswer:
        return self.network.outcome(
            self.agent.request(request_for_url("GET", url, {"Authorization": "secret"}, limits)), seconds
        )

    def test_a_request_reaches_the_server(self) -> None:
        """Method, target, Host, headers and body arrive; status, headers and body come back."""
        self.network.listen(
            PUBLIC,
            443,
            self.authority.tls(self._serve(lambda _: Answer(201, b"hi", {"X-A": "b"})), "good.example"),
        )
        request = OutboundRequest(
            "PUT",
            Place("good.example", 443, "good.example"),
            "good.example",
            "/a%2Fb?c=d",
            {"X-In": "1"},
            LIMITS,
            b"{}",
        )
        answer = self.network.outcome(self.agent.request(request))
        self.assertEqual((answer.status, answer.body, answer.headers["x-a"]), (201, b"hi", "b"))
        asked = self.asked[0]
        self.assertEqual((asked.method, asked.uri, asked.body), ("PUT", "/a%2Fb?c=d", b"{}"))
        self.assertEqual((asked.headers["host"], asked.headers["x-in"]), ("good.example", "1"))

    def test_connections_are_used_again(self) -> None:
        """A second request to the same place opens no second connection."""
        self.network.listen(PUBLIC, 443, self.authority.tls(self._serve(lambda _: Answer()), "good.example"))
        for _ in range(3):
            self._get("https://good.example/")
        self.assertEqual(len(self.network.dialled), 1)

    def test_a_connection_closed_while_idle_costs_an_idempotent_request_nothing(self) -> None:
        """PUT is sent again over a new connection; POST is not, since it may have been read."""
        self.network.listen(PUBLIC, 80, Factory.forProtocol(_Closing))

        def ask(method: str) -> OutboundAnswer:
            place = Place("good.example", 80, None)
            request = OutboundRequest(method, place, "good.example", "/", {}, LIMITS, b"{}")
            return self.network.outcome(self.agent.request(request))

        self.assertEqual([ask("PUT").status, ask("PUT").status], [200, 200])
        self.assertEqual(len(self.network.dialled), 2)
        with self.assertRaises(CannotConnect):
            ask("POST")
        self.assertEqual(len(self.network.dialled), 2)

    def test_idle_connections_are_closed_in_time(self) -> None:
        """What nobody used for long, or what speaks unasked, is closed; the next request dials anew."""
        raw = _Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        self.network.listen(PUBLIC, 80, Factory.forProtocol(lambda: raw))
        self._get("http://good.example/")
        self.network.advance(IDLE_SECONDS - 1)
        self.network.settle()
        self.assertFalse(raw.lost)
        self.network.advance(1)
        self.network.settle()
        self.assertTrue(raw.lost)
        raw.lost = False
        self._get("http://good.example/")
        raw.transport.write(b"HTTP/1.1 200 OK\r\n")
        self.network.settle()
        self.assertTrue(raw.lost)
        self._get("http://good.example/")
        self.assertEqual(len(self.network.dialled), 3)
        self.network.outcome(self.agent.close())
        self.network.settle()
        self.assertEqual(self.network.getDelayedCalls(), [])

    def test_few_connections_are_kept_for_a_place(self) -> None:
        """Of many requests side by side, two leave their connections for later."""
        self.network.listen(PUBLIC, 80, self._serve(lambda _: Answer()))
        for _ in range(2):
            several = [
                Deferred.fromCoroutine(self.agent.request(request_for_url("GET", URL, {}, LIMITS)))
                for _ in range(5)
            ]
            for each in several:
                self.assertEqual(self.network.outcome(each).status, 200)
        self.assertEqual(len(self.network.dialled), 5 + 3)

    def test_nothing_can_be_smuggled_into_a_request(self) -> None:
        """A target or header that would end its line is not sent."""
        place = Place("good.example", 80, None)
        for target, headers in (
            ("/a b", {}),
            ("/\r\nX: y", {}),
            ("/", {"A": "b\r\nC: d"}),
            ("/", {"A b": ""}),
        ):
            request = OutboundRequest("GET", place, "good.example", target, headers, LIMITS)
            with self.assertRaises(CannotConnect):
                self.network.outcome(self.agent.request(request))
        self.assertEqual(self.network.dialled, [])

    def test_a_private_address_is_never_dialled(self) -> None:
        """Every private address that a name gives is refused before a connection (security: M5)."""
        for address in ("127.0.0.1", "::ffff:127.0.0.1", "64:ff9b::10.0.0.1", "169.254.169.254", "::"):
            self.resolver.hosts["evil.example"] = [address]
            with self.assertRaises(AddressRefused):
                self._get("https://evil.example/")
        for url in ("https://127.0.0.1/", "https://[::1]/", "http://[::ffff:127.0.0.1]:80/"):
            with self.assertRaises(AddressRefused):
                self._get(url)
        self.assertEqual(self.network.dialled, [])

    def test_public_beside_private_dials_the_public_one_alone(self) -> None:
        """Of several addresses only those permitted are dialled, and DNS is asked once (security: M5)."""
        self.resolver.hosts["both.example"] = ["127.0.0.1", PUBLIC]
        self.network.listen(PUBLIC, 443, self.authority.tls(self._serve(lambda _: Answer()), "both.example"))
        self._get("https://both.example/")
        self.assertEqual(self.network.dialled, [(PUBLIC, 443)])
        self.assertEqual(self.resolver.asked, ["both.example"])

    def test_a_second_address_is_tried(self) -> None:
        """When the first address refuses, the next one serves."""
        self.resolver.hosts["two.example"] = ["93.184.216.35", PUBLIC]
        self.network.listen(PUBLIC, 443, self.authority.tls(self._serve(lambda _: Answer()), "two.example"))
        self.assertEqual(self._get("https://two.example/").status, 200)

    def test_a_redirect_into_the_private_network_is_refused(self) -> None:
        """Each hop is judged anew (security: M5)."""
        private = ("https://127.0.0.1/", "https://inside.example/", "http://good.example/")
        for target in (*private, "https://[::1/", "//[", "https://good.example:99999/"):
            self.resolver.hosts["inside.example"] = ["10.0.0.1"]
            serve = self._serve(lambda _, target=target: Answer(302, headers={"Location": target}))
            self.network.listen(PUBLIC, 443, self.authority.tls(serve, "good.example"))
            self.agent = self._agent()
            with self.assertRaises((AddressRefused, CannotConnect)):
                self._get("https://good.example/")

    def test_redirects_are_bounded_and_lose_credentials(self) -> None:
        """A loop ends at the bound; Authorization goes to the first hop alone (security: X2)."""
        serve = self._serve(lambda _: Answer(307, headers={"Location": "/again"}))
        self.network.listen(PUBLIC, 443, self.authority.tls(serve, "good.example"))
        self.assertEqual(self._get("https://good.example/").status, 307)
        self.assertEqual(len(self.asked), 4)
        self.assertEqual(
            [("authorization" in asked.headers) for asked in self.asked], [True, False, False, False]
        )

    def test_wrong_certificates_are_refused(self) -> None:
        """Another name, no name, an expired one, another authority: no request is sent (security: P5)."""
        other = Authority(Path(self.mktemp()), self.network)
        serve = self._serve(lambda _: Answer())
        for factory in (
            self.authority.tls(serve, "other.example"),
            self.authority.tls(serve, "good.example", bare=True),
            self.authority.tls(serve, "good.example", expired=True),
            self.authority.tls(serve, PUBLIC),
            other.tls(serve, "good.example"),
        ):
            self.network.listen(PUBLIC, 443, factory)
            with self.assertRaises(CannotConnect):
                self._get("https://good.example/")
        self.assertEqual(self.asked, [])

    def test_an_address_is_proved_by_an_address_name(self) -> None:
        """A literal is matched against the IP names of the certificate, never against a DNS name."""
        serve = self._serve(lambda _: Answer())
        self.network.listen(PUBLIC, 443, self.authority.tls(serve, PUBLIC))
        self.assertEqual(self._get(f"https://{PUBLIC}/").status, 200)
        self.network.listen(PUBLIC, 443, self.authority.tls(serve, "good.example"))
        self.agent = self._agent()
        with self.assertRaises(CannotConnect):
            self._get(f"https://{PUBLIC}/")

    def test_certificate_checks_can_be_switched_off(self) -> None:
        """A test network may use any certificate."""
        self.network.listen(PUBLIC, 443, self.authority.tls(self._serve(lambda _: Answer()), "other.example"))
        self.agent = self._agent(verify=False)
        self.assertEqual(self._get("https://good.example/").status, 200)

    def test_a_large_body_is_cut(self) -> None:
        """A body over the limit is refused, announced or not; the connection is dropped (security: D5)."""
        serve = self._serve(lambda _: Answer(body=b"x" * 1001))
        self.network.listen(PUBLIC, 443, self.authority.tls(serve, "good.example"))
        with self.assertRaises(AnswerTooLarge):
            self._get("https://good.example/")
        raw = _Raw(b"HTTP/1.1 200 OK\r\n\r\n", b"y" * 100)
        factory = Factory.forProtocol(lambda: raw)
        self.network.listen(PUBLIC, 80, factory)
        with self.assertRaises(AnswerTooLarge):
            self._get("http://good.example/")
        self.network.settle()
        self.assertTrue(raw.lost)

    def test_endless_headers_are_cut(self) -> None:
        """Headers over the bound drop the connection (security: D5)."""
        raw = _Raw(b"HTTP/1.1 200 OK\r\n", b"X-Filler: " + b"y" * 90 + b"\r\n")
        self.network.listen(PUBLIC, 80, Factory.forProtocol(lambda: raw))
        with self.assertRaises(CannotConnect):
            self._get("http://good.example/")
        self.network.settle()
        self.assertTrue(raw.lost)

    def test_a_silent_or_dripping_server_runs_out_of_time(self) -> None:
        """The deadline holds for the whole answer (security: D5, M8)."""
        for first in (b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc"):
            raw = _Raw(first)
            self.network.listen(PUBLIC, 80, Factory.forProtocol(lambda raw=raw: raw))
            with self.assertRaises(TimedOut):
                self._get("http://good.example/", seconds=11)

    def test_odd_urls_are_refused(self) -> None:
        """Other schemes, credentials and missing hosts make no request (security: M5)."""
        for url in (
            "ftp://good.example/",
            "file:///etc/passwd",
            "https://u:p@good.example/",
            "https:///x",
            "x",
            "https://[::1",
        ):
            with self.assertRaises(CannotConnect):
                request_for_url("GET", url, {}, LIMITS)
        self.assertEqual(self.network.dialled, [])

    def test_nobody_there(self) -> None:
        """An unknown name and a refused connection are told as such."""
        with self.assertRaises(CannotConnect):
            self._get("https://unknown.example/")
        with self.assertRaises(CannotConnect):
            self._get("https://good.example/")
