"""Which software this is.

Source: server-server-api.md, "Server implementation".
"""

from __future__ import annotations

from typing import Any

from attrs import frozen

from homeserver.http.calls import Call
from homeserver.http.routing import Auth, RateClass, Route

NAME = "Plait"


@frozen
class Version:
    """Tells name and version."""

    version: str

    async def get(self, call: Call[None]) -> dict[str, Any]:
        """Give name and version."""
        return {"server": {"name": NAME, "version": self.version}}

    def routes(self) -> tuple[Route, ...]:
        """List what this family serves."""
        path = "/_matrix/federation/v1/version"
        return (Route("GET", path, self.get, auth=Auth.NONE, limit=RateClass.NONE),)
