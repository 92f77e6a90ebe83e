"""A whole server in one process without a port: the application as it is, over string transports.

One other server, an address that nothing may dial, has a key here and a member in the room, so that its
requests are heard and those to it fail at once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from attrs import define
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from federation.requests import ServerRequest, bytes_to_sign
from homeserver.app import App, start_app
from homeserver.config.sections import Config, RateLimits
from homeserver.events.stored import Status
from homeserver.http.routing import Route
from homeserver.http.site import HttpSite
from protocol.canonical_json import decode_lax, encode
from protocol.errors import MatrixError
from protocol.events import EventDraft, Links, build_event
from protocol.identifiers import RoomID, ServerName, UserID
from protocol.room_versions import V12
from protocol.signing import SigningKey
from protocol.xmatrix import build_xmatrix
from storage.database import Dialect, Transaction
from storage.server_keys import ServerKeyStore, StoredKey
from tests.federation.helpers import signing_key
from tests.homeserver.http.helpers import Answer, Connection, request_bytes
from tests.storage.helpers import REACTOR

HERE = ServerName("plait.test")
THERE = ServerName("192.0.2.7")
REMOTE_USER = UserID(f"@rita:{THERE}")
PASSWORD = "a word that nobody sends"
OTHER_KEY = signing_key(7)
FAR = 4_000_000_000_000
VOLATILE = {"uia_sessions", "users", "rooms", "destinations", "server_keys", "nonces", "counters"}
"""Tables that a refused request may touch: proofs begun, names interned, how other servers fare."""
CALM = 5
"""Readings without a change after which nothing is under way."""
FILTERS = {"events": f" WHERE status <> {Status.REJECTED.value}"}
"""Rejected events are kept, so that they are known for what they are when they come again."""


class Portless:
    """The reactor, except that listening keeps the site instead of opening a port."""

    def __init__(self) -> None:
        """Begin without sites."""
        self.sites: list[HttpSite] = []
        self._timers: list[IDelayedCall] = []

    def callLater(self, delay: float, call: Callable[..., object], *args: Any, **more: Any) -> IDelayedCall:
        """Remember the timer."""
        timer: IDelayedCall = REACTOR.callLater(delay, call, *args, **more)
        self._timers = [each for each in self._timers if each.active()]
        self._timers.append(timer)
        return timer

    def forget_timers(self) -> None:
        """Cancel what is still to come; a process would end here."""
        for timer in self._timers:
            if timer.active():
                timer.cancel()

    def listenTCP(self, port: int, site: HttpSite, backlog: int, address: str) -> Any:
        """Keep the site."""
        self.sites.append(site)
        return self

    def stopListening(self) -> None:
        """Close nothing."""

    def __getattr__(self, name: str) -> Any:
        """Be the reactor in all else."""
        return getattr(REACTOR, name)


@define(eq=False)
class FuzzServer:
    """The server under test, its users, a room of both, and the other server's key."""

    app: App
    reactor: Portless
    site: HttpSite
    key: SigningKey = OTHER_KEY
    token: str = ""
    room_id: str = ""
    event_id: str = ""
    tables: tuple[str, ...] = ()

    @property
    def routes(self) -> Sequence[Route]:
        """List every endpoint."""
        return self.site.settings.dispatcher._table.routes

    async def ask(self, raw: bytes) -> Answer:
        """Let the bytes of one request arrive on a connection of their own; give the answer."""
        connection = Connection(self.site.buildProtocol(None))
        connection.send(raw)
        for request in list(connection.channel.requests):
            if request._running is not None:
                await request._running
        answers = connection.answers()
        connection.channel.connectionLost(Failure(ConnectionDone()))
        assert len(answers) == 1, (raw[:300], answers)
        return answers[0]

    async def as_user(self, method: str, target: str, body: bytes | None = None) -> Answer:
        """Ask with the user's token."""
        return await self.ask(request_bytes(method, target, body, token=self.token))

    async def do(self, method: str, target: str, body: Any = None) -> Any:
        """Ask for something that must succeed."""
        answer = await self.as_user(
            method, target, None if method == "GET" else json.dumps(body or {}).encode()
        )
        assert answer.status == 200, (target, answer)
        return answer.json

    def signature(self, method: str, target: str, body: bytes | None) -> str:
        """Give the Authorization header of the other server."""
        content = None
        if body:
            try:
                content = encode(decode_lax(body))
            except (MatrixError, ValueError):
                content = b"{}"
        signed = bytes_to_sign(ServerRequest(HERE, method, target, content), THERE)
        signature = self.key.sign_base64(signed)
        return build_xmatrix(
            origin=THERE, destination=HERE, key_id=self.key.key_id, signature=signature
        ).decode()

    async def as_server(self, method: str, target: str, body: bytes | None = None) -> Answer:
        """Ask as the other server, rightly signed."""
        header = ("Authorization", self.signature(method, target, body))
        return await self.ask(request_bytes(method, target, body, headers=[header]))

    async def state(self) -> dict[str, int]:
        """Count the rows of all tables that a refused request must leave alone, and tell the feed's end."""
        counts = [f"SELECT '{name}', count(*) FROM {name}{FILTERS.get(name, '')}" for name in self.tables]
        sql = " UNION ALL ".join([*counts, "SELECT 'position', coalesce(max(pos), 0) FROM feed"])

        def count(tx: Transaction) -> dict[str, int]:
            return {str(name): int(number) for name, number in tx.all(sql)}

        return await self.app.base.core.database.read(count)

    async def settled(self) -> dict[str, int]:
        """Give the state once nothing under way changes it any more."""
        state, calm = await self.state(), 0
        while calm < CALM:
            later = await self.state()
            calm, state = (calm + 1 if later == state else 0), later
        return state

    async def stop(self) -> None:
        """Stop the server, and what timers it leaves."""
        await self.app.stop()
        self.reactor.forget_timers()

    async def mend(self) -> None:
        """Log in again and come back to a room, if good requests among the bad ones ended that."""
        known = await self.as_user("GET", "/_matrix/client/v3/account/whoami")
        if known.status != 200:
            await self.log_in()
        members = await self.as_user("GET", f"/_matrix/client/v3/rooms/{self.room_id}/joined_members")
        if members.status != 200:
            await self.open_room()

    async def open_room(self) -> None:
        """Make a public room, say something in it, and let Rita join by both halves of the handshake."""
        room = {"preset": "public_chat", "room_version": "12", "name": "Parlour"}
        made = await self.do("POST", "/_matrix/client/v3/createRoom", room)
        self.room_id = made["room_id"]
        alias = "/_matrix/client/v3/directory/room/%23parlour:plait.test"
        await self.as_user("DELETE", alias)
        await self.as_user("PUT", alias, json.dumps(made).encode())
        message = {"msgtype": "m.text", "body": "hello"}
        sent = f"/_matrix/client/v3/rooms/{self.room_id}/send/m.room.message/{self.room_id}"
        self.event_id = (await self.do("PUT", sent, message))["event_id"]
        await _join_from_there(self)

    async def log_in(self) -> None:
        """Take a token of Alice's."""
        identifier = {"type": "m.id.user", "user": "alice"}
        body = {
            "type": "m.login.password",
            "identifier": identifier,
            "password": PASSWORD,
            "device_id": "PHONE",
        }
        self.token = (await self.do("POST", "/_matrix/client/v3/login", body))["access_token"]


async def start(folder: Path, url: str) -> FuzzServer:
    """Start a server on a database with Alice, her room, and a member of the other server in it."""
    reactor = Portless()
    app = await start_app(_config(url), folder, reactor)
    server = FuzzServer(app, reactor, reactor.sites[0])
    await _know_key(server)
    for name in ("bob", "alice"):
        body = {
            "username": name,
            "password": PASSWORD,
            "auth": {"type": "m.login.dummy"},
            "device_id": "PHONE",
        }
        server.token = (await server.do("POST", "/_matrix/client/v3/register", body))["access_token"]
    await server.open_room()
    server.tables = await app.base.core.database.read(_tables)
    return server


def _config(url: str) -> Config:
    plain = {
        "server_name": HERE,
        "data_dir": "data",
        "database": {"url": url},
        "public_baseurl": "https://plait.test/",
        "registration": {"mode": "open"},
        "federation": {"allow_list": [THERE], "public_rooms": True},
        "listeners": [{"port": 1}],
    }
    return msgspec.structs.replace(msgspec.convert(plain, Config), rate_limits=RateLimits(enabled=False))


def _tables(tx: Transaction) -> tuple[str, ...]:
    sqlite = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'"
    postgres = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
    rows = tx.all(sqlite if tx.dialect is Dialect.SQLITE else postgres)
    partitions = {f"events_{number}" for number in range(4)}
    return tuple(sorted(str(name) for (name,) in rows if name not in VOLATILE | partitions))


async def _know_key(server: FuzzServer) -> None:
    public = bytes(server.key.verify_key)
    key = StoredKey(THERE, server.key.key_id, public, FAR, False, 0, b"{}")
    await ServerKeyStore(server.app.base.core.database).keep([key])


async def _join_from_there(server: FuzzServer) -> None:
    """Let Rita join by both halves of the handshake."""
    room_id = RoomID(server.room_id)
    target = f"/_matrix/federation/v1/make_join/{room_id}/{REMOTE_USER}?ver=12"
    made = (await server.as_server("GET", target)).json["event"]
    draft = EventDraft(room_id, "m.room.member", REMOTE_USER, {"membership": "join"}, REMOTE_USER)
    links = Links(tuple(made["prev_events"]), tuple(made["auth_events"]), made["depth"])
    event = build_event(draft, V12, links, now=made["origin_server_ts"], server_name=THERE, key=server.key)
    joined = await server.as_server(
        "PUT", f"/_matrix/federation/v2/send_join/{room_id}/{event.event_id}", event.raw
    )
    assert joined.status == 200, joined
