"""Asking identity servers whether a key of theirs still holds.

Source: identity-service-api.md, "Key management"; security S15, M5.
"""

from __future__ import annotations

from urllib.parse import quote

from attrs import frozen
from twisted.logger import Logger

from homeserver.http.agent import Limits, OutboundAgent, request_for_url
from homeserver.http.outbound_errors import OutboundError
from protocol.canonical_json import decode_lax
from protocol.errors import MatrixError
from protocol.third_party_invites import IdentityKey

LIMITS = Limits(max_bytes=65_536, seconds=10)

log = Logger()


@frozen
class IdentityKeys:
    """Asks identity servers."""

    agent: OutboundAgent

    async def is_valid(self, key: IdentityKey) -> bool:
        """Tell whether a key still holds: True if its server says so, or if the room names no way to ask."""
        if key.validity_url is None:
            return True
        mark = "&" if "?" in key.validity_url else "?"
        url = f"{key.validity_url}{mark}public_key={quote(key.public_key, safe='')}"
        try:
            answer = await self.agent.request(request_for_url("GET", url, {}, LIMITS))
            told = decode_lax(answer.body) if answer.status == 200 else None
        except (OutboundError, MatrixError) as error:
            log.info("an identity server cannot be asked: {error!r}", error=error)
            return False
        return isinstance(told, dict) and told.get("valid") is True
