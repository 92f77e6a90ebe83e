"""Dialling: from a host name to an open connection, with every address judged before it is used.

The addresses are resolved once and those very addresses are dialled, so a second DNS answer cannot
differ from the checked one. Several addresses are tried with a small stagger; the first to connect wins.

Source: RFC 8305 (the stagger).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint
from zope.interface import implementer

from homeserver.clock import Clock
from homeserver.http.addresses import IpPolicy, parse_literal
from homeserver.http.dns import MAX_ADDRESSES, Resolver
from homeserver.http.outbound_errors import AddressRefused, CannotConnect
from homeserver.http.outbound_tls import OutboundTls
from homeserver.staggered import NoneGood, first_good

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
        attempts = [partial(self._plain(address).connect, factory) for address in addresses]
        try:
            return await first_good(Clock(self.dialer.reactor), attempts, STAGGER, too_late=_drop)
        except NoneGood as none:
            raise none.failures[-1] from none

    def _plain(self, address: str) -> Endpoint:
        """Give the endpoint of one judged address."""
        kind = TCP6ClientEndpoint if ":" in address else TCP4ClientEndpoint
        return kind(self.dialer.reactor, address, self.place.port, CONNECT_TIMEOUT)


def _drop(connection: Connection) -> None:
    """Close a connection that came after another."""
    connection.transport.abortConnection()
