"""Tickets: good once, for half a minute, to open a WebSocket where an access token may not be shown.

A ticket stands in a URL, and so in logs; whoever finds it there comes too late. It is signed, so that
nothing of a session is kept for it but a nonce, and any worker can take it.

Source: protocol/spec.md, "Opening"; security W9.
"""

from __future__ import annotations

import secrets

from attrs import frozen

from homeserver.accounts.token_key import TokenKey
from protocol.errors import UnknownToken
from storage import registration_tokens
from storage.database import Database

LIFE_MS = 30_000
_PREFIX = "ticket:"
"""Keeps the nonces of tickets apart from those of registrations."""


@frozen(eq=False)
class Tickets:
    """Gives tickets out and takes them."""

    database: Database
    key: TokenKey

    async def make(self, token: str, now: int) -> str:
        """Give a ticket that stands for an access token; raises UnknownToken."""
        claims = self.key.read(token, now)
        nonce = _PREFIX + secrets.token_urlsafe(16)
        await self.database.write(registration_tokens.put_nonce, nonce, now + LIFE_MS)
        return self.key.mint_ticket(claims, nonce)

    async def take(self, ticket: str, now: int) -> str:
        """Use a ticket up and give an access token like the one it stands for; raises UnknownToken.

        Whether the session stands is not looked at: that is asked of the token.
        """
        claims, nonce = self.key.read_ticket(ticket, now)
        if not await self.database.write(registration_tokens.use_nonce, nonce, now):
            raise UnknownToken("This ticket was used, or is too old", soft_logout=True)
        return self.key.mint(claims)
