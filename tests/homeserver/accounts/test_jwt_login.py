"""Tests of outside issuers' tokens."""

from __future__ import annotations

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from twisted.trial.unittest import SynchronousTestCase

from homeserver.accounts.jwt_login import OutsideTokens
from homeserver.accounts.token_key import TYPE, SessionClaims, TokenKey
from homeserver.config.sections import JwtAlgorithm, JwtLogin
from homeserver.secret import Secret
from protocol.errors import Forbidden
from tests.homeserver.accounts.helpers import NOW, SEED, SERVER

KEY = "a secret of thirty-two characters or more"
CLAIMS = {"sub": "alice", "iss": "https://issuer.test", "aud": "plait", "exp": NOW // 1000 + 60}


def tokens(
    algorithm: JwtAlgorithm = JwtAlgorithm.HS256, key: str = KEY, subject_claim: str = "sub"
) -> OutsideTokens:
    """Trust one issuer."""
    return OutsideTokens(
        JwtLogin(
            enabled=True,
            algorithm=algorithm,
            key=Secret(key),
            issuer="https://issuer.test",
            audiences=("plait", "other"),
            subject_claim=subject_claim,
        )
    )


class OutsideTokensTests(SynchronousTestCase):
    """Checking tokens."""

    def test_a_good_token_names_its_subject(self) -> None:
        """By the configured claim."""
        self.assertEqual(tokens().subject(jwt.encode(CLAIMS, KEY), NOW), "alice")
        named = jwt.encode(CLAIMS | {"name": "bob"}, KEY)
        self.assertEqual(tokens(subject_claim="name").subject(named, NOW), "bob")

    def test_wrong_tokens_are_refused(self) -> None:
        """Wrong key, issuer, audience, time, type; missing claims; odd types; too long (security: L3)."""

        def without(name: str) -> dict[str, object]:
            return {key: value for key, value in CLAIMS.items() if key != name}

        bad = [
            jwt.encode(CLAIMS, KEY + "x"),
            jwt.encode(CLAIMS, KEY, "HS512"),
            jwt.encode(CLAIMS, None, "none"),
            *(jwt.encode(without(name), KEY) for name in CLAIMS),
            jwt.encode(CLAIMS | {"iss": "https://issuer"}, KEY),
            jwt.encode(CLAIMS | {"iss": "https://issuer.test.evil"}, KEY),
            jwt.encode(CLAIMS | {"aud": "pla"}, KEY),
            jwt.encode(CLAIMS | {"sub": ""}, KEY),
            jwt.encode(CLAIMS | {"exp": NOW // 1000 - 60}, KEY),
            jwt.encode(CLAIMS | {"nbf": NOW // 1000 + 60}, KEY),
            jwt.encode(CLAIMS, KEY, headers={"crit": ["b64"], "b64": True}),
            jwt.encode(CLAIMS, KEY, headers={"typ": TYPE}),
            jwt.encode(CLAIMS | {"x": "y" * 9000}, KEY),
            TokenKey(SEED, SERVER).mint(SessionClaims(1, 1, None)),
            "",
            "a.b.c",
        ]
        for token in bad:
            self.assertRaises(Forbidden, tokens().subject, token, NOW)

    def test_a_public_key_is_no_secret(self) -> None:
        """HS256 with a public key is a mistake of the configuration, or of a token (security: L3)."""
        private = ec.generate_private_key(ec.SECP256R1())
        pem = (
            private.public_key()
            .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
            .decode()
        )
        self.assertRaises(ValueError, tokens, JwtAlgorithm.HS256, pem)
        elliptic = tokens(JwtAlgorithm.ES256, pem)
        self.assertEqual(elliptic.subject(jwt.encode(CLAIMS, private, "ES256"), NOW), "alice")
        self.assertRaises(Forbidden, elliptic.subject, jwt.encode(CLAIMS, KEY), NOW)

    def test_a_configuration_without_key_issuer_or_audience_is_refused(self) -> None:
        """None of them has a default."""
        self.assertRaises(ValueError, OutsideTokens, JwtLogin(enabled=True))
        self.assertRaises(ValueError, tokens, JwtAlgorithm.HS256, "short")
        self.assertRaises(Forbidden, OutsideTokens(JwtLogin()).subject, "x", NOW)
