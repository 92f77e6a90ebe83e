"""What must hold for every endpoint of accounts, taken from the route table itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from client_api.push_rules import PushRuleRoutes
from homeserver.accounts.push_rules import UserPushRules
from homeserver.http.routing import Auth, Route, RouteTable
from tests.client_api.helpers import AccountsCase, account_routes
from tests.homeserver.http.helpers import Answer

NAMES = [
    "auth",
    "type",
    "session",
    "user",
    "username",
    "password",
    "identifier",
    "device_id",
    "devices",
    "display_name",
    "displayname",
    "actions",
    "conditions",
    "pattern",
    "enabled",
    "room",
    "timeline",
    "limit",
    "search_term",
    "erase",
    "order",
    "token",
    "new_password",
]
PARTS = [
    "@alice:plait.test",
    "@x:y",
    "!r:x",
    "PHONE",
    "override",
    "content",
    ".m.rule.master",
    "m.push_rules",
    "displayname",
    "avatar_url",
    "m.login.dummy",
    "../../x",
    "\x00",
    "a/b",
    "%00",
    "éééé",
    "m.tag",
    "1",
]
QUERIES = ("", "?", "?kind=x&limit=-1", "?session=%FF", "?before=%00", "?token=%ED%A0%80", "?username=%F0")
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
)
JSON = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=8), inner, max_size=6)
    ),
    max_leaves=15,
)
BODIES = JSON.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=200)
TEXTS = st.text(max_size=30) | st.sampled_from(PARTS)


class EveryEndpointTests(AccountsCase):
    """All routes of accounts."""

    async def setUp(self) -> None:
        """Collect the routes, and log three people in."""
        await super().setUp()
        family = PushRuleRoutes(UserPushRules(self.world.parts.keepsakes.data))
        self.routes = [*account_routes(self.world), *family.routes()]
        self.server.dispatcher._table = RouteTable(self.routes)
        self.tokens = {}
        for name in ("alice", "suspended", "locked"):
            account = await self.world.register(name)
            self.tokens[name] = (await self.world.login(account)).access_token
            if name != "alice":
                await self.world.parts.accounts.set_flag(account, name, True)

    def _targets(self) -> Iterator[tuple[Route, str]]:
        for route in self.routes:
            path = route.paths[0]
            yield (
                route,
                "/".join(quote("@x:y") if part.startswith("{") else part for part in path.split("/")),
            )

    async def test_each_asks_for_what_it_declares(self) -> None:
        """No token, a locked, suspended or plain account: each meets what is declared (security: C8, A1)."""
        for route, target in self._targets():
            body = None if route.method == "GET" else {}
            if route.auth in (Auth.NONE, Auth.OPTIONAL):
                continue
            where = f"{route.method} {target}"
            nobody = await self.ask(route.method, target, body)
            self.assertEqual((nobody.status, nobody.errcode), (401, "M_MISSING_TOKEN"), where)
            if not route.while_locked:
                locked = await self.ask(route.method, target, body, token=self.tokens["locked"])
                self.assertEqual((locked.status, locked.errcode), (401, "M_USER_LOCKED"), where)
            if route.auth is Auth.ADMIN:
                plain = await self.ask(route.method, target, body, token=self.tokens["alice"])
                self.assertEqual((plain.status, plain.errcode), (403, "M_FORBIDDEN"), where)
            elif not route.open_to_suspended:
                quiet = await self.ask(route.method, target, body, token=self.tokens["suspended"])
                self.assertEqual((quiet.status, quiet.errcode), (403, "M_USER_SUSPENDED"), where)

    def _cases(self) -> list[tuple[str, str, bytes]]:
        """Make requests of all kinds for every route; those that end the session are left out."""
        routes = [route for route in self.routes if not route.paths[0].endswith(("/logout", "/logout/all"))]
        cases: list[tuple[str, str, bytes]] = []

        @settings(max_examples=15, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(data=st.data())
        def draw(data: st.DataObject) -> None:
            for route in routes:
                parts = route.paths[0].split("/")
                path = "/".join(quote(data.draw(TEXTS), safe="") if "{" in part else part for part in parts)
                cases.append((route.method, path + data.draw(st.sampled_from(QUERIES)), data.draw(BODIES)))

        draw()
        return cases

    async def test_nothing_makes_a_500(self) -> None:
        """Whatever comes in path, query and body: a success or an error of Matrix (security: D1)."""
        await self._try_all(self._cases())

    async def _try_all(self, asked: list[tuple[str, str, bytes]]) -> None:
        for method, target, body in asked:
            answer: Answer = await self.ask(
                method, target, None if method == "GET" else body, token=self.tokens["alice"]
            )
            self.assertLess(answer.status, 500, (method, target, body))
            if answer.status >= 400:
                content: Any = answer.json
                self.assertTrue("errcode" in content or "flows" in content, (method, target, body))
