"""Who a request from another server really is from: the X-Matrix signature over method, URI and body.

In two steps: what the headers claim is judged before the body is read, the signature after it. What is
signed is the raw request target, and the canonical form of the JSON body.

Source: server-server-api.md, "Request Authentication"; security F17, K1, K6.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from attrs import frozen

from federation.backoff import Backoff
from federation.key_ring import KeyNeed, KeyRing
from federation.requests import ServerRequest, bytes_to_sign
from homeserver.clock import Clock
from protocol.canonical_json import JsonValue, decode, encode_checked
from protocol.errors import Forbidden, Unauthorized
from protocol.identifiers import KeyID, ServerName
from protocol.signing import InvalidSignature, decode_base64
from protocol.xmatrix import XMatrix, parse_xmatrix

MAX_HEADERS = 5
"""X-Matrix headers looked at; a request with more is refused."""
ALGORITHM = "ed25519:"


@frozen
class Claim:
    """What the headers of a request say: its origin, and signatures by key. Not proved yet."""

    origin: ServerName
    signatures: tuple[tuple[KeyID, str], ...]


@frozen
class Proved:
    """A request whose signature holds: where it is from, and the JSON of its body (None: no body)."""

    origin: ServerName
    content: JsonValue | None


@frozen
class ServerAuthentication:
    """Authenticates requests of other servers."""

    own_name: ServerName
    ring: KeyRing
    backoff: Backoff
    clock: Clock
    allow_list: Collection[ServerName] | None = None
    """The only servers to talk with; None: all."""

    def claim(self, headers: Sequence[bytes]) -> Claim:
        """Read the Authorization headers; raises Unauthorized, or Forbidden for a server not talked with."""
        if not headers:
            raise Unauthorized("the request bears no X-Matrix authorization")
        if len(headers) > MAX_HEADERS:
            raise Unauthorized("the request bears too many Authorization headers")
        parsed = [parse_xmatrix(header) for header in headers]
        origins = {one.origin for one in parsed}
        if len(origins) != 1:
            raise Unauthorized("the Authorization headers name several origins")
        if any(one.destination not in (None, self.own_name) for one in parsed):
            raise Unauthorized("the request is for another destination")
        return self._permitted(origins.pop(), parsed)

    async def prove(self, claim: Claim, method: str, uri: str, body: bytes) -> Proved:
        """Check the signatures over a request, whose `body` may be empty; raises Unauthorized, BadJson."""
        content = decode(body, max_depth=512) if body else None
        canonical = encode_checked(content) if body else None
        signed = ServerRequest(self.own_name, method, uri, canonical)
        without = None
        needs = [
            KeyNeed(claim.origin, key_id, self.clock.now_ms(), current=True) for key_id, _ in claim.signatures
        ]
        keys = await self.ring.find(needs)
        for need, (key_id, signature) in zip(needs, claim.signatures, strict=True):
            if need not in keys:
                raise Unauthorized(f"the key {key_id} of {claim.origin} is unknown or no longer valid")
            try:
                keys[need].verify(decode_base64(signature), bytes_to_sign(signed, claim.origin))
            except (InvalidSignature, ValueError):
                without = key_id
        if without is not None:
            raise Unauthorized(f"the signature of {claim.origin} by {without} is wrong")
        await self.backoff.succeeded(claim.origin)
        return Proved(claim.origin, content)

    def _permitted(self, origin: ServerName, parsed: Sequence[XMatrix]) -> Claim:
        """See that the origin is one to talk with, and keep the signatures that can be checked."""
        if origin == self.own_name:
            raise Unauthorized("a request from this server to itself")
        if self.allow_list is not None and origin not in self.allow_list:
            raise Forbidden(f"this server does not federate with {origin}")
        signatures = tuple((one.key_id, one.signature) for one in parsed if one.key_id.startswith(ALGORITHM))
        if not signatures:
            raise Unauthorized("the request bears no ed25519 signature")
        return Claim(origin, signatures)
