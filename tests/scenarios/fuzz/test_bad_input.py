"""Whatever comes, the server answers with sense, and what it refuses leaves no trace.

Requests are drawn for every endpoint of the tables that the application itself serves, so that a new
endpoint is tried without being named here. The draw is the same in every run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from attrs import frozen
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

import federation.wiring
from homeserver.http.routing import Auth, Route
from tests.homeserver.http.helpers import Answer, request_bytes
from tests.scenarios.fuzz.examples import bodies, vocabulary
from tests.scenarios.fuzz.federating import Shapes
from tests.scenarios.fuzz.shapes import bodies_of, each_altered, right_target, targets_of, to_bytes
from tests.scenarios.fuzz.world import HERE, REMOTE_USER, THERE, FuzzServer, start
from tests.storage.helpers import postgres_server

EXAMPLES = int(os.environ.get("PLAIT_TEST_FUZZ", "12"))
"""Requests for each endpoint."""
SHOWN = 30
DELIBERATE = {502, 503, 504}
"""What says that another server or the moment is to blame."""

BREAKING: tuple[Any, ...] = (
    "\0",
    "a\0b",
    "\ud800",
    "",
    "x" * 300,
    "é" * 200,
    2**63,
    2**70,
    -1,
    1.5,
    None,
    True,
    [],
    {},
)
BREAKING += ([None], {"\0": 1}, {"": {}}, {"@a:b": {}}, ["a", "a"], "9" * 400)
"""Values that some column, number type or encoding cannot hold, or that are of another type."""
BREAKING_PATHS = (
    "%00",
    "a%00b",
    "%F0%9F%A6%9C",
    "x" * 300,
    "%C3%A9" * 200,
    "9" * 40,
    "%2F",
    "@a:b",
    "!a",
    "$",
    "%20",
)


@frozen
class Case:
    """One request."""

    method: str
    target: str
    body: bytes | None


class BadInputContract:
    """A whole server, asked for nonsense, on whatever database a subclass chooses."""

    timeout = 300

    def database_url(self) -> str:
        """Give an empty database."""
        raise AssertionError("a subclass chooses")

    async def setUp(self) -> None:
        """Start it."""
        self.patch(federation.wiring, "createResolver", lambda: None)
        folder = Path(self.mktemp())
        folder.mkdir(parents=True)
        self.server: FuzzServer = await start(folder, self.database_url())
        self.faults: dict[object, str] = {}
        self.addCleanup(self.server.stop)
        self.words = vocabulary(self.server, await self._tokens())

    def routes(self, *auths: Auth) -> list[Route]:
        """Give the endpoints of some kinds of asker."""
        return [route for route in self.server.routes if route.auth in auths]

    async def test_users(self) -> None:
        """Every endpoint of users stands nonsense, and no refusal leaves a trace (security: D1)."""
        for route in self.routes(Auth.NONE, Auth.OPTIONAL, Auth.GUEST, Auth.USER, Auth.ADMIN):
            for case in draw(self._plain(route)):
                await self._try(
                    route, case, partial(self.server.as_user, case.method, case.target, case.body)
                )
            await self.server.mend()
            self.words = vocabulary(self.server, await self._tokens())
        await self._conclude()

    async def test_each_part_in_turn(self) -> None:
        """No part of a right request can be exchanged for what breaks a database (security: K2)."""
        for route in self.routes(Auth.NONE, Auth.OPTIONAL, Auth.GUEST, Auth.USER):
            for case in self._in_turn(route):
                await self._try(
                    route, case, partial(self.server.as_user, case.method, case.target, case.body)
                )
            await self.server.mend()
        await self._conclude()

    async def test_servers(self) -> None:
        """Every endpoint of servers stands nonsense, though rightly signed (security: F2, F11)."""
        target = f"/_matrix/federation/v1/make_leave/{self.server.room_id}/{REMOTE_USER}"
        made = (await self.server.as_server("GET", target)).json["event"]
        shapes = Shapes(self.server, made, self.words.texts)
        for route in self.routes(Auth.SERVER):
            near = shapes.of(route.paths[0])
            cases = draw(self._plain(route))
            if near is not None:
                cases += draw(near.map(partial(_case, route.method)), 6 * EXAMPLES)
            for case in cases:
                await self._try(
                    route, case, partial(self.server.as_server, case.method, case.target, case.body)
                )
        await self._conclude()

    async def test_users_who_are_nobody(self) -> None:
        """Without a token, or with nonsense for one, nothing is told and nothing done (security: C8)."""
        for route in self.routes(Auth.GUEST, Auth.USER, Auth.ADMIN):
            for headers in TOKENS:
                body = None if route.method == "GET" else b"{}"
                case = Case(route.method, filled(route), body)
                raw = request_bytes(case.method, case.target, body, headers=headers)
                answer = await self._try(route, case, partial(self.server.ask, raw))
                self.assertEqual(answer.status, 401, (case, headers, answer))
                self.assertIn(answer.errcode, ("M_MISSING_TOKEN", "M_UNKNOWN_TOKEN"))
        await self._conclude()

    async def test_servers_who_are_nobody(self) -> None:
        """Without a right signature nothing is told and nothing done (security: F17)."""
        for route in self.routes(Auth.SERVER):
            case = Case(route.method, filled(route), None if route.method == "GET" else b"{}")
            for header in self._signatures(case):
                headers = [] if header is None else [("Authorization", header)]
                raw = request_bytes(case.method, case.target, case.body, headers=headers)
                answer = await self._try(route, case, partial(self.server.ask, raw))
                self.assertIn(answer.status, (401, 403), (case, header, answer))
        await self._conclude()

    async def test_nowhere(self) -> None:
        """Paths and methods that no endpoint has are refused as such."""
        piece = st.sampled_from(
            ["_matrix", "client", "federation", "v3", "v1", "rooms", "", "..", "%2e", "%"]
        )
        path = st.lists(piece | st.text(alphabet="az%/.;é~!", max_size=5), max_size=20).map("/".join)
        method = st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "TRACE", "X", "get"])
        requests = st.tuples(method, path.map(lambda text: "/" + text)).map(lambda pair: Case(*pair, b"{}"))
        for case in draw(requests, 20 * EXAMPLES):
            answer = await self.server.as_user(case.method, case.target, case.body)
            self.assertIn(answer.status, (200, 400, 404, 405, 401, 403), (case, answer))

    async def _tokens(self) -> list[str]:
        """Give places in sync and in history."""
        server = self.server
        synced = await server.do("GET", "/_matrix/client/v3/sync")
        read = await server.do("GET", f"/_matrix/client/v3/rooms/{server.room_id}/messages?dir=b&limit=2")
        return [synced["next_batch"], read["start"], read["end"]]

    def _plain(self, route: Route) -> st.SearchStrategy[Case]:
        near = bodies(self.server, route)
        body = st.none() if route.method == "GET" else bodies_of(route.body, self.words.texts, near)
        targets = targets_of(route, self.words)
        return st.builds(Case, st.just(route.method), targets, body)

    def _in_turn(self, route: Route) -> Iterator[Case]:
        """Make right requests of a route with one part of body or path exchanged."""
        right = right_target(route, self.words)
        examples = bodies(self.server, route)
        for example in examples:
            for body in each_altered(example, BREAKING):
                yield Case(route.method, right, to_bytes(body))
        parts = right.split("/")
        for index, piece in enumerate(route.paths[0].split("/")):
            for odd in BREAKING_PATHS if piece.startswith("{") else ():
                target = "/".join([*parts[:index], odd, *parts[index + 1 :]])
                yield Case(route.method, target, to_bytes(examples[0]) if examples else None)

    def _signatures(self, case: Case) -> Iterator[str | None]:
        right = self.server.signature(case.method, case.target, case.body)
        yield None
        yield from (
            "",
            "X-Matrix",
            "X-Matrix ,,,=",
            "Bearer x",
            "X-Matrix origin=\xff",
            "X-Matrix " + "a=b," * 2000,
        )
        yield self.server.signature(case.method, case.target + "&", case.body)
        yield right.replace(THERE, "192.0.2.8")
        yield right.replace(HERE, THERE)
        yield right.replace("ed25519:1", "ed25519:2")
        yield right[:-3]

    async def _try(self, route: Route, case: Case, again: Callable[[], Awaitable[Answer]]) -> Answer:
        """Make a request by `again`, hold the answer against what every answer owes, and give it."""
        before = await self.server.state()
        answer = await again()
        wrong = list(_faults(route, answer))
        wrong += [failure.getTraceback() for failure in self.flushLoggedErrors()]
        if answer.status >= 400 and await self.server.state() != before:
            wrong += await self._changes(again)
        if wrong:
            body = case.body and case.body[:700]
            text = "; ".join(wrong)
            kind = (route, answer.status, text[-200:])
            self.faults.setdefault(kind, f"{case.method} {case.target[:300]!r} {body!r}: {text} {answer}")
        return answer

    async def _changes(self, again: Callable[[], Awaitable[Answer]]) -> list[str]:
        """Tell what a refusal changes for certain: earlier requests may have left work, so ask once more."""
        earlier = await self.server.settled()
        if (await again()).status < 400:
            return []
        later = await self.server.settled()
        return [f"a refusal changed {name}" for name in later if later[name] != earlier[name]]

    async def _conclude(self) -> None:
        """Fail with everything that was found, also if what was accepted breaks the user's sync."""
        await self.server.mend()
        await self.server.do("GET", "/_matrix/client/v3/sync?full_state=true")
        found = list(self.faults.values())
        if found:
            self.fail(f"{len(found)} faults:\n\n" + "\n\n".join(found[:SHOWN]))


class BadInputOnSqliteTests(BadInputContract, TestCase):
    """On SQLite."""

    def database_url(self) -> str:
        """Give a file in the data folder."""
        return "sqlite:///homeserver.db"


class BadInputOnPostgresTests(BadInputContract, TestCase):
    """On PostgreSQL, which keeps no U+0000 in text."""

    def database_url(self) -> str:
        """Make a database."""
        server = postgres_server()
        url = server.create_database()
        self.addCleanup(server.drop_database, url)
        return url


TOKENS = (
    (),
    (("Authorization", ""),),
    (("Authorization", "Bearer"),),
    (("Authorization", "Bearer x"),),
    (("Authorization", "Bearer \xff\xfe"),),
    (("Authorization", "Bearer " + "x" * 5000),),
    (("Authorization", "Basic YWxpY2U6eA=="),),
)


def _case(method: str, pair: tuple[str, bytes]) -> Case:
    return Case(method, *pair)


def _faults(route: Route, answer: Answer) -> Iterator[str]:
    """Tell what is wrong with an answer by itself."""
    if answer.status >= 500 and answer.status not in DELIBERATE:
        yield "the server failed"
    if b"Traceback" in answer.body:
        yield "a traceback"
    if answer.status < 400 or not route.cors:
        return
    try:
        content = json.loads(answer.body)
    except ValueError:
        yield f"no JSON: {answer.body[:200]!r}"
        return
    if "flows" in content:
        return
    if not str(content.get("errcode")).startswith(("M_", "PLAIT_")):
        yield f"no errcode: {content}"
    if not isinstance(content.get("error"), str) or not content["error"]:
        yield f"no sentence: {content}"


def filled(route: Route) -> str:
    """Give a target of a route with plain parameters."""
    return "/".join("x" if part.startswith("{") else part for part in route.paths[0].split("/"))


def draw(cases: st.SearchStrategy[Case], count: int = EXAMPLES) -> list[Case]:
    """Draw requests, the same ones in every run."""
    drawn: list[Case] = []

    @settings(
        max_examples=count,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases)
    def collect(case: Case) -> None:
        drawn.append(case)

    collect()
    return drawn
