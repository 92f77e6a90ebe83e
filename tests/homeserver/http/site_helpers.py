"""A site with a few routes, and clients without sockets."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from homeserver.http.calls import EMPTY, Call, Json, Reply, Response, TakeOver
from homeserver.http.routing import Auth, RateClass, Route
from protocol.errors import Forbidden
from storage.database import DatabaseGone
from tests.homeserver.http.helpers import MemoryServer


class Body(msgspec.Struct):
    """A body for tests."""

    name: str
    count: Annotated[int, msgspec.Meta(ge=0)] = 0


class Handlers:
    """Handlers that show what came in."""

    def __init__(self) -> None:
        """Start without calls."""
        self.calls: list[Call[Any]] = []
        self.waiting: Deferred[None] = Deferred()
        self.cancelled = False

    async def echo(self, call: Call[Any]) -> Reply:
        """Tell what came."""
        self.calls.append(call)
        return {"path": dict(call.path), "who": call.asker and call.asker.user_id}

    async def fail(self, call: Call[Any]) -> Reply:
        """Fail as told."""
        raise {
            "forbidden": Forbidden("No “entry”"),
            "gone": DatabaseGone("host=secret"),
            "bug": ZeroDivisionError("/secret/path.py"),
        }[call.path["how"]]

    async def wait(self, call: Call[Any]) -> Reply:
        """Wait long."""
        try:
            await self.waiting
        except CancelledError:
            self.cancelled = True
            raise
        return EMPTY

    async def big(self, call: Call[Any]) -> Reply:
        """Give a large answer."""
        return Json(b'"' + b"x" * 2_000_000 + b'"')

    async def middling(self, call: Call[Any]) -> Reply:
        """Give an answer worth compressing."""
        return Json(b'"' + b"y" * 10_000 + b'"')

    async def page(self, call: Call[Any]) -> Reply:
        """Give a page with odd headers."""
        return Response(
            302, b"", (("Location", "https://x/\r\nSet-Cookie: a=b"),), "text/html; charset=utf-8"
        )

    async def take(self, call: Call[Any]) -> Reply:
        """Take the connection over."""
        return TakeOver(lambda request: request.channel.transport.write(b"mine:" + request.content.read()))

    def routes(self) -> list[Route]:
        """List all."""
        return [
            Route("GET", "/open/{x}", self.echo, auth=Auth.NONE),
            Route("POST", "/typed", self.echo, body=Body, auth=Auth.NONE, limit=RateClass.LOGIN),
            Route("PUT", "/object", self.echo, body=dict, limit=RateClass.WRITES),
            Route("GET", "/mine", self.echo),
            Route("GET", "/maybe", self.echo, auth=Auth.OPTIONAL),
            Route("GET", "/guests", self.echo, auth=Auth.GUEST),
            Route("GET", "/admins", self.echo, auth=Auth.ADMIN),
            Route("POST", "/logout", self.echo, while_locked=True, while_suspended=True),
            Route("GET", "/fail/{how}", self.fail, auth=Auth.NONE),
            Route("GET", "/wait", self.wait, auth=Auth.NONE, waits=True),
            Route("GET", "/slow", self.wait, auth=Auth.NONE),
            Route("GET", "/middling", self.middling, auth=Auth.NONE),
            Route("GET", "/big", self.big, auth=Auth.NONE),
            Route("GET", "/page", self.page, auth=Auth.NONE, cors=False, over_websocket=False),
            Route("GET", "/ws", self.take, auth=Auth.NONE, over_websocket=False),
        ]


class SiteCase(SynchronousTestCase):
    """A server with all handlers."""

    def setUp(self) -> None:
        """Start it."""
        self.handlers = Handlers()
        self.server = MemoryServer(self.handlers.routes())
