"""Nonsense at every endpoint of a running server: it is refused in words, and nothing is changed by it.

Bodies of wrong types, deep, huge and broken; paths that name nothing or break their encoding; tokens and
signatures that are none. Hypothesis draws the rest, the same each time.
"""

from __future__ import annotations

import http.client
import json
import re
import sqlite3
import ssl
from collections.abc import Iterator
from typing import Any

from attrs import define, frozen
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from homeserver.http.routing import Route
from tests.interop.network import NETWORKS, Kind, Node
from tests.scenarios.endpoints import all_client_routes, all_server_routes

DEEP = b"[" * 5_000 + b"]" * 5_000
BODIES = (
    b"",
    b"{",
    b"null",
    b"[]",
    b'"text"',
    b"\xff\xfe{}",
    b'{"\xed\xa0\x80":1}',
    b'{"a":1e999,"b":-0,"c":123456789012345678901234567890}',
    DEEP,
    b'{"a":' + DEEP + b"}",
    b'{"pad":"' + b"x" * 2_000_000 + b'"}',
)
PATHS = ("%00", "%ff", "..%2f..%2f", "%F0%9F%92%A9", "x" * 300, "!a:b", "@a:b", "$a", "%20", "a%0d%0ab")
DRAWN = 60
"""Requests drawn for each kind of listener beside the fixed ones."""
TABLES = ("feed", "events", "rooms", "accounts", "devices", "account_data", "profiles", "staged_pdus")
_PARAMETER = re.compile(r"\{([^}]+)\}")

scalars = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=20)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
)


@frozen
class Answer:
    """A status with its JSON, if it is any."""

    status: int
    body: Any


@define
class Knocker:
    """Sends requests as they are, over one connection after another."""

    port: int
    tls: bool

    def ask(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> Answer:
        """Send a request and read its answer; a connection closed by the server is an answer too."""
        context = ssl._create_unverified_context() if self.tls else None
        connection = (
            http.client.HTTPSConnection("127.0.0.1", self.port, timeout=20, context=context)
            if context is not None
            else http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        )
        try:
            connection.putrequest(method, path, skip_accept_encoding=True)
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.putheader("Content-Length", str(len(body)))
            connection.endheaders()
            _send_all(connection, body)
            response = connection.getresponse()
            raw = response.read()
        finally:
            connection.close()
        try:
            return Answer(response.status, json.loads(raw) if raw else None)
        except ValueError:
            return Answer(response.status, None)


def _send_all(connection: http.client.HTTPConnection, body: bytes) -> None:
    """Send a body; a server that has refused it already need not read it."""
    try:
        connection.send(body)
    except (BrokenPipeError, ConnectionResetError):
        return


def filled(route: Route, fill: str) -> str:
    """Give a path of the route with every parameter filled alike."""
    return _PARAMETER.sub(lambda _: fill, route.paths[0])


def marks(node: Node) -> dict[str, int]:
    """Count the rows of what a refused request must leave alone."""
    connection = sqlite3.connect(f"file:{node.server.place.directory / 'homeserver.db'}?mode=ro", uri=True)
    try:
        return {name: connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in TABLES}
    finally:
        connection.close()


class NonsenseTests(TestCase):
    """What strangers and broken clients send."""

    timeout = 240

    async def test_every_client_endpoint_refuses_nonsense(self) -> None:
        """No body, path or token of nonsense gives a 5xx at a client endpoint, or changes anything
        (security: D1, D9)."""
        node = (await NETWORKS.get((Kind.PLAIT, Kind.PLAIT), postgres=False)).nodes[0]
        user = await node.user("fuzz")
        room_id = await user.create_room()
        knocker = Knocker(node.server.place.client_port, tls=False)
        routes = [route for route in all_client_routes() if not _is_destructive(route)]
        for token in (user.token, "nonsense", None):
            for route, path, body in _cases(routes, room_id if token == user.token else "x"):
                self._knock(node, knocker, route, path, body, _bearer(token))
        self._draw(node, knocker, routes, _bearer(user.token))

    async def test_every_server_endpoint_refuses_strangers(self) -> None:
        """No request without a good signature gives a 5xx at a server endpoint, or changes anything
        (security: F17)."""
        node = (await NETWORKS.get((Kind.PLAIT, Kind.PLAIT), postgres=False)).nodes[0]
        knocker = Knocker(node.server.place.federation_port, tls=True)
        routes = list(all_server_routes())
        claims = (
            {},
            {"Authorization": "X-Matrix"},
            {"Authorization": 'X-Matrix origin="localhost:1",key="ed25519:a",sig="AAAA"'},
            {"Authorization": f"X-Matrix origin={node.name},key=x,sig=!"},
        )
        for headers in claims:
            for route, path, body in _cases(routes, "!a:localhost"):
                self._knock(node, knocker, route, path, body, headers)
        self._draw(node, knocker, routes, claims[2])

    def _knock(
        self, node: Node, knocker: Knocker, route: Route, path: str, body: bytes, headers: dict[str, str]
    ) -> None:
        before = marks(node)
        answer = knocker.ask(route.method, path, body, headers)
        asked = f"{route.method} {path[:120]} {body[:60]!r}"
        told = f"{asked} gave {answer.status} {str(answer.body)[:200]}"
        self.assertTrue(answer.status < 500 or answer.status in (502, 503, 504), told)
        if answer.status >= 400:
            self.assertIsInstance(answer.body, dict, told)
            self.assertTrue(answer.body.get("errcode") or answer.body.get("flows"), told)
            self.assertEqual(marks(node), before, told)

    def _draw(self, node: Node, knocker: Knocker, routes: list[Route], headers: dict[str, str]) -> None:
        with_body = [route for route in routes if route.body is not None]

        @settings(
            max_examples=DRAWN,
            deadline=None,
            derandomize=True,
            database=None,
            phases=(Phase.generate,),
            suppress_health_check=list(HealthCheck),
        )
        @given(st.sampled_from(with_body), st.dictionaries(st.text(max_size=12), values, max_size=6))
        def knock(route: Route, body: dict[str, Any]) -> None:
            raw = json.dumps(body).encode("utf-8", "surrogatepass")
            self._knock(node, knocker, route, filled(route, "x"), raw, headers)

        knock()


def _cases(routes: list[Route], known: str) -> Iterator[tuple[Route, str, bytes]]:
    """Give each route nonsense bodies on a plain path, and plain bodies on nonsense paths."""
    for number, route in enumerate(routes):
        if route.body is not None:
            yield route, filled(route, known), BODIES[number % len(BODIES)]
            yield route, filled(route, known), b'{"%s": [{}]}' % b"user_id"
        for fill in PATHS[number % 3 :: 3]:
            if "{" in route.paths[0]:
                yield route, filled(route, fill), b"{}"
        yield (
            route,
            filled(route, known) + "?limit=-1&from=%ff&since=s9_9&dir=x&filter=%7B%22room%22:5",
            b"{}",
        )


def _bearer(token: str | None) -> dict[str, str]:
    return {} if token is None else {"Authorization": f"Bearer {token}"}


def _is_destructive(route: Route) -> bool:
    """Tell whether a well-formed call would end the session that knocks, or take the connection over."""
    path = route.paths[0]
    return "/logout" in path or "/deactivate" in path or route.waits
