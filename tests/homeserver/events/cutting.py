"""A proxy on the way to PostgreSQL that cuts the wire at a COMMIT, before it arrives or before its answer."""

from __future__ import annotations

from enum import Enum
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint, UNIXServerEndpoint, connectProtocol
from twisted.internet.interfaces import IAddress, IListeningPort
from twisted.internet.protocol import Factory, Protocol

COMMIT = b"COMMIT\x00"
"""How a simple query that commits ends, as PostgreSQL's protocol writes it."""


class Cut(Enum):
    """What happens to the next COMMIT."""

    NOT = "it passes"
    BEFORE = "it never reaches the server"
    AFTER = "the server does it, and its answer is lost"


class CuttingProxy(Factory):
    """Pass connections on to the server whose socket is in `folder`."""

    def __init__(self, folder: Path) -> None:
        """Cut nothing at first."""
        self.socket = folder / ".s.PGSQL.5432"
        self.cut = Cut.NOT
        self.cuts = 0

    async def listen(self, folder: Path) -> IListeningPort:
        """Take connections on a socket in `folder`, which stands for the server's."""
        endpoint = UNIXServerEndpoint(reactor, str(folder / ".s.PGSQL.5432"))
        port: IListeningPort = await endpoint.listen(self)
        return port

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        """Serve one connection."""
        return _ClientSide(self)


class _ClientSide(Protocol):
    def __init__(self, proxy: CuttingProxy) -> None:
        self.proxy = proxy
        self.server: _ServerSide | None = None
        self.early: list[bytes] = []
        self.answer_is_lost = False

    def connectionMade(self) -> None:
        endpoint = UNIXClientEndpoint(reactor, str(self.proxy.socket))
        connecting: Deferred[_ServerSide] = connectProtocol(endpoint, _ServerSide(self))
        connecting.addCallback(self.connected_to)

    def connected_to(self, server: _ServerSide) -> None:
        self.server = server
        for data in self.early:
            self.pass_on(data)

    def dataReceived(self, data: bytes) -> None:
        if self.server is None:
            self.early.append(data)
        else:
            self.pass_on(data)

    def pass_on(self, data: bytes) -> None:
        assert self.server is not None
        if data.endswith(COMMIT) and self.proxy.cut is not Cut.NOT:
            self.answer_is_lost = self.proxy.cut is Cut.AFTER
            self.proxy.cut = Cut.NOT
            self.proxy.cuts += 1
            if not self.answer_is_lost:
                self.server.transport.abortConnection()
                self.transport.abortConnection()
                return
        self.server.transport.write(data)

    def connectionLost(self, reason: object = None) -> None:
        if self.server is not None:
            self.server.transport.loseConnection()


class _ServerSide(Protocol):
    def __init__(self, client: _ClientSide) -> None:
        self.client = client

    def dataReceived(self, data: bytes) -> None:
        if self.client.answer_is_lost:
            self.client.transport.abortConnection()
        else:
            self.client.transport.write(data)

    def connectionLost(self, reason: object = None) -> None:
        self.client.transport.loseConnection()
