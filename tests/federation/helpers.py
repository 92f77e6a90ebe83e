"""A small world for federation tests: names, keys, a database without threads, and servers that may lie."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import SystemRandom
from typing import Any, TypeVar

from attrs import define, field
from twisted.internet.defer import DeferredSemaphore
from twisted.internet.protocol import Factory

from federation.backoff import Backoff
from federation.discovery import Discovery
from federation.key_fetching import KeyFetcher, Notary
from federation.key_ring import KeyRing
from federation.own_keys import OwnKeys
from federation.requests import ServerRequests
from federation.well_known import WellKnown
from homeserver.clock import Clock
from homeserver.http.addresses import IpPolicy
from homeserver.http.agent import OutboundAgent
from homeserver.http.dialing import Dialer
from homeserver.http.outbound_tls import OutboundTls
from protocol.canonical_json import JsonObject, dumps, encode
from protocol.identifiers import KeyID, ServerName
from protocol.signing import SigningKey, encode_base64, sign_json
from storage.database import Dialect, Transaction
from storage.destinations import DestinationStore
from storage.migrate import migrate
from storage.server_keys import ServerKeyStore
from storage.sqlite import SqliteSession
from tests.federation.network import Answer, Asked, Authority, MemoryNetwork, TableResolver, site

T = TypeVar("T")

HERE = ServerName("here.example")
THERE = ServerName("there.example")
ADDRESS = "93.184.216.34"


def signing_key(seed: int, key_id: str = "ed25519:1") -> SigningKey:
    """Give a key that is the same in every run."""
    return SigningKey(bytes([seed]) * 32, KeyID(key_id))


class InlineDatabase:
    """A SQLite database whose work runs at once, on the calling thread."""

    def __init__(self, path: Path) -> None:
        """Make the file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._session = SqliteSession(str(path), True)

    @property
    def dialect(self) -> Dialect:
        """Tell the engine."""
        return Dialect.SQLITE

    async def read(self, work: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run `work` in a transaction."""
        return self._session.run(work, args, kwargs)  # type: ignore[no-any-return]

    async def write(self, work: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run `work` in a transaction."""
        return self._session.run(work, args, kwargs)  # type: ignore[no-any-return]

    def run(self, work: Callable[..., T], *args: Any) -> T:
        """Run `work` in a transaction, from a test."""
        return self._session.run(work, args, {})  # type: ignore[no-any-return]

    async def close(self) -> None:
        """Close the file."""
        self._session.close()

    def rows(self, sql: str, *args: object) -> list[Any]:
        """Give the rows of a query."""

        def query(tx: Transaction) -> list[Any]:
            return tx.all(sql, args)

        return self.run(query)


def key_document(
    server: str, keys: Sequence[SigningKey], valid_until: int, old: Mapping[str, Any] | None = None
) -> JsonObject:
    """Give the key document that a server would publish."""
    document: JsonObject = {
        "server_name": server,
        "valid_until_ts": valid_until,
        "verify_keys": {key.key_id: {"key": encode_base64(bytes(key.verify_key))} for key in keys},
        "old_verify_keys": dict(old or {}),
    }
    for key in keys:
        document = sign_json(document, ServerName(server), key)
    return document


@define
class HostileServer:
    """A signed federation peer that can be told to lie.

    `answers` maps (method, start of the path) to an answer; what is not there is 404.
    """

    name: ServerName
    key: SigningKey
    answers: dict[tuple[str, str], Callable[[Asked], Answer]] = field(factory=dict)
    asked: list[Asked] = field(factory=list)

    def handle(self, asked: Asked) -> Answer:
        """Answer a request as told."""
        self.asked.append(asked)
        for (method, path), answer in self.answers.items():
            if asked.method == method and asked.uri.startswith(path):
                return answer(asked)
        return Answer(404, encode({"errcode": "M_UNRECOGNIZED", "error": "no"}))

    def say(self, method: str, path: str, body: object, status: int = 200) -> None:
        """Answer with JSON from now on."""
        raw = dumps(body)  # type: ignore[arg-type]
        self.answers[method, path] = lambda _: Answer(status, raw)

    def publish(self, valid_until: int) -> None:
        """Publish an honest key document."""
        self.say("GET", "/_matrix/key/v2/server", key_document(self.name, [self.key], valid_until))


class World:
    """A network, a database, and the parts of one server that talk over it."""

    def __init__(
        self,
        directory: Path,
        notaries: Sequence[Notary] = (),
        *,
        name: ServerName = HERE,
        beside: World | None = None,
    ) -> None:
        """Build everything for the server `name`; `beside` another one, on the same network."""
        self.name = name
        self.network = MemoryNetwork() if beside is None else beside.network
        self.clock = Clock(self.network)
        self.authority = Authority(directory / "ca", self.network) if beside is None else beside.authority
        self.resolver = TableResolver() if beside is None else beside.resolver
        self.database = InlineDatabase(directory / f"{name}.db")
        self.network.outcome(migrate(self.database))
        self.own = OwnKeys(name, [signing_key(sum(name.encode()) % 200 if beside is not None else 1)])
        tls = OutboundTls.of([self.authority.pem], True)
        dialer = Dialer(self.network, self.resolver, IpPolicy.of(("127.0.0.0/8", "10.0.0.0/8"), ()), tls)
        self.agent = OutboundAgent(self.network, dialer)
        self.well_known = WellKnown(self.agent, self.clock)
        self.discovery = Discovery(self.well_known, self.resolver, self.clock, SystemRandom())
        self.backoff = Backoff(DestinationStore(self.database), self.clock, 86_400_000, SystemRandom())
        self.requests = ServerRequests(
            self.own.identity, self.agent, self.discovery, self.backoff, self.clock
        )
        self.key_store = ServerKeyStore(self.database)
        self.fetcher = KeyFetcher(self.requests, self.clock, notaries, DeferredSemaphore(20))
        self.ring = KeyRing(self.own, self.key_store, self.fetcher, self.clock)

    @property
    def now(self) -> int:
        """Give the time in milliseconds."""
        return self.clock.now_ms()

    def server(self, name: str = THERE, seed: int = 2) -> HostileServer:
        """Put a server on the network, at port 8448 of an address of its own, with an honest key document."""
        hostile = HostileServer(ServerName(name), signing_key(seed))
        hostile.publish(self.now + 3_600_000)
        self.listen(name, site(self.network, hostile.handle))
        return hostile

    def listen(self, name: str, factory: Factory) -> None:
        """Put a web server on the network, at port 8448 of an address of its own, with a certificate."""
        address = f"93.184.217.{len(self.network.servers) + 1}"
        self.resolver.hosts[name] = [address]
        self.network.listen(address, 8448, self.authority.tls(factory, name))

    def tls(self, hostile: HostileServer, *names: str) -> Factory:
        """Give a listener for a server with a certificate for names."""
        return self.authority.tls(site(self.network, hostile.handle), *names)
