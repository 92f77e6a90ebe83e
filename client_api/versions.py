"""What this server speaks and can do: versions, capabilities, and where it is found.

Source: client-server-api/_index.md, "API Versions", "Well-known URIs", "Capabilities negotiation".
"""

from __future__ import annotations

from typing import Any

from attrs import frozen

from client_api.paths import v3
from homeserver.accounts.passwords import Passwords
from homeserver.http.calls import Call, Reply
from homeserver.http.routing import Auth, RateClass, Route
from protocol.errors import NotFound
from protocol.room_versions import ROOM_VERSIONS

VERSIONS = ("r0.5.0", "r0.6.0", "r0.6.1", *(f"v1.{minor}" for minor in range(1, 13)))
UNSTABLE = {
    "org.plait.websocket": True,
    "uk.tcpip.msc4133": True,
    "uk.tcpip.msc4133.stable": True,
}


@frozen(eq=False)
class Versions:
    """Tells what this server is."""

    passwords: Passwords
    default_room_version: str
    public_baseurl: str | None

    async def versions(self, call: Call[None]) -> Reply:
        """GET /versions."""
        return {"versions": list(VERSIONS), "unstable_features": UNSTABLE}

    async def well_known(self, call: Call[None]) -> Reply:
        """GET /.well-known/matrix/client."""
        if self.public_baseurl is None:
            raise NotFound("This server does not say where it is found")
        return {"m.homeserver": {"base_url": self.public_baseurl}}

    async def capabilities(self, call: Call[None]) -> Reply:
        """GET /capabilities."""
        capabilities = {
            "m.change_password": {"enabled": self.passwords.enabled},
            "m.room_versions": {
                "default": self.default_room_version,
                "available": dict.fromkeys(ROOM_VERSIONS, "stable"),
            },
            "m.profile_fields": {"enabled": True},
            "m.set_displayname": {"enabled": True},
            "m.set_avatar_url": {"enabled": True},
            "m.3pid_changes": {"enabled": False},
            "m.get_login_token": {"enabled": False},
            "m.forget_forced_upon_leave": {"enabled": False},
        }
        if call.requester.is_admin:
            capabilities["m.account_moderation"] = {"suspend": True, "lock": True}
        return {"capabilities": capabilities}

    def routes(self) -> tuple[Route, ...]:
        """List what this family serves."""
        free: dict[str, Any] = {"auth": Auth.NONE, "limit": RateClass.NONE}
        return (
            Route("GET", "/_matrix/client/versions", self.versions, **free),
            Route("GET", "/.well-known/matrix/client", self.well_known, **free),
            Route("GET", v3("/capabilities"), self.capabilities),
        )
