"""The one outbound agent: every HTTP request this server makes leaves through here.

Federation, push, previews, appservices and identity servers all share it, so the address deny-list, the
limits on bytes and time, the bound on connections and the TLS checks hold for all of them. Redirects are
followed only where a request allows some, and each hop is judged anew. Signing and JSON are not its
business.

Source: RFC 9112 (HTTP/1.1).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urljoin, urlsplit

from attrs import evolve, frozen
from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.error import ConnectError, ConnectionClosed, DNSLookupError

from homeserver.http.answer_reader import AnswerReader, OutboundAnswer
from homeserver.http.connections import ConnectionFactory, IdleConnections, NoAnswerBegun, OutboundConnection
from homeserver.http.dialing import Dialer, Place
from homeserver.http.outbound_errors import CannotConnect, OutboundError, TimedOut

MAX_IN_FLIGHT = 256
"""Requests under way at a time; more wait in line, within their deadline."""

_PORTS = {"http": 80, "https": 443}
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
"""What is asked once more when an idle connection turns out to be closed.

Source: RFC 9110, 9.2.2."""
_WITH_BODY = frozenset({"PUT", "POST", "PATCH"})
"""Methods that announce even an empty body."""
_BROKEN = (ConnectError, ConnectionClosed, DNSLookupError, OSError, ValueError, EOFError)
_START_LINE = re.compile(r"[A-Z]+ [!-~]+")
_FIELD = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+: [^\r\n\0]*")


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
        self._idle = IdleConnections(reactor)
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
        self._idle.close()

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
        except (OutboundError, CancelledError):
            raise
        except Exception as error:
            raise _translated(error, request.place.host) from error
        finally:
            self._slots.release()

    async def _send(self, request: OutboundRequest) -> OutboundAnswer:
        """Send one request over an idle connection, or a new one."""
        written = _written(request)
        idle = self._idle.take(request.place)
        if idle is not None:
            try:
                return await self._ask(idle, request, written)
            except NoAnswerBegun:
                if request.method not in _IDEMPOTENT:
                    raise
        fresh = await self._dialer.endpoint(request.place).connect(ConnectionFactory())
        return await self._ask(fresh, request, written)

    async def _ask(
        self, connection: OutboundConnection, request: OutboundRequest, written: bytes
    ) -> OutboundAnswer:
        reader = AnswerReader(request.method == "HEAD", request.limits.max_bytes)
        answer = await connection.ask(written, reader)
        self._idle.put(request.place, connection)
        return answer


def _written(request: OutboundRequest) -> bytes:
    """Give a request as it goes over the wire; raises CannotConnect for what would be another request."""
    start = f"{request.method} {request.target}"
    lines = [f"Host: {request.host}", *(f"{name}: {value}" for name, value in request.headers.items())]
    if _START_LINE.fullmatch(start) is None or not all(map(_FIELD.fullmatch, lines)):
        raise CannotConnect("a request with odd characters is not sent")
    body = request.body or b""
    if body or request.method in _WITH_BODY:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join((f"{start} HTTP/1.1", *lines, "\r\n")).encode("latin-1") + body


def _translated(error: Exception, host: str) -> Exception:
    """Give the OutboundError for what Twisted raised, or the error itself if it is a fault of ours."""
    if isinstance(error, _BROKEN) or type(error).__module__.startswith(("twisted.", "OpenSSL")):
        return CannotConnect(f"cannot talk to {host}: {type(error).__name__}")
    return error


def _redirected(request: OutboundRequest, location: str) -> OutboundRequest:
    """Give the request of the next hop: a plain GET without credentials of ours."""
    scheme = "http" if request.place.tls_name is None else "https"
    try:
        url = urljoin(f"{scheme}://{request.host}{request.target}", location)
    except ValueError:
        raise CannotConnect("a redirect to what is no URL") from None
    if scheme == "https" and not url.startswith("https://"):
        raise CannotConnect("a redirect away from https")
    headers = {k: v for k, v in request.headers.items() if k.lower() not in ("authorization", "cookie")}
    return evolve(request_for_url("GET", url, headers, request.limits), body=None)
