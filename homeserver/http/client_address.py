"""The address a request really comes from, behind proxies that are trusted by name.

Source: RFC 7239, section 7.4 (for `X-Forwarded-For`); security L10.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from attrs import frozen

_IPV6_PREFIX = 64


@frozen(eq=False)
class TrustedProxies:
    """Proxies whose word on the client's address is believed."""

    networks: tuple[IPv4Network | IPv6Network, ...] = ()

    @classmethod
    def of(cls, networks: Sequence[str]) -> TrustedProxies:
        """Read addresses or networks in CIDR form; raises ValueError."""
        return cls(tuple(ip_network(each, strict=False) for each in networks))

    def client_address(self, peer: str, forwarded: Sequence[bytes]) -> str:
        """Give the client's address: the rightmost hop that is no trusted proxy.

        `peer` is the other end of the connection, `forwarded` the `X-Forwarded-For` headers in order.
        """
        if not self.networks or not self._trusts(peer):
            return peer
        hops = [hop.strip() for header in forwarded for hop in header.decode("latin-1").split(",")]
        client = peer
        for hop in reversed(hops):
            address = _parse(hop)
            if address is None:
                return client
            client = address
            if not self._trusts(address):
                return client
        return client

    def _trusts(self, text: str) -> bool:
        try:
            address = ip_address(text)
        except ValueError:
            return False
        mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
        return any((mapped or address) in network for network in self.networks)


def _parse(hop: str) -> str | None:
    """Give a hop's address in its usual form; None for what is none."""
    try:
        return str(ip_address(hop))
    except ValueError:
        return None


def address_key(address: str) -> str:
    """Give the name under which an address is counted: an IPv6 customer has a whole /64 (security L9)."""
    if ":" not in address:
        return address
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ip_network(f"{parsed}/{_IPV6_PREFIX}", strict=False))
