"""Which IP addresses this server may dial: the deny-list, applied to what a name resolved to.

An IPv6 address that carries an IPv4 address inside (mapped, compatible, 6to4, NAT64, Teredo, ISATAP) is
judged by the inner one as well, so no spelling of a private address slips through. Knows nothing of
names, sockets or DNS.

Source: RFC 4291, RFC 3056, RFC 6052, RFC 8215, RFC 4380, RFC 5214 (how IPv4 hides in IPv6).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from attrs import frozen

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_NAT64 = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"))
_COMPATIBLE = IPv6Network("::/96")
_ISATAP_MARKS = (0x00005EFE, 0x02005EFE)


def parse_literal(host: str) -> Address | None:
    """Give the address that `host` spells, or None if it is a name; brackets around IPv6 are allowed."""
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        return _parse(host) if ":" in host else None
    return _parse(host)


def _parse(text: str) -> Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def _inner(address: IPv6Address) -> Iterator[IPv4Address]:
    """Give the IPv4 addresses that an IPv6 address carries."""
    low = IPv4Address(int(address) & 0xFFFFFFFF)
    if address.ipv4_mapped is not None:
        yield address.ipv4_mapped
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo
    if any(address in network for network in _NAT64):
        yield low
    if address in _COMPATIBLE and int(address) > 1:
        yield low
    if int(address) >> 32 & 0xFFFFFFFF in _ISATAP_MARKS:
        yield low


@frozen
class IpPolicy:
    """What may be dialled: all that is not denied; the allow-list wins over the deny-list."""

    denied: tuple[Network, ...]
    allowed: tuple[Network, ...]

    @classmethod
    def of(cls, denied: Iterable[str], allowed: Iterable[str]) -> IpPolicy:
        """Read the ranges of the configuration; ValueError names a range that is none."""
        return cls(tuple(map(ip_network, denied)), tuple(map(ip_network, allowed)))

    def permits(self, text: str) -> bool:
        """Tell whether the address may be dialled; what does not parse, or is bound to a link, may not."""
        address = _parse(text)
        if address is None or (isinstance(address, IPv6Address) and address.scope_id is not None):
            return False
        if _is_in(address, self.allowed):
            return True
        forms: list[Address] = [address]
        if isinstance(address, IPv6Address):
            inner = list(_inner(address))
            if address.ipv4_mapped is not None and _is_in(address.ipv4_mapped, self.allowed):
                return True
            forms += inner
        return not any(_is_in(form, self.denied) for form in forms)


def _is_in(address: Address, networks: tuple[Network, ...]) -> bool:
    return any(address in network for network in networks)
