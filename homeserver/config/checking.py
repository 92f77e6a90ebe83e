"""What the types of the configuration cannot say: values that must fit each other or a grammar."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from attrs import frozen

from homeserver.config.sections import Config, JwtAlgorithm, RegistrationMode
from protocol.errors import MatrixError
from protocol.identifiers import parse_server_name, parse_user_id, server_of
from protocol.room_versions import ROOM_VERSIONS

_SAMPLE_SECRETS = frozenset({"changeme", "change-me", "secret", "password"})


@frozen
class Problem:
    """One mistake: the dotted key it is at, and what is wrong."""

    key: str
    message: str


def check(config: Config) -> Problem | None:
    """Find the first mistake, or None."""
    return next(_problems(config), None)


def _problems(config: Config) -> Iterator[Problem]:
    yield from _names(config)
    yield from _listeners(config)
    yield from _database(config)
    yield from _registration(config)
    yield from _networks(config)
    yield from _federation(config)


def _names(config: Config) -> Iterator[Problem]:
    try:
        parse_server_name(config.server_name)
    except MatrixError as error:
        yield Problem("server_name", error.error)
    if config.public_baseurl is not None and not config.public_baseurl.startswith(("http://", "https://")):
        yield Problem("public_baseurl", "must begin with http:// or https://")
    for index, admin in enumerate(config.admins):
        try:
            local = server_of(parse_user_id(admin)) == config.server_name
        except MatrixError as error:
            yield Problem(f"admins[{index}]", error.error)
        else:
            if not local:
                yield Problem(f"admins[{index}]", "is not a user of this server")


def _listeners(config: Config) -> Iterator[Problem]:
    if not config.listeners:
        yield Problem("listeners", "at least one listener is needed")
    for index, listener in enumerate(config.listeners):
        if not listener.bind or not listener.resources:
            yield Problem(f"listeners[{index}]", "needs at least one bind address and one resource")
        for address in listener.bind:
            if not _is_address(address):
                yield Problem(f"listeners[{index}].bind", f"{address} is not an IP address")
        for network in listener.trusted_proxies:
            if not _is_network(network):
                yield Problem(
                    f"listeners[{index}].trusted_proxies", f"{network} is not an address or network"
                )


def _database(config: Config) -> Iterator[Problem]:
    if not config.database.url.startswith(("sqlite:///", "postgresql://", "postgres://")):
        yield Problem("database.url", "must begin with sqlite:/// or postgresql://")


def _registration(config: Config) -> Iterator[Problem]:
    registration = config.registration
    secret = registration.shared_secret
    if secret is not None and secret.reveal().lower() in _SAMPLE_SECRETS:
        yield Problem("registration.shared_secret", "is a sample value: choose one of your own")
    if registration.mode is not RegistrationMode.TOKEN and registration.tokens:
        yield Problem("registration.tokens", "are given, but the mode is not `token`")
    jwt = config.auth.jwt
    if jwt.enabled and jwt.key is None:
        yield Problem("auth.jwt", "is enabled without a key")
    if jwt.enabled and (jwt.issuer is None or not jwt.audiences):
        yield Problem("auth.jwt", "needs an issuer and at least one audience")
    if jwt.enabled and jwt.key and jwt.algorithm is JwtAlgorithm.HS256 and "BEGIN" in jwt.key.reveal():
        yield Problem("auth.jwt.key", "is a public key, but HS256 needs a shared secret")


def _networks(config: Config) -> Iterator[Problem]:
    for key in ("ip_denylist", "ip_allowlist"):
        for network in getattr(config.outbound, key):
            if not _is_network(network):
                yield Problem(f"outbound.{key}", f"{network} is not an address or network")


def _federation(config: Config) -> Iterator[Problem]:
    if config.federation.default_room_version not in ROOM_VERSIONS:
        yield Problem("federation.default_room_version", "is not a room version this server knows")
    for index, server in enumerate(config.federation.trusted_key_servers):
        try:
            parse_server_name(server.server_name)
        except MatrixError as error:
            yield Problem(f"federation.trusted_key_servers[{index}].server_name", error.error)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True
