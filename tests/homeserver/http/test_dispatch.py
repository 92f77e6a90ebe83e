"""Tests of who is let in: tokens, accounts, rates, proxies, and frames beside requests."""

from __future__ import annotations

import json

from attrs import evolve
from twisted.internet.defer import Deferred

from homeserver.config.sections import Rate, RateLimits
from homeserver.http.calls import Response
from homeserver.http.dispatch import Asked
from tests.homeserver.http.helpers import ALICE, KnownTokens, MemoryServer, request_bytes
from tests.homeserver.http.site_helpers import SiteCase


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
