"""A network in memory: a reactor whose connections lead to servers registered by address, with real TLS.

Everything moves only when `settle` is called; time moves only by `advance`.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from attrs import define, field, frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import crypto
from twisted.internet import ssl, task
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.protocol import Factory
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.test import iosim
from twisted.web.resource import Resource
from twisted.web.server import Site

from homeserver.http.dns import Service

T = TypeVar("T")


class MemoryNetwork(task.Clock):
    """A reactor with a clock and TCP, whose connections stay in this process."""

    def __init__(self) -> None:
        """Begin without servers, at a fixed time."""
        super().__init__()
        self.rightNow = 1_700_000_000.0
        self.servers: dict[tuple[str, int], Factory] = {}
        self.dialled: list[tuple[str, int]] = []
        self._pumps: list[iosim.IOPump] = []

    def connectTCP(
        self, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: object = None
    ) -> Any:
        """Connect to a registered server, or be refused."""
        self.dialled.append((host, port))
        connector = _Connector(host, port)
        server = self.servers.get((host, port))
        factory.doStart()
        if server is None:
            self.callLater(0, factory.clientConnectionFailed, connector, Failure(Refused()))
        else:
            self.callLater(0, self._connect, factory, server)
        return connector

    def listen(self, host: str, port: int, factory: Factory) -> None:
        """Put a server at an address."""
        self.servers[host, port] = factory

    def settle(self) -> None:
        """Let everything move that can move without time passing."""
        for _ in range(10_000):
            moved = sum(bool(pump.pump()) for pump in list(self._pumps))
            due = [call for call in self.getDelayedCalls() if call.getTime() <= self.seconds()]
            if not moved and not due:
                return
            self.advance(0)
        raise AssertionError("the network does not come to rest")

    def outcome(self, work: Coroutine[Any, Any, T] | Deferred[T], seconds: float = 0) -> T:
        """Run `work` to its end, moving time by up to `seconds`, and give its result or raise its failure."""
        deferred = work if isinstance(work, Deferred) else Deferred.fromCoroutine(work)
        done: list[Any] = []
        deferred.addBoth(done.append)
        self.settle()
        waited = 0.0
        while not done and waited < seconds:
            self.advance(0.5)
            waited += 0.5
            self.settle()
        if not done:
            raise AssertionError("the work has not ended")
        if isinstance(done[0], Failure):
            done[0].raiseException()
        return done[0]  # type: ignore[no-any-return]

    def _connect(self, client_factory: Any, server_factory: Factory) -> None:
        address = IPv4Address("TCP", "198.51.100.1", 40_000)
        server = server_factory.buildProtocol(address)
        client = client_factory.buildProtocol(address)
        self._pumps.append(
            iosim.connect(
                server,
                iosim.FakeTransport(server, isServer=True),
                client,
                iosim.FakeTransport(client, isServer=False),
            )
        )


@frozen
class _Connector:
    """What connectTCP gives back."""

    host: str
    port: int

    def stopConnecting(self) -> None:
        """Do nothing."""

    def getDestination(self) -> IPv4Address:
        """Give the address dialled."""
        return IPv4Address("TCP", self.host, self.port)


@define
class TableResolver:
    """A resolver that answers from tables."""

    hosts: dict[str, list[str]] = field(factory=dict)
    records: dict[str, list[Service]] = field(factory=dict)
    asked: list[str] = field(factory=list)

    async def addresses(self, host: str) -> Sequence[str]:
        """Give the addresses in the table."""
        self.asked.append(host)
        return self.hosts.get(host, [])

    async def services(self, name: str) -> Sequence[Service]:
        """Give the SRV records in the table."""
        self.asked.append(name)
        return self.records.get(name, [])


@frozen
class Answer:
    """What a test server answers."""

    status: int = 200
    body: bytes = b"{}"
    headers: Mapping[str, str] = {}


@frozen
class Asked:
    """What a test server was asked."""

    method: str
    uri: str
    headers: Mapping[str, str]
    body: bytes


class _Leaf(Resource):
    isLeaf = True

    def __init__(self, handler: Callable[[Asked], Answer]) -> None:
        super().__init__()
        self._handler = handler

    def render(self, request: Any) -> bytes:
        headers = {
            name.decode().lower(): values[0].decode()
            for name, values in request.requestHeaders.getAllRawHeaders()
        }
        asked = Asked(request.method.decode(), request.uri.decode(), headers, request.content.read())
        answer = self._handler(asked)
        request.setResponseCode(answer.status)
        for name, value in answer.headers.items():
            request.setHeader(name, value)
        return answer.body


def site(network: MemoryNetwork, handler: Callable[[Asked], Answer]) -> Site:
    """Give a web server that answers by `handler`."""
    made = Site(_Leaf(handler), reactor=network)
    made.displayTracebacks = False
    return made


class Authority:
    """A certificate authority for one test; `pem` is the file that makes it trusted."""

    def __init__(self, directory: Path, clock: MemoryNetwork) -> None:
        """Make its key and certificate."""
        self._clock = clock
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Plait test CA")])
        certificate = (
            self._begin(self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        directory.mkdir(parents=True, exist_ok=True)
        self.pem = directory / "ca.pem"
        self.pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def tls(self, factory: Factory, *names: str, expired: bool = False, bare: bool = False) -> Factory:
        """Wrap a server in TLS with a certificate for names and IP addresses; `bare`: with no SAN at all."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, names[0])])
        builder = self._begin(subject, key.public_key(), expired)
        if not bare:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False
            )
        certificate = builder.sign(self._key, hashes.SHA256())
        options = ssl.CertificateOptions(
            privateKey=crypto.PKey.from_cryptography_key(key),
            certificate=crypto.X509.from_cryptography(certificate),
        )
        return TLSMemoryBIOFactory(options, False, factory, clock=self._clock)

    def _begin(self, subject: x509.Name, public: Any, expired: bool = False) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        end = now - datetime.timedelta(days=1) if expired else now + datetime.timedelta(days=1)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=2))
            .not_valid_after(end)
        )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
