"""A server with the WebSocket client API in memory, and clients that speak RFC 6455 by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from attrs import define, field
from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from client_api.websocket.wiring import PATH, WebSocketParts, make_websocket
from homeserver.accounts.requester import Requester
from homeserver.clock import Clock
from homeserver.config.sections import Config, RateLimits
from homeserver.http.calls import EMPTY, Call, Json, Reply
from homeserver.http.rate_limits import RateLimiter
from homeserver.http.routing import Auth, RateClass, Route
from homeserver.sync.delta import Delta
from homeserver.sync.room_part import RoomPart
from homeserver.sync.rooms import Section
from homeserver.sync.tokens import EphemeralPlace, SyncToken
from protocol.errors import UnknownPos, UnknownToken
from protocol.frames import SUBPROTOCOL
from protocol.identifiers import DeviceID, RoomID, UserID
from storage.feed import Entry, Kind
from tests.homeserver.http.helpers import Connection, KnownTokens, MemoryServer

EPOCH = 1
PLACE = EphemeralPlace("r1", 0)
ROOM = RoomID("!room:plait.test")
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
HEADERS: Mapping[str, str] = {
    "Upgrade": "websocket",
    "Connection": "keep-alive, Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Protocol": f"other, {SUBPROTOCOL}",
}
TEXT, BINARY, CLOSE, PING = 0x1, 0x2, 0x8, 0x9


def token(pos: int, device: int = 0) -> SyncToken:
    """Give a sync token."""
    return SyncToken(EPOCH, pos, device, PLACE)


def requester(name: str, nid: int, device: str, **flags: bool) -> Requester:
    """Give a requester of this server."""
    return Requester(UserID(f"@{name}:plait.test"), nid, DeviceID(device), nid * 10, **flags)


@define(eq=False, slots=False)
class Tokens(KnownTokens):
    """Tokens of a table, some with an end."""

    ends: dict[str, int] = field(factory=dict)
    replaced: set[str] = field(factory=set)

    async def requester(self, token: str, *, ip: str, user_agent: str, now: int) -> Requester:
        """Look a token up."""
        if token in self.replaced:
            raise UnknownToken("replaced", soft_logout=True)
        return await KnownTokens.requester(self, token, ip=ip, user_agent=user_agent, now=now)

    def expires(self, token: str, now: int) -> int | None:
        """Tell when it ends."""
        return self.ends.get(token)


@define(eq=False, slots=False)
class Fakes:
    """A feed of numbered texts in one room, and all else that connections need."""

    texts: list[bytes] = field(factory=list)
    messages: list[bytes] = field(factory=list)
    """To-device messages."""
    rooms_of_first: int = 1
    built: list[int] = field(factory=list)
    """Positions from which deltas were built."""
    dropped: list[int] = field(factory=list)
    arrivals: list[tuple[str, int]] = field(factory=list)
    wakers: dict[int, list[Callable[[], None]]] = field(factory=dict)
    presences: list[tuple[str, str]] = field(factory=list)
    conversations: dict[tuple[str, str], RoomID] = field(factory=dict)
    listeners: list[Callable[[Sequence[Entry]], None]] = field(factory=list)
    failing: int = 0
    """Deltas that are still to fail."""

    # The feed.

    def is_still(self, since: SyncToken) -> bool:
        """Tell whether nothing came since."""
        return since.pos == len(self.texts)

    async def require_known(self, since: SyncToken) -> None:
        """Refuse other epochs and the future."""
        if since.epoch != EPOCH or since.pos > len(self.texts):
            raise UnknownPos("not a position of this server")

    def arrived(self, session: Any, pos: int) -> None:
        """Note what a client has."""
        self.arrivals.append((session.user_id, pos))

    async def received(self, session: Any, device: int) -> None:
        """Note that messages are dropped."""
        self.dropped.append(device)

    async def delta(
        self, session: Any, since: SyncToken, options: Any, *, now: int, keep_messages: bool = False
    ) -> Delta:
        """Give the texts since a token."""
        if self.failing:
            self.failing -= 1
            raise RuntimeError("the database is away")
        self.built.append(since.pos)
        if not keep_messages:
            self.dropped.append(since.device)
        return self._delta(since.pos, since.device)

    async def sync(self, session: Any, since: None, options: Any, timeout_ms: int) -> Delta:
        """Give everything."""
        self.built.append(0)
        return self._delta(0, 0)

    def _delta(self, pos: int, device: int) -> Delta:
        new = self.texts[pos:]
        rooms = (
            [RoomPart(Section.JOIN, ROOM, b'{"texts":[%b]}' % b",".join(new), len(self.texts))] if new else []
        )
        if pos == 0:
            extra = range(1, self.rooms_of_first)
            rooms += [
                RoomPart(Section.JOIN, RoomID(f"!r{n}:x"), b'{"pad":"%b"}' % (b"x" * 20_000), -n)
                for n in extra
            ]
        messages = self.messages[device:]
        return Delta(token(len(self.texts), len(self.messages)), rooms, to_device=b",".join(messages))

    def say(self, *texts: str) -> None:
        """Let texts come, and wake everybody."""
        self.texts.extend(json.dumps(text).encode() for text in texts)
        self.wake()

    def wake(self) -> None:
        """Wake everybody."""
        for calls in list(self.wakers.values()):
            for call in list(calls):
                call()

    def subscribe(self, user_nid: int, on_wake: Callable[[], None]) -> Any:
        """Note who wants to be woken."""
        calls = self.wakers.setdefault(user_nid, [])
        calls.append(on_wake)

        class Subscription:
            def cancel(self) -> None:
                calls.remove(on_wake)

        return Subscription()

    def add_session_listener(self, listener: Callable[[Sequence[Entry]], None]) -> None:
        """Note who follows the feed."""
        self.listeners.append(listener)

    def revoke(self, user_nid: int) -> None:
        """Tell that a session of a user changed."""
        for listener in self.listeners:
            listener([Entry(1, Kind.SESSION, 0, None, user_nid, 1, None)])

    # Filters, presence, tickets, conversations.

    async def get(self, user_nid: int, filter_id: str) -> bytes | None:
        """Give filter 1."""
        return b"{}" if filter_id == "1" else None

    def heard(self, user_id: UserID, device: str, presence: str = "online") -> None:
        """Note a sign of life."""
        self.presences.append((device, presence))

    def gone(self, user_id: UserID, device: str) -> None:
        """Note a farewell."""
        self.presences.append((device, "gone"))

    async def make(self, token: str, now: int) -> str:
        """Give a ticket for a token."""
        return f"ticket-of-{token}"

    async def take(self, ticket: str, now: int) -> str:
        """Take a ticket."""
        if not ticket.startswith("ticket-of-"):
            raise UnknownToken("used", soft_logout=True)
        return ticket.removeprefix("ticket-of-")

    async def ready(self, user_id: UserID, other: UserID) -> RoomID | None:
        """Find a conversation."""
        return self.conversations.get((user_id, other))

    async def with_user(self, user_id: UserID, other: UserID, now: int) -> RoomID:
        """Make a conversation."""
        return self.conversations.setdefault((user_id, other), ROOM)


class WsServer:
    """A server in memory."""

    def __init__(self, routes: Sequence[Route] = (), **options: Any) -> None:
        """Serve `routes` and the WebSocket; `options` are of the sections `websocket` and `limits`."""
        limits = {name: options.pop(name) for name in ("connections_per_user",) if name in options}
        raw = {"server_name": "plait.test", "websocket": options, "limits": limits}
        self.config = msgspec.convert(raw, Config)
        self.tokens = Tokens(
            {
                "alice": requester("alice", 1, "PHONE"),
                "alice-new": requester("alice", 1, "PHONE"),
                "alice-desk": requester("alice", 1, "DESK"),
                "alice-pad": requester("alice", 1, "PAD"),
                "bob": requester("bob", 2, "PHONE"),
                "mute": requester("mute", 3, "PHONE", suspended=True),
            }
        )
        self.fakes: Any = Fakes()
        self.calls: list[Call[Any]] = []
        self.waiting: list[Deferred[None]] = []
        self.http = MemoryServer(())
        self.task_clock = self.http.task_clock
        clock: Clock = Clock(self.task_clock)
        fakes: Any = self.fakes
        limiter = RateLimiter(RateLimits(enabled=False))
        parts = WebSocketParts(self.tokens, fakes, fakes, fakes, fakes, fakes, limiter, fakes, fakes)
        self.figures = CollectorRegistry()
        self.api = make_websocket(parts, fakes, clock, self.config, self.figures)
        every = (*self._routes(), *routes, *self.api.routes())
        self.http = MemoryServer(
            every, tokens=self.tokens, task_clock=self.task_clock, limiter=limiter, bound=1000
        )

    def _routes(self) -> tuple[Route, ...]:
        v3 = "/_matrix/client/v3"
        none = RateClass.NONE
        return (
            Route("GET", f"{v3}/echo", self._echo, limit=none),
            Route("GET", f"{v3}/wait", self._wait, limit=none),
            Route("GET", f"{v3}/page", self._echo, limit=none, over_websocket=False),
            Route("GET", "/_plait/admin", self._echo, auth=Auth.ADMIN, limit=none),
            Route("PUT", f"{v3}/rooms/{{room}}/send/{{type}}/{{txn}}", self._send, body=dict, limit=none),
            Route("PUT", f"{v3}/rooms/{{room}}/typing/{{user}}", self._note, body=dict, limit=none),
            Route(
                "POST", f"{v3}/rooms/{{room}}/receipt/{{kind}}/{{event}}", self._note, body=dict, limit=none
            ),
            Route("PUT", f"{v3}/presence/{{user}}/status", self._note, body=dict, limit=none),
        )

    async def _echo(self, call: Call[None]) -> Reply:
        self.calls.append(call)
        return Json(b'{"size":"%b"}' % (b"x" * call.query.integer("size", 0)))

    async def _wait(self, call: Call[None]) -> Reply:
        waiting: Deferred[None] = Deferred()
        self.waiting.append(waiting)
        await waiting
        return EMPTY

    async def _send(self, call: Call[Any]) -> Reply:
        self.calls.append(call)
        return {"event_id": f"${call.path['txn']}", "org.plait.origin_server_ts": 1_700_000_000_124}

    async def _note(self, call: Call[Any]) -> Reply:
        self.calls.append(call)
        return EMPTY

    def open(self, headers: Mapping[str, str | None] = {}, target: str = PATH) -> WsClient:
        """Connect and shake hands; a header that is None is left out."""
        return WsClient(self.http.connect(), {**HEADERS, **headers}, target)

    def live(self, name: str = "alice", **auth: Any) -> WsClient:
        """Connect and authenticate, and take the frames of that."""
        client = self.open()
        client.frames()
        client.send(type="auth", token=name, **auth)
        return client


class WsClient:
    """A client on a string transport."""

    def __init__(self, connection: Connection, headers: Mapping[str, str | None], target: str) -> None:
        """Send the handshake."""
        self.connection, self.transport = connection, connection.transport
        self.close_code: int | None = None
        lines = [f"GET {target} HTTP/1.1", "Host: plait.test"]
        lines += [f"{name}: {value}" for name, value in headers.items() if value is not None]
        connection.channel.dataReceived(("\r\n".join(lines) + "\r\n\r\n").encode("utf-8"))
        raw: bytes = self.transport.value()
        self.transport.clear()
        head, _, rest = raw.partition(b"\r\n\r\n")
        self.head = head.decode("latin-1")
        self.status = int(self.head.split(" ")[1])
        self._raw = rest
        self.body = rest
        self.socket: Any = getattr(self.transport, "protocol", None)

    def send(self, **frame: Any) -> None:
        """Send a frame."""
        self.send_raw(json.dumps(frame).encode())

    def send_raw(self, payload: bytes, opcode: int = TEXT, *, fin: bool = True, masked: bool = True) -> None:
        """Send one frame of the WebSocket protocol."""
        self.write(frame_bytes(payload, opcode, fin=fin, masked=masked))

    def write(self, raw: bytes) -> None:
        """Let bytes arrive."""
        self.socket.dataReceived(raw)

    def frames(self) -> list[Any]:
        """Take the frames that came, decoded; a close frame is kept in `close_code`."""
        raw = self._raw + self.transport.value()
        self.transport.clear()
        found = []
        while len(raw) >= 2:
            length, at = raw[1] & 0x7F, 2
            if length == 126:
                length, at = int.from_bytes(raw[2:4], "big"), 4
            elif length == 127:
                length, at = int.from_bytes(raw[2:10], "big"), 10
            payload, opcode, raw = raw[at : at + length], raw[0] & 0xF, raw[at + length :]
            if opcode == TEXT:
                found.append(json.loads(payload))
            elif opcode == CLOSE:
                self.close_code = int.from_bytes(payload[:2], "big")
        self._raw = raw
        return found

    def frame(self) -> Any:
        """Take the one frame that came."""
        found = self.frames()
        assert len(found) == 1, found
        return found[0]

    def drop(self) -> None:
        """Lose the connection."""
        self.socket.connectionLost(Failure(ConnectionError("gone")))

    @property
    def _producer(self) -> Any:
        return self.transport.producer

    def pause(self) -> None:
        """Let the socket take no more."""
        self._producer.pauseProducing()

    def resume(self) -> None:
        """Let the socket take bytes again."""
        self._producer.resumeProducing()


def frame_bytes(payload: bytes, opcode: int = TEXT, *, fin: bool = True, masked: bool = True) -> bytes:
    """Build a frame; the mask is zero."""
    mask, length = 0x80 if masked else 0, len(payload)
    head = bytes((opcode | (0x80 if fin else 0),))
    if length < 126:
        head += bytes((mask | length,))
    elif length < 65536:
        head += bytes((mask | 126,)) + length.to_bytes(2, "big")
    else:
        head += bytes((mask | 127,)) + length.to_bytes(8, "big")
    return head + (bytes(4) if masked else b"") + payload


def texts(frames: Sequence[Any]) -> list[str]:
    """Give the texts that sync frames told."""
    return [
        text
        for frame in frames
        if frame["type"] == "sync"
        for text in frame.get("rooms", {}).get("join", {}).get(ROOM, {}).get("texts", ())
    ]
