"""Listeners: which port serves which routes, with or without TLS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from attrs import frozen
from OpenSSL import SSL, crypto
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.ssl import Certificate, CertificateOptions, KeyPair, TLSVersion
from twisted.logger import Logger

from homeserver.clock import Clock
from homeserver.config.sections import Config, Listener, ListenerResource, ListenerTls
from homeserver.http.client_address import TrustedProxies
from homeserver.http.dispatch import Dispatcher, Doorkeepers
from homeserver.http.metrics import RequestMetrics
from homeserver.http.request import ServerSettings
from homeserver.http.routing import Route, RouteTable
from homeserver.http.site import HttpSite

_log = Logger()
_BACKLOG = 512


class ListeningPort(Protocol):
    """An open port of the reactor."""

    def stopListening(self) -> Deferred[None] | None:
        """Close it."""
        ...


class CannotListen(Exception):
    """A listener cannot be opened; the message names it."""


@frozen(eq=False)
class Doors:
    """What all listeners share."""

    doorkeepers: Doorkeepers
    metrics: RequestMetrics
    clock: Clock
    routes: Mapping[ListenerResource, Sequence[Route]]
    """What each resource serves."""


def open_listeners(config: Config, folder: Path, doors: Doors, reactor: Any) -> list[ListeningPort]:
    """Open all listeners of the configuration.

    Raises:
        CannotListen: a port is taken, or a certificate cannot be read.
    """
    ports: list[ListeningPort] = []
    for listener in config.listeners:
        site = HttpSite(_settings(config, listener, doors))
        for address in listener.bind:
            ports.append(_open(listener, address, folder, site, reactor))
    return ports


async def close_listeners(ports: Sequence[ListeningPort]) -> None:
    """Take no more connections."""
    for port in ports:
        stopped = port.stopListening()
        if stopped is not None:
            await stopped


def _settings(config: Config, listener: Listener, doors: Doors) -> ServerSettings:
    routes = [route for resource in listener.resources for route in doors.routes.get(resource, ())]
    dispatcher = Dispatcher(
        RouteTable(routes), doors.doorkeepers, doors.metrics, doors.clock, config.limits.requests_waiting
    )
    return ServerSettings(
        dispatcher,
        doors.clock,
        max_body=config.limits.body_bytes,
        proxies=TrustedProxies.of(listener.trusted_proxies),
        query_tokens=config.auth.query_tokens,
        compress=listener.compress,
    )


def _open(listener: Listener, address: str, folder: Path, site: HttpSite, reactor: Any) -> ListeningPort:
    name = f"{address}:{listener.port}"
    try:
        if listener.tls is None:
            port = reactor.listenTCP(listener.port, site, _BACKLOG, address)
        else:
            context = _tls(listener.tls, folder)
            port = reactor.listenSSL(listener.port, site, context, _BACKLOG, address)
    except (OSError, SSL.Error, crypto.Error, CannotListenError) as error:
        raise CannotListen(f"the listener on {name} cannot be opened: {error}") from error
    resources = ", ".join(listener.resources)
    _log.info("listening on {name} ({what})", name=name, what=resources)
    opened: ListeningPort = port
    return opened


def _tls(tls: ListenerTls, folder: Path) -> CertificateOptions:
    """Read certificate chain and key; paths are relative to the folder of the configuration."""
    chain = (folder / tls.certificate).read_bytes()
    key = (folder / tls.private_key).read_bytes()
    end = b"-----END CERTIFICATE-----"
    pems = [part + end for part in chain.split(end)[:-1]]
    if not pems:
        raise CannotListen(f"{tls.certificate}: holds no certificate")
    certificates = [Certificate.loadPEM(pem).original for pem in pems]
    return CertificateOptions(
        privateKey=KeyPair.load(key, crypto.FILETYPE_PEM).original,
        certificate=certificates[0],
        extraCertChain=certificates[1:] or None,
        raiseMinimumTo=TLSVersion.TLSv1_2,
        acceptableProtocols=[b"http/1.1"],
    )
