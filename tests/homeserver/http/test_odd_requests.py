"""Tests of what is no HTTP, or hardly: every refusal is JSON with an errcode and a sentence."""

from __future__ import annotations

from tests.homeserver.http.helpers import request_bytes
from tests.homeserver.http.site_helpers import SiteCase


class OddRequestTests(SiteCase):
    """What is not even HTTP, and tokens in broken queries."""

    def test_what_is_no_http_is_refused_in_json(self) -> None:
        """A target beyond ASCII and a head that makes no sense get an errcode and a sentence."""
        for raw in (
            b"GET /open/1?\xff HTTP/1.1\r\n\r\n",
            b"GET\r\n\r\n",
            b"GET /open/1 HTTP/1.1\r\n: x\r\n\r\n",
        ):
            connection = self.server.connect()
            connection.send(raw)
            (answer,) = connection.answers()
            self.assertEqual((answer.status, answer.errcode), (400, "M_UNRECOGNIZED"), raw)
            self.assertTrue(answer.json["error"])
            self.assertTrue(connection.closed)

    def test_a_token_in_a_broken_query_is_none(self) -> None:
        """Such a query ends in an answer, not in a broken connection (security: L15)."""
        for query in ("access_token=%FF", "access_token=a&x=%ED%A0%80", "access_token=&" * 300):
            connection = self.server.connect()
            connection.send(request_bytes("GET", "/mine?" + query))
            (answer,) = connection.answers()
            self.assertEqual((answer.status, answer.errcode), (401, "M_MISSING_TOKEN"), query)
