"""The welcome page: what a browser shows at the server's root. No script, nothing of the request in it."""

from __future__ import annotations

from html import escape
from typing import Any

from attrs import frozen

from homeserver.http.calls import Call, Reply, Response
from homeserver.http.routing import Auth, RateClass, Route
from protocol.identifiers import ServerName

_PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>{name}</title></head>
<body>
<h1>{name}</h1>
<p>A Matrix homeserver runs here. Give this address as the homeserver to
<a href="https://matrix.org/ecosystem/clients/">any Matrix client</a>.</p>
<p>The administrator makes accounts with <code>plait register-user</code>.</p>
</body>
</html>
"""
_HEADERS = (
    (
        "Content-Security-Policy",
        "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    ),
)


@frozen(eq=False)
class Pages:
    """Pages for people."""

    server_name: ServerName

    async def welcome(self, call: Call[Any]) -> Reply:
        """GET /."""
        page = _PAGE.format(name=escape(self.server_name)).encode()
        return Response(200, page, _HEADERS, content_type="text/html; charset=utf-8")

    def routes(self) -> tuple[Route, ...]:
        """List what this family serves."""
        return (
            Route(
                "GET",
                "/",
                self.welcome,
                auth=Auth.NONE,
                limit=RateClass.READS,
                over_websocket=False,
                cors=False,
            ),
        )
