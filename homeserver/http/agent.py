"""The one outbound agent: every HTTP request this server makes leaves through here.

Federation, push, previews, appservices and identity servers all share it, so the address deny-list, the
limits on bytes and time, the bound on connections and the TLS checks hold for all of them. Redirects are
followed only where a request allows some, and each hop is judged anew. Signing and JSON are not its
business.

Source: RFC 9112 (HTTP/1.1).
"""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from typing import Any
from urllib.parse import urljoin, urlsplit

from attrs import define, evolve, field, frozen
from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.error import ConnectError, ConnectionClosed, DNSLookupError
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, HTTPConnectionPool, ResponseDone, ResponseNeverReceived
from twisted.web.error import Error as WebError
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IBodyProducer
from zope.interface import implementer

from homeserver.http.dialing import Dialer, HeaderBoundEndpoint, Place
from homeserver.http.outbound_errors import AnswerTooLarge, CannotConnect, OutboundError, TimedOut

MAX_IN_FLIGHT = 256
"""Requests under way at a time; more wait in line, within their deadline."""
MAX_IDLE = 200
"""Idle connections kept in all."""
MAX_IDLE_PER_PLACE = 2
IDLE_SECONDS = 25
"""How long an idle connection is kept: less than servers keep theirs, so that few are found closed."""

_PORTS = {"http": 80, "https": 443}
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_BROKEN = (ConnectError, ConnectionClosed, DNSLookupError, WebError, OSError, ValueError, EOFError)


@frozen
class Limits:
    """What an answer may cost: bytes of its body, seconds in all, redirects followed."""

    max_bytes: int
    seconds: float
    redirects: int = 0


@frozen
class OutboundRequest:
    """A request to one place. `host` is the Host header; `target` is the path and query as sent."""

    method: str
    place: Place
    host: str
    target: str
    headers: Mapping[str, str]
    limits: Limits
    body: bytes | None = None


@frozen
class OutboundAnswer:
    """An answer read whole: status, headers with lower-case names (the first of each), body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def request_for_url(method: str, url: str, headers: Mapping[str, str], limits: Limits) -> OutboundRequest:
    """Give the request for an absolute `http` or `https` URL; raises CannotConnect for any other text."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise CannotConnect("not a URL") from None
    if parts.scheme not in _PORTS or not host or parts.username is not None or not url.isascii():
        raise CannotConnect("not an http or https URL")
    secure = parts.scheme == "https"
    place = Place(host, port or _PORTS[parts.scheme], host if secure else None)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return OutboundRequest(method, place, parts.netloc, target, headers, limits)


class OutboundAgent:
    """Sends requests and reads answers, within limits."""

    def __init__(self, reactor: Any, dialer: Dialer) -> None:
        """Use `reactor` for time and `dialer` for connections."""
        self._reactor = reactor
        self._dialer = dialer
        self._pool = _BoundedPool(reactor)  # type: ignore[no-untyped-call]  # untyped in Twisted
        self._slots = DeferredSemaphore(MAX_IN_FLIGHT)

    async def request(self, request: OutboundRequest) -> OutboundAnswer:
        """Send `request` and read its answer; raises OutboundError. The status is not judged."""
        work = Deferred.fromCoroutine(self._follow(request))
        work.addTimeout(request.limits.seconds, self._reactor)
        try:
            return await work
        except (DeferredTimeout, CancelledError):
            raise TimedOut(f"{request.place.host} did not answer in time") from None

    async def close(self) -> None:
        """Close the idle connections."""
        await self._pool.closeCachedConnections()  # type: ignore[no-untyped-call]  # untyped in Twisted

    async def _follow(self, request: OutboundRequest) -> OutboundAnswer:
        """Send, and follow as many redirects as the limits allow."""
        answer = await self._in_turn(request)
        for _ in range(request.limits.redirects):
            if answer.status not in _REDIRECTS or "location" not in answer.headers:
                return answer
            request = _redirected(request, answer.headers["location"])
            answer = await self._in_turn(request)
        return answer

    async def _in_turn(self, request: OutboundRequest) -> OutboundAnswer:
        """Send once one of the slots is free."""
        await self._slots.acquire()
        try:
            return await self._send(request)
        finally:
            self._slots.release()

    async def _send(self, request: OutboundRequest) -> OutboundAnswer:
        """Send one request over a pooled or new connection."""
        place = request.place
        endpoint = HeaderBoundEndpoint(self._dialer.endpoint(place))
        agent = Agent.usingEndpointFactory(self._reactor, _Fixed(endpoint), _Keyed(self._pool, place))
        headers = Headers({name: [value] for name, value in request.headers.items()})
        headers.setRawHeaders("Host", [request.host])
        uri = b"https://host" + request.target.encode("ascii")
        body = None if request.body is None else _Body(request.body)
        try:
            response = await _ask(agent, request.method.encode("ascii"), uri, headers, body)
            return await _read(response, request)
        except (OutboundError, CancelledError):
            raise
        except Exception as error:
            raise _translated(error, place.host) from error


async def _ask(agent: Agent, method: bytes, uri: bytes, headers: Headers, body: Any) -> Any:
    """Send a request; once more if an idle connection turns out to be closed and the method is idempotent.

    The pool does that by itself for methods without a body.
    """
    try:
        return await agent.request(method, uri, headers, body)
    except ResponseNeverReceived:
        if method != b"PUT":
            raise
        return await agent.request(method, uri, headers, body)


def _translated(error: Exception, host: str) -> Exception:
    """Give the OutboundError for what Twisted raised, or the error itself if it is a fault of ours."""
    reasons = getattr(error, "reasons", None)
    inner = [reason.value for reason in reasons] if reasons else [error]
    for cause in inner:
        if isinstance(cause, OutboundError | CancelledError):
            return cause
    if isinstance(inner[0], _BROKEN) or reasons or type(error).__module__.startswith(("twisted.", "OpenSSL")):
        return CannotConnect(f"cannot talk to {host}: {type(inner[0]).__name__}")
    return error


def _redirected(request: OutboundRequest, location: str) -> OutboundRequest:
    """Give the request of the next hop: a plain GET without credentials of ours."""
    scheme = "http" if request.place.tls_name is None else "https"
    url = urljoin(f"{scheme}://{request.host}{request.target}", location)
    if scheme == "https" and not url.startswith("https://"):
        raise CannotConnect("a redirect away from https")
    headers = {k: v for k, v in request.headers.items() if k.lower() not in ("authorization", "cookie")}
    return evolve(request_for_url("GET", url, headers, request.limits), body=None)


async def _read(response: Any, request: OutboundRequest) -> OutboundAnswer:
    """Read the body up to the limit; a declared length above it is refused at once."""
    reader = _Reader(request.limits.max_bytes)
    response.deliverBody(reader)
    if isinstance(response.length, int) and response.length > request.limits.max_bytes:
        reader.stop(AnswerTooLarge(f"{request.place.host} announced {response.length} bytes"))
    body = await reader.done
    headers = {
        name.decode("latin-1").lower(): values[0].decode("latin-1")
        for name, values in response.headers.getAllRawHeaders()
    }
    return OutboundAnswer(response.code, headers, body)


class _Reader(Protocol):
    """Collects a body up to a bound."""

    def __init__(self, max_bytes: int) -> None:
        """Read no more than `max_bytes`."""
        self._left = max_bytes
        self._parts = BytesIO()
        self.done: Deferred[bytes] = Deferred(lambda _: self._drop())

    def dataReceived(self, data: bytes) -> None:
        """Keep a piece, or give up once there are too many."""
        if self.done.called:
            return
        self._left -= len(data)
        if self._left < 0:
            self.stop(AnswerTooLarge("the answer is too large"))
        else:
            self._parts.write(data)

    def connectionLost(self, reason: Failure | None = None) -> None:
        """Hand the body over, if it is whole."""
        if self.done.called:
            return
        if reason is not None and reason.check(ResponseDone, PotentialDataLoss):
            self.done.callback(self._parts.getvalue())
        else:
            self.done.errback(CannotConnect("the connection broke within the answer"))

    def stop(self, error: OutboundError) -> None:
        """Fail with `error` and drop the connection."""
        if not self.done.called:
            self.done.errback(error)
            self._drop()

    def _drop(self) -> None:
        if self.transport is not None:
            self.transport.stopProducing()


@implementer(IBodyProducer)
@define(eq=False)
class _Body:
    """A body already in memory."""

    content: bytes
    length: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Tell the length beforehand."""
        self.length = len(self.content)

    def startProducing(self, consumer: Any) -> Deferred[None]:
        """Write everything at once."""
        consumer.write(self.content)
        done: Deferred[None] = Deferred()
        done.callback(None)
        return done

    def pauseProducing(self) -> None:
        """Do nothing: all is written."""

    def resumeProducing(self) -> None:
        """Do nothing: all is written."""

    def stopProducing(self) -> None:
        """Do nothing: all is written."""


@frozen
class _Fixed:
    """An endpoint factory for the one endpoint already chosen."""

    endpoint: HeaderBoundEndpoint

    def endpointForURI(self, uri: URI) -> HeaderBoundEndpoint:
        """Give the endpoint, whatever the URI says."""
        return self.endpoint


@frozen
class _Keyed:
    """The pool, with connections kept by where they really go and what TLS proved."""

    pool: _BoundedPool
    place: Place
    persistent: bool = True

    def getConnection(self, key: object, endpoint: Any) -> Deferred[Any]:
        """Give an idle connection to the place, or a new one."""
        connection: Deferred[Any] = self.pool.getConnection(self.place, endpoint)
        return connection


class _BoundedPool(HTTPConnectionPool):
    """A connection pool with a bound on idle connections in all, not only for each place."""

    maxPersistentPerHost = MAX_IDLE_PER_PLACE
    cachedConnectionTimeout = IDLE_SECONDS

    def _putConnection(self, key: object, connection: Any) -> None:
        """Keep an idle connection, or close it when enough are kept."""
        if len(self._timeouts) >= MAX_IDLE:
            connection.transport.loseConnection()
        else:
            super()._putConnection(key, connection)  # type: ignore[no-untyped-call]  # untyped in Twisted
