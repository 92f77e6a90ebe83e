"""The account families over a real site in memory and a real database."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from twisted.internet.task import Clock as TaskClock

from client_api.account import Account
from client_api.account_data import AccountDataRoutes
from client_api.auth_fallback import AuthFallback
from client_api.confirming import Confirming
from client_api.devices import DeviceRoutes
from client_api.filters import FilterRoutes
from client_api.login import LoginRoutes
from client_api.moderation import Moderation
from client_api.profile import ProfileRoutes
from client_api.register import Register
from client_api.user_directory import UserDirectoryRoutes
from client_api.versions import Versions
from homeserver.http.routing import Route
from tests.homeserver.accounts.helpers import PASSWORD, SERVER, World, make_world
from tests.homeserver.http.helpers import START, Answer, MemoryServer, request_bytes
from tests.storage.helpers import SqliteCase

V3 = "/_matrix/client/v3"
V1 = "/_matrix/client/v1"
Json = Any


def account_routes(world: World) -> list[Route]:
    """List the endpoints of accounts."""
    parts, url = world.parts, world.config.public_baseurl
    kept = parts.keepsakes
    confirming = Confirming(parts.accounts, parts.login, parts.proof, world.limiter)
    families = (
        Versions(parts.passwords, "12", url),
        Register(parts.registration, parts.sessions, parts.proof),
        AuthFallback(parts.proof, parts.registration),
        LoginRoutes(parts.login, parts.sessions, kept.devices, url),
        Account(parts.accounts, kept.devices, confirming),
        DeviceRoutes(kept.devices, confirming),
        ProfileRoutes(parts.profiles),
        AccountDataRoutes(kept.data, kept.tags),
        FilterRoutes(parts.filters),
        UserDirectoryRoutes(parts.directory),
        Moderation(SERVER, parts.accounts),
    )
    return [route for family in families for route in family.routes()]


class AccountsCase(SqliteCase):
    """A server with accounts in `self.world`, asked with `self.ask`."""

    options: Mapping[str, Any] = {}

    async def setUp(self) -> None:
        """Start it."""
        await super().setUp()
        self.world = await make_world(self.database, **self.options)
        self.addCleanup(self.world.stop)
        self.clock = TaskClock()
        self.clock.advance(START)
        self.server = MemoryServer(
            account_routes(self.world),
            tokens=self.world.parts.sessions,
            max_body=100_000,
            task_clock=self.clock,
            limiter=self.world.limiter,
        )

    async def ask(
        self, method: str, target: str, content: Json = None, *, token: str | None = None
    ) -> Answer:
        """Make a request and wait for its answer."""
        connection = self.server.connect()
        body = content if content is None or isinstance(content, bytes) else json.dumps(content).encode()
        connection.send(request_bytes(method, target, body, token=token))
        for request in connection.channel.requests:
            await request._running
        (answer,) = connection.answers()
        return answer

    async def register(self, name: str, **more: Json) -> Json:
        """Make an account over HTTP, and give the answer's JSON."""
        body = {"username": name, "password": PASSWORD, "auth": {"type": "m.login.dummy"}} | more
        answer = await self.ask("POST", V3 + "/register", body)
        self.assertEqual(answer.status, 200, answer.body)
        return answer.json

    async def log_in(self, user: str, **more: Json) -> Answer:
        """Log in by password."""
        body = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": user},
            "password": PASSWORD,
        }
        return await self.ask("POST", V3 + "/login", body | more)
