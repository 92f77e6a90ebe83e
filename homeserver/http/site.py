"""The HTTP/1.1 server of a listener: connections, their deadlines, and requests on them.

Not `twisted.web.server.Site`: there are no resources to traverse, no sessions and no access log. HTTP/2 is
left to a proxy.

Source: RFC 9112; security D16.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import ServerFactory, connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel, Request

from homeserver.clock import Timer
from homeserver.http.heads import WholeRequest, is_length, read_whole
from homeserver.http.request import HttpRequest, ServerSettings

IDLE_SECONDS = 75.0
"""How long a connection may be silent between requests, or within one."""
RECEIVE_SECONDS = 120.0
"""How long a request may take to arrive, body included; a drip does not extend it."""
MAX_HEADERS = 100
EARLY_SECONDS = 0.001
"""How much too early a timer may come by rounding."""
_FOLDS = (b" ", b"\t")
_REFUSAL = b'{"errcode":"M_UNRECOGNIZED","error":"This is not an HTTP request"}'
_BAD_REQUEST = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(_REFUSAL), _REFUSAL)
)


class Channel(HTTPChannel):
    """A connection whose requests must arrive in time."""

    maxHeaders = MAX_HEADERS

    def __init__(self, site: HttpSite) -> None:
        """Belong to `site`."""
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted's
        self.factory = site
        self.settings = site.settings
        self.timers = site.settings.clock.reactor
        self.requestFactory: Any = self._make_request
        self.timeOut: Any = IDLE_SECONDS
        self._began: float | None = None
        self._heard = 0.0
        self._silence: Any = None
        self._addresses: tuple[Any, Any] | None = None

    def _make_request(self, channel: HTTPChannel, queued: int = 0) -> Request:
        self._began = self.timers.seconds()
        return HttpRequest(channel, self.settings)

    def dataReceived(self, data: bytes) -> None:
        """Take bytes in, unless the request they belong to has taken too long."""
        if (
            self._began is not None
            and not self._handlingRequest
            and self.timers.seconds() - self._began > RECEIVE_SECONDS
        ):
            self.forceAbortClient()  # type: ignore[no-untyped-call]  # Twisted's
            return
        whole = read_whole(data, MAX_HEADERS) if self._is_between_requests() else None
        if whole is None:
            super().dataReceived(data)  # type: ignore[no-untyped-call]  # Twisted's
        else:
            self._take(whole)

    def _is_between_requests(self) -> bool:
        """Tell whether what comes now begins a request."""
        is_within = self._began is not None or self._handlingRequest or self._buffer or self._busyReceiving
        return bool(self.persistent and not is_within)

    def _take(self, whole: WholeRequest) -> None:
        """Take a request that is whole, as Twisted would after its lines and its body."""
        self.resetTimeout()
        request = self.requestFactory(self)
        self.requests.append(request)
        target: Any = whole.target  # Twisted's own types are at odds
        self._command, self._path, self._version = whole.method, target, b"HTTP/1.1"
        self.length = len(whole.body)
        request.requestHeaders = whole.fields
        self.allHeadersReceived()  # type: ignore[no-untyped-call]  # Twisted's
        if whole.body:
            request.handleContentChunk(whole.body)
        self.allContentReceived()

    # A deadline that is moved with every request: its timer is moved only when it comes.

    def setTimeout(self, period: float | None) -> float | None:
        """Let the connection be silent for so long from now on; None: for ever."""
        before: float | None = self.timeOut
        self.timeOut = period
        self.resetTimeout()
        if period is not None and self._silence is None:
            self._silence = self.timers.callLater(period, self._listen)
        return before

    def resetTimeout(self) -> None:
        """Begin the silence anew."""
        self._heard = self.timers.seconds()

    def _listen(self) -> None:
        """End a connection that was silent too long."""
        self._silence = None
        if self.timeOut is None:
            return
        left = self._heard + self.timeOut - self.timers.seconds()
        if left > EARLY_SECONDS:
            self._silence = self.timers.callLater(left, self._listen)
        else:
            self.timeoutConnection()  # type: ignore[no-untyped-call]  # Twisted's

    def callLater(self, seconds: float, call: Callable[[], object]) -> Timer:
        """Call later, by the clock of the server."""
        return self.timers.callLater(seconds, call)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """End."""
        super().connectionLost(reason)  # type: ignore[no-untyped-call]  # Twisted's
        if self._silence is not None:
            self._silence.cancel()
            self._silence = None

    # Addresses that every request asks for.

    def getHost(self) -> Any:
        """Give our end of the connection."""
        return self._ends()[0]

    def getPeer(self) -> Any:
        """Give the other end of the connection."""
        return self._ends()[1]

    def _ends(self) -> tuple[Any, Any]:
        if self._addresses is None:
            transport: Any = self.transport
            self._addresses = transport.getHost(), transport.getPeer()
        return self._addresses

    def lineReceived(self, line: bytes) -> None:
        """Take a line of the head; one that goes on with the line before it is refused (security: C15)."""
        if line[:1] in _FOLDS:
            self._respondToBadRequestAndDisconnect()
        else:
            super().lineReceived(line)  # type: ignore[no-untyped-call]  # Twisted's

    def headerReceived(self, line: bytes) -> bool:
        """Take a header; a length that is no number Python would read is refused (security: C15)."""
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length" and not is_length(value.strip(b" \t")):
            self._respondToBadRequestAndDisconnect()
            return False
        return bool(super().headerReceived(line))  # type: ignore[no-untyped-call]  # Twisted's

    def _respondToBadRequestAndDisconnect(self) -> None:
        """Refuse what is not even HTTP, in the form of every other refusal."""
        transport: Any = self.transport
        transport.write(_BAD_REQUEST)
        self.loseConnection()  # type: ignore[no-untyped-call]  # Twisted's

    def allContentReceived(self) -> None:
        """End the deadline: the request is in."""
        self._began = None
        super().allContentReceived()  # type: ignore[no-untyped-call]  # Twisted's


class HttpSite(ServerFactory):
    """Makes connections for a listener."""

    noisy = False

    def __init__(self, settings: ServerSettings) -> None:
        """Serve as `settings` say."""
        self.settings = settings

    def buildProtocol(self, addr: IAddress | None) -> Channel:
        """Make a connection."""
        return Channel(self)

    def log(self, request: Request) -> None:
        """Write no access log: the metrics count, and addresses are the users' own business."""
