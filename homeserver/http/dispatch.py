"""The life of a request, whatever carried it: find the route, admit, decode, handle, render.

Admission (route, who asks, account state, rate limit) needs no body and comes first, so that a refusal costs
no work (security D11). Over HTTP the two halves are called apart, as headers and body arrive; a WebSocket
frame and a test call them at once. Other servers are authenticated by their signature over the body, so
their second half begins with the proof. Errors are rendered here and nowhere else.

Source: client-server-api/_index.md, "Client Authentication", "Account moderation"; security C8, C9.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from attrs import frozen
from twisted.internet.defer import CancelledError

from homeserver.accounts.requester import Requester
from homeserver.clock import Clock
from homeserver.http.answers import error_response, to_response
from homeserver.http.bodies import decode_body
from homeserver.http.calls import Call, Query, Response, TakeOver
from homeserver.http.client_address import address_key
from homeserver.http.metrics import RequestMetrics
from homeserver.http.rate_limits import RateLimiter
from homeserver.http.routing import Auth, Match, Route, RouteTable
from protocol.errors import (
    BadJson,
    Forbidden,
    GuestAccessForbidden,
    MissingToken,
    Unavailable,
    Unrecognized,
    UserLocked,
    UserSuspended,
)
from protocol.identifiers import ServerName


@frozen(eq=False)
class Asked:
    """A request as its transport brings it, without its body."""

    method: str
    uri: bytes
    """The request target as sent."""
    ip: str = ""
    token: str | None = None
    user_agent: str = ""
    authorization: tuple[bytes, ...] = ()
    """All Authorization headers, for other servers' signatures."""

    @property
    def split_uri(self) -> tuple[bytes, bytes]:
        """Give path and query, of the absolute form of a target as well."""
        path, _, query = self.uri.partition(b"?")
        if path[:1] != b"/":
            scheme, separator, rest = path.partition(b"://")
            if separator and scheme.lower() in (b"http", b"https"):
                path = b"/" + rest.partition(b"/")[2]
        return path, query


class Tokens(Protocol):
    """Knows access tokens."""

    async def requester(self, token: str, *, ip: str, user_agent: str, now: int) -> Requester:
        """Give whose token this is; raises UnknownToken."""
        ...


class Claim(Protocol):
    """What a server's request says of its origin, not proved yet."""

    @property
    def origin(self) -> ServerName:
        """Name the origin."""
        ...


class Proved(Protocol):
    """A server's request whose signature holds, and the JSON of its body."""

    @property
    def origin(self) -> ServerName:
        """Name the origin."""
        ...

    @property
    def content(self) -> Any:
        """Give the body, None without one."""
        ...


class Servers(Protocol):
    """Authenticates requests of other servers."""

    def claim(self, headers: Sequence[bytes]) -> Any:
        """Read the Authorization headers into a `Claim`; raises Unauthorized or Forbidden."""
        ...

    async def prove(self, claim: Any, method: str, uri: str, body: bytes) -> Proved:
        """Check the signature over a request; raises Unauthorized or BadJson."""
        ...


class NoServers:
    """Authentication on listeners that serve no other servers."""

    def claim(self, headers: Sequence[bytes]) -> Claim:
        """Refuse."""
        raise Unrecognized("There is no such endpoint here")

    async def prove(self, claim: Any, method: str, uri: str, body: bytes) -> Proved:
        """Refuse."""
        raise Unrecognized("There is no such endpoint here")


@frozen(eq=False)
class Admission:
    """A request that may be handled once its body is there."""

    asked: Asked
    match: Match
    query: bytes
    now: int
    asker: Requester | None = None
    claim: Claim | None = None


@frozen(eq=False)
class Doorkeepers:
    """Who lets requests in."""

    tokens: Tokens
    servers: Servers
    limiter: RateLimiter


class Dispatcher:
    """Take requests to their handlers and give the answers."""

    def __init__(
        self, table: RouteTable, doorkeepers: Doorkeepers, metrics: RequestMetrics, clock: Clock, bound: int
    ) -> None:
        """Serve `table`; at most `bound` requests are under way at a time, long-polls aside."""
        self._table = table
        self._doorkeepers = doorkeepers
        self._metrics = metrics
        self._clock = clock
        self._bound = bound
        self._under_way = 0

    def find(self, asked: Asked) -> Match:
        """Find the route of a request; raises Unrecognized, MethodNotAllowed or InvalidParam."""
        return self._table.match(asked.method, asked.split_uri[0])

    async def admit(self, asked: Asked, match: Match) -> Admission:
        """Let a request in by its headers alone; raises what it is refused with."""
        now, route = self._clock.now_ms(), match.route
        if self._under_way >= self._bound and not route.waits:
            raise Unavailable("Too many requests are under way")
        query = asked.split_uri[1]
        if route.auth is Auth.SERVER:
            self._doorkeepers.limiter.take(route.limit, address_key(asked.ip), now)
            claim = self._doorkeepers.servers.claim(asked.authorization)
            return Admission(asked, match, query, now, claim=claim)
        asker = await self._identify(route, asked, now)
        self._limit(route, asker, asked.ip, now)
        return Admission(asked, match, query, now, asker)

    async def answer(self, admission: Admission, body: bytes) -> Response | TakeOver:
        """Handle an admitted request; errors come as answers too."""
        route = admission.match.route
        self._count(route, 1)
        try:
            response = await self._handle(admission, body)
        except CancelledError:
            if route.waits:
                raise
            response = Response(500, b"{}")
        except Exception as error:
            response = error_response(error, f"{route.method} {route.paths[0]}")
        finally:
            self._count(route, -1)
        status = response.status if isinstance(response, Response) else 101
        self._metrics.answered(route, status, self._clock.now_ms() - admission.now)
        return response

    def refuse(self, asked: Asked, route: Route | None, error: Exception) -> Response:
        """Render why a request is not let in."""
        response = error_response(error, f"admission of {asked.method}")
        self._metrics.answered(route, response.status, 0)
        return response

    async def dispatch(
        self, asked: Asked, body: bytes, requester: Requester | None = None
    ) -> Response | TakeOver:
        """Take a whole request to its answer; with a `requester`, it comes over that user's WebSocket."""
        route = None
        try:
            match = self.find(asked)
            route = match.route
            if requester is None:
                admission = await self.admit(asked, match)
            else:
                admission = self._admit_known(asked, match, requester)
        except Exception as error:
            return self.refuse(asked, route, error)
        return await self.answer(admission, body)

    def _admit_known(self, asked: Asked, match: Match, requester: Requester) -> Admission:
        """Let in a request whose maker is known already."""
        route, now = match.route, self._clock.now_ms()
        if not route.over_websocket or route.auth is Auth.SERVER:
            raise Unrecognized("This endpoint is for HTTP alone")
        if self._under_way >= self._bound:
            raise Unavailable("Too many requests are under way")
        _check_state(route, requester)
        self._limit(route, requester, asked.ip, now)
        return Admission(asked, match, asked.split_uri[1], now, requester)

    async def _identify(self, route: Route, asked: Asked, now: int) -> Requester | None:
        """Tell who asks, and see that the route is open to them."""
        if route.auth is Auth.NONE:
            return None
        if asked.token is None:
            if route.auth is Auth.OPTIONAL:
                return None
            raise MissingToken("This endpoint needs an access token")
        asker = await self._doorkeepers.tokens.requester(
            asked.token, ip=asked.ip, user_agent=asked.user_agent, now=now
        )
        _check_state(route, asker)
        return asker

    def _limit(self, route: Route, asker: Requester | None, ip: str, now: int) -> None:
        if asker is None:
            self._doorkeepers.limiter.take(route.limit, address_key(ip), now)
        elif asker.rate_limited:
            self._doorkeepers.limiter.take(route.limit, asker.user_id, now)

    async def _handle(self, admission: Admission, body: bytes) -> Response | TakeOver:
        asked, route = admission.asked, admission.match.route
        server: ServerName | None = None
        if admission.claim is not None:
            proved = await self._doorkeepers.servers.prove(
                admission.claim, asked.method, asked.uri.decode("latin-1"), body
            )
            server = proved.origin
            self._doorkeepers.limiter.take(route.limit, server, admission.now)
            decoded = _object(proved.content) if route.body is dict else decode_body(route.body, body)
        else:
            decoded = decode_body(route.body, body)
        call: Call[Any] = Call(
            asked.method,
            asked.uri,
            admission.match.params,
            Query(admission.query),
            decoded,
            admission.now,
            asked.ip,
            admission.asker,
            server,
            body,
            asked.user_agent,
            asked.token,
        )
        return to_response(await route.handler(call))

    def _count(self, route: Route, change: int) -> None:
        if not route.waits:
            self._under_way += change
            self._metrics.under_way(self._under_way)


def _object(content: Any) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise BadJson("The body must be a JSON object")
    return content


def _check_state(route: Route, asker: Requester) -> None:
    """See that an account in its present state may call the route."""
    if asker.locked and not route.while_locked:
        raise UserLocked()
    if asker.is_guest and route.auth not in (Auth.GUEST, Auth.OPTIONAL):
        raise GuestAccessForbidden("Guests may not do this")
    if route.auth is Auth.ADMIN and not asker.is_admin:
        raise Forbidden("Only administrators may do this")
    if asker.suspended and not route.open_to_suspended:
        raise UserSuspended("This account is suspended")
