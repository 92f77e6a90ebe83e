"""Taking a server name apart.

Source: appendices.md, "Server Name".
"""

from __future__ import annotations

from attrs import frozen

from protocol.errors import InvalidParam
from protocol.identifiers import ServerName, is_ip_literal, parse_server_name, split_server_name

DEFAULT_PORT = 8448


@frozen
class HostPort:
    """A host as it stands in a server name (IPv6 in brackets), and its port if one is given."""

    host: str
    port: int | None

    @property
    def is_literal(self) -> bool:
        """Tell whether the host is an IP literal."""
        return is_ip_literal(self.host)

    @property
    def bare_host(self) -> str:
        """Give the host without brackets."""
        return self.host.strip("[]")


def take_apart(name: ServerName) -> HostPort:
    """Split a valid server name; raises InvalidParam for a port that is none."""
    host, port = split_server_name(name)
    if port is not None and not 0 < port < 65536:
        raise InvalidParam("the port of a server name must lie between 1 and 65535")
    return HostPort(host, port)


def read_server_name(text: object) -> ServerName:
    """Give `text` as a server name whose port can be dialled; raises InvalidParam."""
    name = parse_server_name(text)
    take_apart(name)
    return name
