"""Tests of access tokens as texts."""

from __future__ import annotations

import base64
import json

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twisted.trial.unittest import SynchronousTestCase

from homeserver.accounts.token_key import TYPE, SessionClaims, TokenKey
from protocol.errors import UnknownToken
from protocol.identifiers import ServerName
from tests.homeserver.accounts.helpers import NOW, SEED, SERVER


def part(value: object) -> str:
    """Write a part of a token."""
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


class TokenKeyTests(SynchronousTestCase):
    """Making and reading tokens."""

    def setUp(self) -> None:
        """Take a fixed key."""
        self.key = TokenKey(SEED, SERVER)

    def test_a_token_says_what_was_put_in(self) -> None:
        """Session, generation and expiry come back."""
        for claims in (SessionClaims(7, 1, None), SessionClaims(2**60, 9, NOW + 1000)):
            self.assertEqual(self.key.read(self.key.mint(claims), NOW), claims)

    def test_an_expired_token_is_refused_softly(self) -> None:
        """The client is told to come again with the same device."""
        token = self.key.mint(SessionClaims(7, 1, NOW))
        error = self.assertRaises(UnknownToken, self.key.read, token, NOW)
        self.assertEqual(error.extra["soft_logout"], True)

    def test_a_ticket_ends_with_its_token(self) -> None:
        """Claims and nonce come back, until the token that the ticket stands for has expired."""
        claims = SessionClaims(7, 1, NOW + 1000)
        ticket = self.key.mint_ticket(claims, "n")
        self.assertEqual(self.key.read_ticket(ticket, NOW), (claims, "n"))
        self.assertRaises(UnknownToken, self.key.read_ticket, ticket, NOW + 1000)
        self.assertRaises(UnknownToken, self.key.read_ticket, self.key.mint(claims), NOW)

    def test_two_servers_differ(self) -> None:
        """Neither another key's nor another server's tokens are good here (security: L1)."""
        for other in (TokenKey(b"\x08" * 32, SERVER), TokenKey(SEED, ServerName("other.test"))):
            token = other.mint(SessionClaims(7, 1, None))
            self.assertRaises(UnknownToken, self.key.read, token, NOW)

    def test_the_token_does_not_choose_how_it_is_checked(self) -> None:
        """No algorithm, another one, our public key as a secret, `crit`: refused (security: L3)."""
        private = Ed25519PrivateKey.from_private_bytes(SEED)
        public = private.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        claims = {"iss": SERVER, "aud": "plait-session", "sid": 7, "gen": 1}
        good = jwt.encode(claims, private, "EdDSA", headers={"typ": TYPE})
        self.assertEqual(self.key.read(good, NOW).session_nid, 7)
        head, body, signature = good.split(".")
        forged = [
            f"{part({'alg': 'none', 'typ': TYPE})}.{body}.",
            f"{part({'alg': 'None', 'typ': TYPE})}.{body}.{signature}",
            jwt.encode(claims, public.hex(), "HS256", headers={"typ": TYPE}),
            jwt.encode(claims, public + b"\0" * 32, "HS256", headers={"typ": TYPE}),
            jwt.encode(claims, private, "EdDSA"),
            jwt.encode(claims, private, "EdDSA", headers={"typ": TYPE, "crit": ["x"], "x": 1}),
            jwt.encode(claims | {"aud": "other"}, private, "EdDSA", headers={"typ": TYPE}),
            jwt.encode(claims | {"iss": f"{SERVER}.evil"}, private, "EdDSA", headers={"typ": TYPE}),
            jwt.encode(claims | {"sid": "7"}, private, "EdDSA", headers={"typ": TYPE}),
            jwt.encode(claims | {"gen": None}, private, "EdDSA", headers={"typ": TYPE}),
            jwt.encode(claims | {"exp": "1"}, private, "EdDSA", headers={"typ": TYPE}),
            f"{head}.{body}.{signature[::-1]}",
            f"{head}.{body}",
            "",
            "é",
            "a" * 5000,
            f"{part({'alg': 'EdDSA', 'typ': TYPE})}.{part([[[]]] * 100)}.{signature}",
        ]
        for token in forged:
            self.assertRaises(UnknownToken, self.key.read, token, NOW)

    def test_the_key_is_not_shown(self) -> None:
        """Its repr tells nothing (security: A2)."""
        self.assertEqual(repr(self.key), "TokenKey(***)")

    def test_bindings_differ_by_every_part(self) -> None:
        """Moving a letter from one part to the next changes the binding."""
        self.assertNotEqual(self.key.bind(b"ab", b"c"), self.key.bind(b"a", b"bc"))
        self.assertEqual(self.key.bind(b"ab", b"c"), self.key.bind(b"ab", b"c"))
