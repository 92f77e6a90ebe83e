"""Names to addresses and services: the resolver that the outbound agent and discovery are given.

Addresses come from the system's resolver on a thread, so `/etc/hosts` and its caching hold; SRV records
come from `twisted.names` with short timeouts and a bound on the records kept. Judging addresses is not
done here (`addresses.py`).

Source: RFC 2782 (SRV).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import IAddress, IHostResolution, IResolutionReceiver
from twisted.names.client import Resolver as NamesResolver
from twisted.names.dns import Record_SRV, RRHeader
from twisted.names.error import DNSQueryTimeoutError, DomainError
from zope.interface import implementer

MAX_ADDRESSES = 8
"""Addresses of one name that are ever tried."""
MAX_SERVICES = 16
"""SRV records of one name that are looked at."""
MAX_NAME = 253
"""Bytes of a name."""
_SRV_TIMEOUTS = (1, 3)


@frozen
class Service:
    """One SRV record: a host and port with its rank (`priority`, lower first) and share (`weight`)."""

    host: str
    port: int
    priority: int
    weight: int
    ttl: int


class Resolver(Protocol):
    """Look names up. Tests hand in a table."""

    async def addresses(self, host: str) -> Sequence[str]:
        """Give the IPv4 and IPv6 addresses of `host`; none if it does not exist."""
        ...

    async def services(self, name: str) -> Sequence[Service]:
        """Give the SRV records of `name`; none if there are none or DNS does not answer."""
        ...


@implementer(IResolutionReceiver)
@define
class _Collector:
    """Gathers the addresses of one look-up."""

    done: Deferred[list[str]]
    found: list[str] = field(factory=list)

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        """Note nothing: a look-up cannot be taken back."""

    def addressResolved(self, address: IAddress) -> None:
        """Keep one address."""
        host: str = getattr(address, "host", "")
        if host and host not in self.found:
            self.found.append(host)

    def resolutionComplete(self) -> None:
        """Hand over what was found."""
        if not self.done.called:
            self.done.callback(self.found[:MAX_ADDRESSES])


@frozen
class SystemResolver:
    """The system's resolver for addresses, `twisted.names` for SRV."""

    hosts: Any
    """The reactor's `nameResolver` (IHostnameResolver)."""
    names: NamesResolver

    async def addresses(self, host: str) -> Sequence[str]:
        """Give the IPv4 and IPv6 addresses of `host`; none if it does not exist."""
        if not _is_dns_name(host):
            return ()
        done: Deferred[list[str]] = Deferred()
        self.hosts.resolveHostName(_Collector(done), host)
        return await done

    async def services(self, name: str) -> Sequence[Service]:
        """Give the SRV records of `name`; none if there are none or DNS does not answer."""
        if not _is_dns_name(name):
            return ()
        try:
            answers, _, _ = await self.names.lookupService(name, _SRV_TIMEOUTS)
        except (DomainError, DNSQueryTimeoutError, DNSLookupError, TimeoutError, OSError, ValueError):
            return ()
        return tuple(filter(None, map(_service_of, answers[:MAX_SERVICES])))


def _is_dns_name(text: str) -> bool:
    """Tell whether a name can be looked up; one that cannot would keep the system's resolver from answering.

    Source: RFC 1035, 2.3.4 (labels of 1 to 63 bytes, 253 in all).
    """
    try:
        return len(text.encode("idna")) <= MAX_NAME
    except UnicodeError:
        return False


def _service_of(answer: RRHeader) -> Service | None:
    """Read one answer, or None if it is no SRV record."""
    record = answer.payload
    if not isinstance(record, Record_SRV):
        return None
    try:
        host = record.target.name.decode("ascii")
    except UnicodeDecodeError:
        return None
    return Service(host.rstrip(".") or ".", record.port, record.priority, record.weight, answer.ttl or 0)
