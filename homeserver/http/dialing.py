"""Dialling: from a host name to an open connection, with every address judged before it is used.

The addresses are resolved once and those very addresses are dialled, so a second DNS answer cannot
differ from the checked one. Several addresses are tried with a small stagger; the first to connect wins.

Source: RFC 8305 (the stagger).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.python.failure import Failure
from zope.interface import implementer

from homeserver.http.addresses import IpPolicy, parse_literal
from homeserver.http.dns import MAX_ADDRESSES, Resolver
from homeserver.http.outbound_errors import AddressRefused, CannotConnect
from homeserver.http.outbound_tls import OutboundTls

CONNECT_TIMEOUT = 10
"""Seconds for one address."""
STAGGER = 0.3
"""Seconds before the next address is tried beside the ones under way."""

Endpoint = Any
"""What provides IStreamClientEndpoint; zope's interfaces say nothing to the type checker."""
Factory = Any
"""What provides IProtocolFactory."""
Connection = Any
"""What provides IProtocol."""


@frozen
class Place:
    """Where to connect: a host (name or IP literal) and port, and the name TLS must prove (None: no TLS)."""

    host: str
    port: int
    tls_name: str | None


@frozen
class Dialer:
    """Opens connections, keeping to the address policy."""

    reactor: Any
    resolver: Resolver
    policy: IpPolicy
    tls: OutboundTls

    def endpoint(self, place: Place) -> Endpoint:
        """Give an endpoint that resolves, judges and dials when it is asked to connect."""
        checked: Endpoint = _CheckedEndpoint(self, place)
        if place.tls_name is None:
            return checked
        return wrapClientTLS(self.tls.towards(place.tls_name), checked, clock=self.reactor)

    async def permitted_addresses(self, host: str) -> Sequence[str]:
        """Give the addresses of `host` that may be dialled; raises AddressRefused, CannotConnect if none."""
        literal = parse_literal(host)
        found = (str(literal),) if literal is not None else await self.resolver.addresses(host)
        permitted = [address for address in found if self.policy.permits(address)]
        if not found:
            raise CannotConnect(f"{host} has no address")
        if not permitted:
            raise AddressRefused(f"{host} has no address that may be contacted")
        return permitted[:MAX_ADDRESSES]


@implementer(IStreamClientEndpoint)
@frozen
class _CheckedEndpoint:
    """Connects to one place through its dialer."""

    dialer: Dialer
    place: Place

    def connect(self, protocolFactory: Factory) -> Deferred[Connection]:
        """Open a connection; fails with OutboundError."""
        return Deferred.fromCoroutine(self._connect(protocolFactory))

    async def _connect(self, factory: Factory) -> Connection:
        addresses = await self.dialer.permitted_addresses(self.place.host)
        race = _Race(self.dialer.reactor, [self._plain(address) for address in addresses], factory)
        return await race.run()

    def _plain(self, address: str) -> Endpoint:
        """Give the endpoint of one judged address."""
        kind = TCP6ClientEndpoint if ":" in address else TCP4ClientEndpoint
        return kind(self.dialer.reactor, address, self.place.port, CONNECT_TIMEOUT)


class _Race:
    """Connection attempts with a stagger; the first that succeeds cancels the others."""

    def __init__(self, reactor: Any, endpoints: list[Endpoint], factory: Factory) -> None:
        """Prepare attempts to `endpoints`, in order."""
        self._reactor = reactor
        self._waiting = endpoints[::-1]
        self._factory = factory
        self._running: list[Deferred[Connection]] = []
        self._timer: Any = None
        self._result: Deferred[Connection] = Deferred(lambda _: self._stop())
        self._last: Failure | None = None

    def run(self) -> Deferred[Connection]:
        """Start, and give the connection that comes first."""
        self._next()
        return self._result

    def _next(self) -> None:
        """Start one more attempt, and the timer for the one after it."""
        self._timer = None
        if self._result.called:
            return
        if not self._waiting:
            if not self._running:
                self._result.errback(self._last or Failure(CannotConnect("no address left")))
            return
        attempt = self._waiting.pop().connect(self._factory)
        self._running.append(attempt)
        if self._waiting:
            self._timer = self._reactor.callLater(STAGGER, self._next)
        attempt.addCallbacks(self._won, self._lost, callbackArgs=(attempt,), errbackArgs=(attempt,))

    def _won(self, connection: Connection, attempt: Deferred[Connection]) -> None:
        self._running.remove(attempt)
        if self._result.called:
            connection.transport.abortConnection()
            return
        self._result.callback(connection)
        self._stop()

    def _lost(self, failure: Failure, attempt: Deferred[Connection]) -> None:
        self._running.remove(attempt)
        self._last = failure
        if self._timer is not None:
            self._timer.cancel()
        self._next()

    def _stop(self) -> None:
        """Give up whatever is still under way."""
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for attempt in list(self._running):
            attempt.cancel()
