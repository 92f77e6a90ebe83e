"""An HTTP/1.1 request on its way in and its answer on its way out, lean and bounded.

Twisted's own request spools bodies to disk on the reactor, bounds no size and parses forms in memory. This
one looks the route up as soon as the headers are in, sees to token, rate limit and size before the body,
then keeps a JSON body in memory up to its limit. Framing itself (both length and chunks, bad headers,
pipelining) stays with Twisted.

Source: RFC 9112; design, "Bad input, faults, security"; security C15, D11, M10, L15.
"""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator
from io import BytesIO
from time import gmtime, strftime
from typing import Any

from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from twisted.web import http

from homeserver.clock import Clock
from homeserver.http.answers import CORS_HEADERS, PREFLIGHT, SECURITY_HEADERS, STRICT_POLICY
from homeserver.http.calls import Query, Response, TakeOver
from homeserver.http.client_address import TrustedProxies
from homeserver.http.dispatch import Admission, Asked, Dispatcher
from homeserver.http.large_bodies import WHOLE_ANSWER, Making, Pieces
from homeserver.http.routing import Match, Route
from protocol.errors import BadJson, InvalidParam, MatrixError, TooLarge

MAX_DISCARDED = 65_536
"""Bytes of a refused request's body that are read and dropped to keep the connection."""
MAX_USER_AGENT = 512
COMPRESSED_FROM, COMPRESSED_TO = 2_048, 1_048_576
"""Bytes of answers that may be compressed: at level 1, a megabyte holds the reactor up for some 10 ms."""
_FORM = b"multipart/"
_LINES = str.maketrans("", "", "\r\n\0")


def _lines(*headers: tuple[str, str]) -> bytes:
    return b"".join(f"{name}: {value}\r\n".encode("latin-1", "replace") for name, value in headers)


_COMMON = _lines(*SECURITY_HEADERS) + b"Server: Plait\r\nCache-Control: no-store\r\n"
_API = _COMMON + _lines(*CORS_HEADERS, STRICT_POLICY)
_PAGE = _COMMON
_STATUS = {status: b"HTTP/1.1 %d %b\r\n" % (status, reason) for status, reason in http.RESPONSES.items()}


class ServerSettings:
    """What all requests of a listener share."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        clock: Clock,
        *,
        max_body: int,
        proxies: TrustedProxies,
        query_tokens: bool = True,
        compress: bool = False,
    ) -> None:
        """Bodies have at most `max_body` bytes; `query_tokens` lets tokens come in the query.

        `compress` lets answers of middling size go out compressed to those who take it.
        """
        self.dispatcher = dispatcher
        self.clock = clock
        self.max_body = max_body
        self.proxies = proxies
        self.query_tokens = query_tokens
        self.compress = compress
        self._date = (0, b"")

    def date_line(self) -> bytes:
        """Give the Date header, made once a second."""
        seconds = int(self.clock.reactor.seconds())
        if self._date[0] != seconds:
            text = strftime("%a, %d %b %Y %H:%M:%S GMT", gmtime(seconds))
            self._date = (seconds, f"Date: {text}\r\n".encode())
        return self._date[1]


class HttpRequest(http.Request):
    """One request on an HTTP/1.1 connection."""

    def __init__(self, channel: http.HTTPChannel, settings: ServerSettings) -> None:
        """Begin when the request line is in."""
        super().__init__(channel)
        self._settings = settings
        self._chunks: list[bytes] = []
        self._size = 0
        self._limit = settings.max_body
        self._asked: Asked | None = None
        self._route: Route | None = None
        self._admission: Deferred[Admission | None] | None = None
        self._refusal: Exception | None = None
        self._closed = False
        self._running: Deferred[None] | None = None
        self._making: Making | None = None

    @property
    def dispatcher(self) -> Dispatcher:
        """Give the dispatcher of this listener, for frames on a connection that is taken over."""
        return self._settings.dispatcher

    # Called by Twisted's channel as the request comes in.

    def gotLength(self, length: int | None) -> None:
        """Judge the request by its headers; a body of `length` bytes (None: chunked) follows."""
        channel: Any = self.channel  # Twisted parses the request line before, and passes it on after the body
        self._read_line(channel._command, channel._path, channel._version)
        if length == 0:
            return
        try:
            self._begin(length)
        except MatrixError as error:
            self._refuse(error, length)

    def handleContentChunk(self, data: bytes) -> None:
        """Keep a piece of the body, or drop it if the request is refused."""
        if self._closed:
            return
        self._size += len(data)
        if self._refusal is not None:
            if self._size > MAX_DISCARDED:
                self._close_with(self._refusal)
        elif self._size > self._limit:
            self._refuse(self._too_large(), None)
        else:
            self._chunks.append(data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """Answer, now that the body is there."""
        if self._closed:
            return
        body = b"".join(self._chunks)
        self._chunks.clear()
        self._running = Deferred.fromCoroutine(self._serve(body))
        self._running.addErrback(self._abandoned)

    def connectionLost(self, reason: Failure) -> None:
        """Stop a handler that only waits; others end what they have begun."""
        super().connectionLost(reason)  # type: ignore[no-untyped-call]  # Twisted's
        self._closed = True
        self._chunks.clear()
        if self._making is not None:
            self._making.stopProducing()
        if self._running is not None and self._route is not None and self._route.waits:
            self._running.cancel()

    def parseCookies(self) -> None:
        """Leave cookies alone: nothing here is authenticated by them."""

    # Letting it in.

    def _read_line(self, command: bytes, target: bytes, version: bytes) -> None:
        self.method, self.uri, self.clientproto = command, target, version
        self.path, self.args = target.partition(b"?")[0], {}

    def _begin(self, length: int | None) -> None:
        """Find the route, refuse what its body may not be, and start to see who asks."""
        if self.method == b"OPTIONS":
            self._limit = MAX_DISCARDED
            return
        content_type = self.requestHeaders.getRawHeaders(b"content-type", ())
        if any(each.strip().lower().startswith(_FORM) for each in content_type):
            raise BadJson("Forms are not taken here")
        asked, match = self._find()
        if match.route.max_body is not None:
            self._limit = match.route.max_body
        if length is not None and length > self._limit:
            raise self._too_large()
        admitting = Deferred.fromCoroutine(self._settings.dispatcher.admit(asked, match))
        self._admission = admitting.addErrback(self._not_admitted)

    def _find(self) -> tuple[Asked, Match]:
        asked = self._asked = self._asked or self._ask()
        match = self._settings.dispatcher.find(asked)
        self._route = match.route
        return asked, match

    def _ask(self) -> Asked:
        """Take from the headers what the dispatcher needs."""
        headers = self.requestHeaders
        authorization = headers.getRawHeaders(b"authorization", ())
        agents = headers.getRawHeaders(b"user-agent", ())
        peer = getattr(self.client, "host", "") or ""
        return Asked(
            self.method.decode("latin-1"),
            self.uri,
            self._settings.proxies.client_address(peer, headers.getRawHeaders(b"x-forwarded-for", ())),
            self._token(authorization),
            agents[0][:MAX_USER_AGENT].decode("latin-1") if agents else "",
            tuple(authorization),
        )

    def _token(self, authorization: Any) -> str | None:
        """Give the access token of the header, or else of the query."""
        for header in authorization:
            if header[:7].lower() == b"bearer ":
                return str(header[7:].strip(), "latin-1")
        if not self._settings.query_tokens or b"access_token=" not in self.uri:
            return None
        try:
            return Query(self.uri.partition(b"?")[2]).get("access_token")
        except InvalidParam:
            return None

    def _not_admitted(self, failure: Failure) -> None:
        """Remember a refusal that came while the body was still on its way."""
        if isinstance(failure.value, Exception):
            self._refusal = failure.value
            self._chunks.clear()

    def _refuse(self, error: Exception, length: int | None) -> None:
        """Answer with `error` after a short body, at once and for good before a long one."""
        self._refusal = error
        self._chunks.clear()
        if length is None or length > MAX_DISCARDED:
            self._close_with(error)

    def _close_with(self, error: Exception) -> None:
        """Answer before the body is there; the connection cannot go on after that."""
        self._closed = True
        asked = self._asked or self._ask()
        response = self._settings.dispatcher.refuse(asked, self._route, error)
        self.channel.write(self._head(response, b"Connection: close\r\n") + response.body)
        self.channel.loseConnection()

    def _too_large(self) -> TooLarge:
        return TooLarge(f"The body may have at most {self._limit} bytes")

    # Answering.

    async def _serve(self, body: bytes) -> None:
        response = PREFLIGHT if self.method == b"OPTIONS" else await self._answer(body)
        if self._disconnected:
            return
        if isinstance(response, TakeOver):
            self.content = BytesIO(body)
            refusal = response.start(self)
            if refusal is not None:
                self._write(refusal)
        elif response.pieces is None:
            self._write(response)
        else:
            await self._make(response, response.pieces)

    async def _make(self, response: Response, pieces: AsyncIterator[bytes]) -> None:
        """Send an answer whose body is made meanwhile."""
        self.startedWriting = 1
        self.code = response.status
        chunked = self.clientproto == b"HTTP/1.1"
        more = b"" if self.channel.persistent else b"Connection: close\r\n"
        self.send(self._head(response, more))
        self._making = Making(self, pieces, chunked)
        await self._making.run()

    async def _answer(self, body: bytes) -> Response | TakeOver:
        dispatcher = self._settings.dispatcher
        try:
            admission = await self._admission if self._admission is not None else None
            if self._refusal is not None:
                raise self._refusal
            if admission is None:
                admission = await dispatcher.admit(*self._find())
        except CancelledError:
            raise
        except Exception as error:
            return dispatcher.refuse(self._asked or self._ask(), self._route, error)
        return await dispatcher.answer(admission, body)

    def _abandoned(self, failure: Failure) -> None:
        """Let a handler that was stopped go; anything else is a mistake of this module."""
        if failure.check(CancelledError) is None:
            self._log.failure("An answer failed", failure)
            if not self._disconnected:
                self.channel.loseConnection()

    def _head(self, response: Response, more: bytes = b"") -> bytes:
        """Write status line and headers."""
        page = self._route is not None and not self._route.cors
        own = b"".join(
            f"{name}: {value.translate(_LINES)}\r\n".encode("latin-1", "replace")
            for name, value in response.headers
        )
        if page and not any(name.lower() == "content-security-policy" for name, _ in response.headers):
            own += _lines(STRICT_POLICY)
        length = b"Content-Length: %d\r\n" % len(response.body)
        if response.pieces is not None:
            length = b"Transfer-Encoding: chunked\r\n" if self.clientproto == b"HTTP/1.1" else b""
        elif response.status == 204:
            length = b""
        return b"".join(
            (
                _STATUS.get(response.status) or b"HTTP/1.1 %d Unknown\r\n" % response.status,
                self._settings.date_line(),
                f"Content-Type: {response.content_type}\r\n".encode("latin-1", "replace"),
                length,
                _PAGE if page else _API,
                own,
                more,
                b"\r\n",
            )
        )

    def _write(self, response: Response) -> None:
        """Send an answer: whole, or at the transport's pace if it is large."""
        self.startedWriting = 1
        self.code = response.status
        more = b"" if self.channel.persistent else b"Connection: close\r\n"
        if self._settings.compress and COMPRESSED_FROM <= len(response.body) <= COMPRESSED_TO:
            response, more = self._compressed(response), more + b"Vary: Accept-Encoding\r\n"
        head = self._head(response, more)
        body = b"" if self.method == b"HEAD" else response.body
        if len(body) <= WHOLE_ANSWER:
            self.channel.writeSequence((head, body))
            self.end()
            return
        self.send(head)
        Pieces(self, body).start()

    def _compressed(self, response: Response) -> Response:
        """Compress an answer if the peer takes gzip."""
        accepted = b",".join(self.requestHeaders.getRawHeaders(b"accept-encoding", ())).lower()
        codings = {each.strip() for each in accepted.split(b",")}
        if b"gzip" not in codings or response.content_type != "application/json":
            return response
        packed = gzip.compress(response.body, compresslevel=1, mtime=0)
        return evolve(response, body=packed, headers=(*response.headers, ("Content-Encoding", "gzip")))

    def send(self, data: bytes) -> None:
        """Write to the transport."""
        self.channel.write(data)

    def end(self) -> None:
        """Let the connection go on to its next request."""
        self.finish()  # type: ignore[no-untyped-call]  # Twisted's

    def follow(self, producer: object) -> None:
        """Let the transport set the pace of `producer`; None sets it free."""
        if producer is None:
            self.unregisterProducer()  # type: ignore[no-untyped-call]  # Twisted's
        else:
            self.registerProducer(producer, True)  # type: ignore[no-untyped-call]  # Twisted's
