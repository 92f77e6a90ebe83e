"""TLS towards other servers: one context for all connections, and the check that the certificate is theirs.

The name to be proved is given per connection: a DNS name goes into SNI and is matched against DNS SANs,
an IP literal is matched against IP SANs and never sent as SNI. Whatever goes wrong while checking counts
as a refusal.

Source: server-server-api.md, "Resolving server names"; RFC 9525 (service identity); RFC 6066 (SNI).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attrs import frozen
from OpenSSL import SSL
from OpenSSL.crypto import X509
from service_identity import CertificateError, VerificationError
from service_identity.hazmat import DNS_ID, IPAddress_ID, ServiceID, verify_service_identity
from service_identity.pyopenssl import extract_patterns
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import CertificateOptions, TLSVersion, platformTrust
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from homeserver.http.addresses import parse_literal


class BadCaFile(Exception):
    """A file of certificate authorities cannot be used."""


@frozen
class OutboundTls:
    """The context shared by all outgoing TLS connections, and whether certificates are checked."""

    context: SSL.Context
    verify: bool

    @classmethod
    def of(cls, extra_ca_files: Sequence[Path], verify: bool) -> OutboundTls:
        """Trust the system's CAs and those in the given PEM files; `verify` off is for test networks.

        Raises:
            BadCaFile: a file cannot be read, or holds no certificate.
        """
        options = CertificateOptions(
            trustRoot=platformTrust() if verify else None,
            raiseMinimumTo=TLSVersion.TLSv1_2,
            acceptableProtocols=[b"http/1.1"],
        )
        context = options.getContext()
        for file in extra_ca_files:
            try:
                context.load_verify_locations(file)
            except SSL.Error as error:
                raise BadCaFile(f"{file}: cannot be read as certificates in PEM") from error
        return cls(context, verify)

    def towards(self, name: str) -> Any:
        """Give what makes connections whose peer must prove to be `name` (a DNS name or an IP literal)."""
        literal = parse_literal(name)
        return ConnectionCreator(self, name if literal is None else str(literal), literal is not None)


@implementer(IOpenSSLClientConnectionCreator)
@frozen
class ConnectionCreator:
    """Makes TLS connections whose peer must prove one name."""

    tls: OutboundTls
    name: str
    is_address: bool

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """Give a connection that sends the right SNI and refuses any other certificate."""
        connection = SSL.Connection(self.tls.context, None)
        if not self.is_address:
            connection.set_tlsext_host_name(self.name.encode("idna" if not self.name.isascii() else "ascii"))
        if self.tls.verify:
            connection.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, self._is_trusted)
        return connection

    def _is_trusted(self, connection: SSL.Connection, leaf: X509, error: int, depth: int, ok: int) -> bool:
        """Judge one certificate of the chain: the chain by OpenSSL, the leaf by its names as well."""
        if not ok:
            return False
        if depth != 0:
            return True
        try:
            wanted: ServiceID = IPAddress_ID(self.name) if self.is_address else DNS_ID(self.name)
            verify_service_identity(extract_patterns(leaf), [wanted], [])
        except (VerificationError, CertificateError, ValueError, TypeError):
            return False
        return True
