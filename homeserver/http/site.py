"""The HTTP/1.1 server of a listener: connections, their deadlines, and requests on them.

Not `twisted.web.server.Site`: there are no resources to traverse, no sessions and no access log. HTTP/2 is
left to a proxy.

Source: RFC 9112; security D16.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import ServerFactory
from twisted.web.http import HTTPChannel, Request

from homeserver.http.request import HttpRequest, ServerSettings

IDLE_SECONDS = 75.0
"""How long a connection may be silent between requests, or within one."""
RECEIVE_SECONDS = 120.0
"""How long a request may take to arrive, body included; a drip does not extend it."""
MAX_HEADERS = 100
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
        self.callLater: Any = self.timers.callLater
        self._began: float | None = None

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
        super().dataReceived(data)  # type: ignore[no-untyped-call]  # Twisted's

    def lineReceived(self, line: bytes) -> None:
        """Take a line of the head; one that goes on with the line before it is refused (security: C15)."""
        if line[:1] in _FOLDS:
            self._respondToBadRequestAndDisconnect()
        else:
            super().lineReceived(line)  # type: ignore[no-untyped-call]  # Twisted's

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
