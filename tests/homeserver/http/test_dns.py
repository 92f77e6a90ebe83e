"""Tests of looking names up."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.names.dns import Record_A, Record_SRV, RRHeader
from twisted.names.error import DNSNameError, DNSQueryTimeoutError
from twisted.trial.unittest import SynchronousTestCase

from homeserver.http.dns import MAX_ADDRESSES, MAX_SERVICES, Service, SystemResolver


class Hosts:
    """The system's resolver, giving fixed addresses."""

    def __init__(self, *addresses: Any) -> None:
        """Give these."""
        self.addresses = addresses

    def resolveHostName(self, receiver: Any, host: str) -> None:
        """Give the addresses."""
        receiver.resolutionBegan(None)
        for address in self.addresses:
            receiver.addressResolved(address)
        receiver.resolutionComplete()


class Names:
    """A DNS client with one answer."""

    def __init__(self, answer: Deferred[Any]) -> None:
        """Give this."""
        self.answer = answer

    def lookupService(self, name: str, timeout: object) -> Deferred[Any]:
        """Give the answer."""
        return self.answer


def srv(port: int, target: bytes = b"box.example", ttl: int = 60) -> RRHeader:
    """Make an SRV answer."""
    return RRHeader(b"x", type=Record_SRV.TYPE, ttl=ttl, payload=Record_SRV(10, 5, port, target, ttl))


class SystemResolverTests(SynchronousTestCase):
    """The resolver of a running server."""

    def _addresses(self, *addresses: Any) -> Any:
        resolver: Any = SystemResolver(Hosts(*addresses), Names(succeed(None)))  # type: ignore[arg-type]
        return self.successResultOf(Deferred.fromCoroutine(resolver.addresses("x")))

    def _services(self, answer: Deferred[Any]) -> Any:
        resolver: Any = SystemResolver(Hosts(), Names(answer))  # type: ignore[arg-type]
        return self.successResultOf(Deferred.fromCoroutine(resolver.services("_matrix._tcp.x")))

    def test_addresses(self) -> None:
        """Both families, each once, not too many; none for an unknown name."""
        four, six = IPv4Address("TCP", "1.1.1.1", 0), IPv6Address("TCP", "2606::1", 0)
        self.assertEqual(self._addresses(four, six, four), ["1.1.1.1", "2606::1"])
        many = [IPv4Address("TCP", f"1.1.1.{number}", 0) for number in range(50)]
        self.assertEqual(len(self._addresses(*many)), MAX_ADDRESSES)
        self.assertEqual(self._addresses(), [])

    def test_services(self) -> None:
        """SRV records alone, not too many; odd ones are left out (security: D6)."""
        other = RRHeader(b"x", type=Record_A.TYPE, ttl=1, payload=Record_A("1.1.1.1"))
        answers = [srv(1), other, srv(2, b"."), srv(3, b"\xff.example")]
        found = self._services(succeed((answers, [], [])))
        self.assertEqual(found, (Service("box.example", 1, 10, 5, 60), Service(".", 2, 10, 5, 60)))
        many = [srv(number) for number in range(100)]
        self.assertEqual(len(self._services(succeed((many, [], [])))), MAX_SERVICES)

    def test_names_that_cannot_be_looked_up(self) -> None:
        """They have neither addresses nor services; nobody is asked, for nobody would answer."""
        address = IPv4Address("TCP", "1.1.1.1", 0)
        names = Names(succeed(([srv(1)], [], [])))
        resolver: Any = SystemResolver(Hosts(address), names)  # type: ignore[arg-type]
        for name, known in (
            ("a.example", True),
            ("a.example.", True),
            ("a" * 63 + ".example", True),
            ("a" * 64 + ".example", False),
            ("a..example", False),
            (".", False),
            (".".join(["a" * 60] * 5), False),
        ):
            addresses = self.successResultOf(Deferred.fromCoroutine(resolver.addresses(name)))
            services = self.successResultOf(Deferred.fromCoroutine(resolver.services(f"_matrix._tcp.{name}")))
            self.assertEqual((bool(addresses), bool(services)), (known, known), name)

    def test_a_name_without_services_is_no_error(self) -> None:
        """Neither is a DNS server that does not answer."""
        for error in (DNSNameError(), DNSQueryTimeoutError(5), TimeoutError(), OSError()):
            self.assertEqual(self._services(fail(error)), ())
