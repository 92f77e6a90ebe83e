"""From a server name to the places where that server is, and the names to use towards it.

The name in the Host header, in SNI and on the certificate is the server name itself, or the one that
`.well-known` delegates to; never the target of an SRV record. An explicit port or an IP literal switches
`.well-known` and SRV off.

Source: server-server-api.md, "Resolving server names".
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from random import SystemRandom

from attrs import define, field, frozen

from federation.server_names import DEFAULT_PORT, HostPort, take_apart
from federation.well_known import WellKnown
from homeserver.clock import Clock
from homeserver.http.dialing import Place
from homeserver.http.dns import Resolver, Service
from homeserver.http.outbound_errors import CannotConnect
from protocol.identifiers import ServerName

SERVICES = ("_matrix-fed._tcp.", "_matrix._tcp.")
"""SRV names in the order they are tried; the second is deprecated and still in use."""
MAX_TARGETS = 4
"""SRV targets tried for one request."""
MIN_TTL = 60_000
MAX_TTL = 3_600_000
NEGATIVE_TTL = 300_000
"""Milliseconds for which a name without SRV records is not looked up again."""
MAX_KNOWN = 10_000


@frozen
class Located:
    """Where a server is: places to try in order, and the Host header for all of them."""

    places: tuple[Place, ...]
    host_header: str


@define
class Discovery:
    """Finds servers."""

    well_known: WellKnown
    resolver: Resolver
    clock: Clock
    random: SystemRandom
    _services: OrderedDict[str, tuple[int, Sequence[Service]]] = field(factory=OrderedDict, init=False)

    async def locate(self, server: ServerName) -> Located:
        """Find `server`; raises CannotConnect if its DNS says that it offers no such service."""
        name = take_apart(server)
        if name.is_literal or name.port is not None:
            return _direct(server, name)
        delegate = await self.well_known.delegate(name.host)
        if delegate is None:
            return await self._by_services(server, name.host)
        delegated = take_apart(delegate)
        if delegated.is_literal or delegated.port is not None:
            return _direct(delegate, delegated)
        return await self._by_services(delegate, delegated.host)

    async def _by_services(self, name: ServerName, host: str) -> Located:
        """Look for SRV records of `host`, else take port 8448."""
        services = await self._services_of(host)
        if not services:
            return Located((Place(host, DEFAULT_PORT, host),), name)
        ordered = in_order(services, self.random)[:MAX_TARGETS]
        places = tuple(Place(one.host, one.port, host) for one in ordered if one.host != "." and one.port)
        if not places:
            raise CannotConnect(f"{host} offers no federation service")
        return Located(places, name)

    async def _services_of(self, host: str) -> Sequence[Service]:
        """Give the SRV records of `host`, as remembered or as DNS says."""
        known = self._services.get(host)
        now = self.clock.now_ms()
        if known is not None and known[0] > now:
            return known[1]
        found: Sequence[Service] = ()
        for prefix in SERVICES:
            found = await self.resolver.services(prefix + host)
            if found:
                break
        life = min((one.ttl * 1000 for one in found), default=NEGATIVE_TTL)
        self._services[host] = (now + max(MIN_TTL, min(life, MAX_TTL)), found)
        self._services.move_to_end(host)
        if len(self._services) > MAX_KNOWN:
            self._services.popitem(last=False)
        return found


def _direct(name: ServerName, parts: HostPort) -> Located:
    """Give the place that a name with a literal or a port states by itself."""
    place = Place(parts.bare_host, parts.port or DEFAULT_PORT, parts.bare_host)
    return Located((place,), name)


def in_order(services: Sequence[Service], random: SystemRandom) -> list[Service]:
    """Order SRV records: by priority, and within one by weighted chance.

    Source: RFC 2782, "Weight".
    """
    ordered: list[Service] = []
    for priority in sorted({one.priority for one in services}):
        rest = sorted((one for one in services if one.priority == priority), key=lambda one: one.weight)
        while rest:
            mark = random.randint(0, sum(one.weight for one in rest))
            for one in rest:
                mark -= one.weight
                if mark <= 0:
                    break
            rest.remove(one)
            ordered.append(one)
    return ordered
