"""Every endpoint that a server offers, read from its route tables without starting one."""

from __future__ import annotations

from unittest.mock import MagicMock

from client_api.wiring import client_routes, web_routes
from federation.wiring import make_inbound
from homeserver.config.sections import Config
from homeserver.http.routing import Route


def all_client_routes() -> tuple[Route, ...]:
    """Give the routes for clients and browsers; their handlers cannot be called."""
    parts = MagicMock()
    return (*client_routes(parts, Config(server_name="localhost")), *web_routes(parts))


def all_server_routes() -> tuple[Route, ...]:
    """Give the routes for other servers; their handlers cannot be called."""
    return make_inbound(MagicMock(), MagicMock(), MagicMock(), MagicMock(), MagicMock()).routes
