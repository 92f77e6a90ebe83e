"""A server and its clients in memory: a real site, string transports, and a clock that stands still."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import define, field, frozen
from prometheus_client import CollectorRegistry
from twisted.internet.task import Clock as TaskClock
from twisted.internet.testing import StringTransport

from homeserver.accounts.requester import Requester
from homeserver.clock import Clock
from homeserver.config.sections import RateLimits
from homeserver.http.client_address import TrustedProxies
from homeserver.http.dispatch import Dispatcher, Doorkeepers, NoServers, Servers, Tokens
from homeserver.http.metrics import RequestMetrics
from homeserver.http.rate_limits import RateLimiter
from homeserver.http.request import ServerSettings
from homeserver.http.routing import Route, RouteTable
from homeserver.http.site import Channel, HttpSite
from protocol.errors import UnknownToken
from protocol.identifiers import DeviceID, UserID

START = 1_700_000_000
ALICE = Requester(UserID("@alice:plait.test"), 1, DeviceID("PHONE"), 11)
UNLIMITED = RateLimits(enabled=False)


@define
class KnownTokens:
    """Tokens of a table, with a count of look-ups."""

    table: dict[str, Requester] = field(factory=lambda: {"alice": ALICE})
    asked: int = 0

    async def requester(self, token: str, *, ip: str, user_agent: str, now: int) -> Requester:
        """Look a token up."""
        self.asked += 1
        if token not in self.table:
            raise UnknownToken("This access token is not known", soft_logout=False)
        return self.table[token]


@frozen
class Answer:
    """An answer taken apart."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """Give the body as JSON."""
        return json.loads(self.body)

    @property
    def errcode(self) -> str:
        """Give the error code."""
        return str(self.json["errcode"])


def split_answers(raw: bytes) -> list[Answer]:
    """Take apart what a server wrote on one connection; every answer must say its length, or be in chunks."""
    answers = []
    while raw:
        head, _, rest = raw.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        pairs = [line.split(": ", 1) for line in lines]
        headers = {name.lower(): value for name, value in pairs}
        if headers.get("transfer-encoding") == "chunked":
            body, raw = _unchunked(rest)
        else:
            length = int(headers.get("content-length", "0"))
            body, raw = rest[:length], rest[length:]
        answers.append(Answer(int(first.split(" ")[1]), headers, body))
    return answers


def _unchunked(raw: bytes) -> tuple[bytes, bytes]:
    """Join the chunks of one answer; give what follows it, too."""
    body = b""
    while True:
        size, _, raw = raw.partition(b"\r\n")
        length = int(size, 16)
        body, raw = body + raw[:length], raw[length + 2 :]
        if length == 0:
            return body, raw


class Connection:
    """One connection to a server in memory."""

    def __init__(self, channel: Channel) -> None:
        """Connect."""
        self.channel = channel
        self.transport = StringTransport()
        self.transport.abortConnection = self.transport.loseConnection  # type: ignore[method-assign]
        channel.makeConnection(self.transport)

    def send(self, raw: bytes) -> None:
        """Let bytes arrive."""
        self.channel.dataReceived(raw)

    def answers(self) -> list[Answer]:
        """Take what was answered so far."""
        raw = self.transport.value()
        self.transport.clear()
        return split_answers(raw)

    @property
    def closed(self) -> bool:
        """Tell whether the server has hung up."""
        return bool(self.transport.disconnecting)


def request_bytes(
    method: str,
    target: str,
    body: bytes | None = None,
    *,
    token: str | None = None,
    headers: Sequence[tuple[str, str]] = (),
) -> bytes:
    """Write a request."""
    lines = [
        f"{method} {target} HTTP/1.1",
        "Host: plait.test",
        *(f"{name}: {value}" for name, value in headers),
    ]
    if token is not None:
        lines.append(f"Authorization: Bearer {token}")
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + (body or b"")


class MemoryServer:
    """A site over routes, without any network."""

    def __init__(
        self,
        routes: Sequence[Route],
        *,
        tokens: Tokens | None = None,
        servers: Servers | None = None,
        limits: RateLimits = UNLIMITED,
        max_body: int = 1000,
        proxies: Sequence[str] = (),
        bound: int = 100,
        task_clock: TaskClock | None = None,
        limiter: RateLimiter | None = None,
    ) -> None:
        """Serve `routes`."""
        if task_clock is None:
            task_clock = TaskClock()
            task_clock.advance(START)
        self.task_clock = task_clock
        clock = Clock(self.task_clock)
        self.tokens = tokens or KnownTokens()
        self.registry = CollectorRegistry()
        doorkeepers = Doorkeepers(self.tokens, servers or NoServers(), limiter or RateLimiter(limits))
        self.dispatcher = Dispatcher(
            RouteTable(routes), doorkeepers, RequestMetrics(self.registry), clock, bound
        )
        self.site = HttpSite(
            ServerSettings(self.dispatcher, clock, max_body=max_body, proxies=TrustedProxies.of(proxies))
        )

    def connect(self) -> Connection:
        """Open a connection."""
        return Connection(self.site.buildProtocol(None))

    def ask(
        self,
        method: str,
        target: str,
        content: Any = None,
        *,
        token: str | None = None,
        headers: Sequence[tuple[str, str]] = (),
    ) -> Answer:
        """Make one request, with JSON unless it is bytes, that must be answered at once."""
        connection = self.connect()
        body = content if content is None or isinstance(content, bytes) else json.dumps(content).encode()
        connection.send(request_bytes(method, target, body, token=token, headers=headers))
        answers = connection.answers()
        assert len(answers) == 1, answers
        return answers[0]
