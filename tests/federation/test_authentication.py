"""Tests of X-Matrix authentication of incoming requests."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from federation.authentication import Proved, ServerAuthentication
from federation.requests import ServerRequest, bytes_to_sign
from protocol.canonical_json import encode
from protocol.errors import BadJson, Forbidden, MatrixError, NotJson, Unauthorized
from protocol.identifiers import ServerName
from protocol.signing import SigningKey
from protocol.xmatrix import build_xmatrix
from tests.federation.helpers import HERE, THERE, World, signing_key

URI = "/_matrix/federation/v1/send/%21a%2Fb?x=%20y"
BODY = {"pdus": [], "edus": [], "n": 5}


class AuthenticationTests(SynchronousTestCase):
    """What is believed."""

    def setUp(self) -> None:
        """Make a world with one other server."""
        self.world = World(Path(self.mktemp()))
        self.there = self.world.server()
        self.authentication = ServerAuthentication(
            HERE, self.world.ring, self.world.backoff, self.world.clock
        )

    def _header(
        self,
        body: bytes = b"",
        *,
        method: str = "PUT",
        uri: str = URI,
        origin: ServerName = THERE,
        destination: ServerName = HERE,
        signed_for: ServerName | None = None,
        key: SigningKey | None = None,
    ) -> bytes:
        key = key or self.there.key
        request = ServerRequest(signed_for or destination, method, uri, body or None)
        signature = key.sign_base64(bytes_to_sign(request, origin))
        return build_xmatrix(origin=origin, destination=destination, key_id=key.key_id, signature=signature)

    def _prove(self, *headers: bytes, body: bytes = b"", method: str = "PUT", uri: str = URI) -> Proved:
        claim = self.authentication.claim(headers)
        return self.world.network.outcome(self.authentication.prove(claim, method, uri, body), 60)

    def test_a_signed_request_passes(self) -> None:
        """With a body and without."""
        body = encode(BODY)
        self.assertEqual(self._prove(self._header(body), body=body), Proved(THERE, BODY))
        self.assertEqual(self._prove(self._header()), Proved(THERE, None))

    def test_the_canonical_form_of_the_body_is_what_is_signed(self) -> None:
        """A body spelt otherwise has the same signature."""
        spelt = b'{ "n" : 5, "pdus": [], "edus": [] }'
        self.assertEqual(self._prove(self._header(encode(BODY)), body=spelt).content, BODY)

    def test_each_altered_part_is_refused(self) -> None:
        """Method, raw URI, body, origin, destination, key, absence (security: F17)."""
        body = encode(BODY)
        good = self._header(body)
        for headers, sent, method, uri in (
            ([good], body, "POST", URI),
            ([good], body, "PUT", URI.replace("%21", "!")),
            ([good], body, "PUT", URI + "&z=1"),
            ([good], encode({**BODY, "n": 6}), "PUT", URI),
            ([good], b"", "PUT", URI),
            ([self._header()], b"{}", "PUT", URI),
            ([self._header(body, origin=ServerName("other.example"))], body, "PUT", URI),
            ([self._header(body, destination=ServerName("other.example"))], body, "PUT", URI),
            ([self._header(body, signed_for=ServerName("other.example"))], body, "PUT", URI),
            ([self._header(body, key=signing_key(9))], body, "PUT", URI),
            ([self._header(body, key=signing_key(2, "ed25519:unknown"))], body, "PUT", URI),
            ([], body, "PUT", URI),
            ([b"Bearer abc"], body, "PUT", URI),
            ([b"X-Matrix origin=there.example"], body, "PUT", URI),
            ([good] * 6, body, "PUT", URI),
        ):
            with self.assertRaises(Unauthorized):
                self._prove(*headers, body=sent, method=method, uri=uri)

    def test_every_signature_presented_must_hold(self) -> None:
        """A bad signature beside a good one is refused, and so are two origins (security: F17)."""
        good = self._header()
        self.assertEqual(self._prove(good, good).origin, THERE)
        for other in (
            self._header(key=signing_key(9)),
            self._header(origin=ServerName("other.example")),
            self._header(destination=ServerName("other.example")),
        ):
            for headers in ((good, other), (other, good)):
                with self.assertRaises(Unauthorized):
                    self._prove(*headers)

    def test_a_missing_destination_is_accepted(self) -> None:
        """As servers before version 1.3 send it; the signature still names us."""
        header = self._header().replace(b',destination="here.example"', b"")
        self.assertEqual(self._prove(header).origin, THERE)

    def test_an_ended_key_is_refused(self) -> None:
        """A key past its validity that cannot be refreshed signs no requests (security: K1)."""
        self._prove(self._header())
        self.there.answers.clear()
        self.world.network.advance(2 * 3600)
        with self.assertRaises(Unauthorized):
            self._prove(self._header())

    def test_bodies_that_are_not_strict_json_are_refused(self) -> None:
        """Floats, huge numbers, bad UTF-8, deep nesting (security: D1, K2)."""
        header = self._header(b"{}")
        for body in (
            b'{"a":1.5}',
            b'{"a":9007199254740992}',
            b'{"a":"\xff"}',
            b"[" * 100_000,
            b"{",
            b'"\\ud800"',
        ):
            with self.assertRaises((BadJson, NotJson)):
                self._prove(header, body=body)

    def test_our_own_name_and_denied_servers_are_refused(self) -> None:
        """Nobody is us; with an allow-list, others are not talked with."""
        with self.assertRaises(Unauthorized):
            self._prove(self._header(origin=HERE, key=signing_key(1)))
        closed = ServerAuthentication(
            HERE, self.world.ring, self.world.backoff, self.world.clock, frozenset({"friend.example"})
        )
        with self.assertRaises(Forbidden):
            closed.claim([self._header()])

    def test_an_incoming_request_ends_the_back_off(self) -> None:
        """A server that speaks is alive; a forged request proves nothing."""
        outcome = self.world.network.outcome
        self._prove(self._header())
        outcome(self.world.backoff.failed(THERE, self.world.now))
        with self.assertRaises(MatrixError):
            self._prove(self._header(key=signing_key(9)))
        self.assertGreater(outcome(self.world.backoff.retry_at(THERE)), 0)
        self._prove(self._header())
        self.assertEqual(outcome(self.world.backoff.retry_at(THERE)), 0)
