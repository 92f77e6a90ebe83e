"""A client of the WebSocket API over a real socket, on Autobahn: it keeps its place and what it has seen.

Source: protocol/spec.md, chapter 4.
"""

from __future__ import annotations

import json
from typing import Any

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from protocol.frames import SUBPROTOCOL
from tests.interop.client import User
from tests.interop.network import sleep
from tests.interop.programs import wait_until

FILTER = {"room": {"timeline": {"limit": 500}}}


class _Protocol(WebSocketClientProtocol):
    """Hands over what comes."""

    def __init__(self, reader: Reader) -> None:
        super().__init__()
        self.reader = reader

    def onOpen(self) -> None:
        self.reader.opened.callback(self)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        if self.reader.protocol is self or self.reader.protocol is None:
            self.reader.received(json.loads(payload))

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        self.reader.close_code = self.localCloseCode if code is None else code


class Reader:
    """One device that follows what happens over connections of which each may break."""

    def __init__(self, user: User, *, acknowledges: bool = True) -> None:
        """Start without a place."""
        self.user = user
        self.acknowledges = acknowledges
        self.next_batch: str | None = None
        self.bodies: list[str] = []
        """The texts of all messages, as often as they came."""
        self.left: set[str] = set()
        self.frames: list[Any] = []
        """All frames but `sync`."""
        self.syncs = 0
        self.close_code: int | None = None
        self.protocol: Any = None
        self.opened: Deferred[Any] = Deferred()

    async def connect(self) -> None:
        """Open a socket and authenticate, resuming where the last one stopped."""
        self.opened, self.protocol, self.frames, self.syncs = Deferred(), None, [], 0
        url = self.user.api.url.replace("http:", "ws:") + "/_plait/client/v1/ws"
        factory = WebSocketClientFactory(url, protocols=[SUBPROTOCOL], reactor=reactor)
        factory.setProtocolOptions(
            openHandshakeTimeout=0, closeHandshakeTimeout=0, serverConnectionDropTimeout=0
        )
        factory.buildProtocol = lambda address: _adopt(_Protocol(self), factory)
        reactor.connectTCP(factory.host, factory.port, factory)
        self.protocol = await self.opened
        since = {} if self.next_batch is None else {"since": self.next_batch}
        self.send(type="auth", token=self.user.token, filter=FILTER, **since)
        await self.until(lambda: any(frame["type"] == "auth" for frame in self.frames), "auth")

    def send(self, **frame: Any) -> None:
        """Send a frame."""
        self.protocol.sendMessage(json.dumps(frame).encode())

    def received(self, frame: Any) -> None:
        """Take a frame as the protocol says."""
        if frame["type"] == "ping":
            self.send(type="pong")
        if frame["type"] != "sync":
            self.frames.append(frame)
            return
        self.syncs += 1
        rooms = frame.get("rooms", {})
        self.left.update(rooms.get("leave", {}))
        for room in (*rooms.get("join", {}).values(), *rooms.get("leave", {}).values()):
            for event in room["timeline"]["events"]:
                if event["type"] == "m.room.message":
                    self.bodies.append(event["content"]["body"])
        self.next_batch = frame.get("next_batch", self.next_batch)
        if self.acknowledges:
            self.send(type="ack", seq=frame["seq"])

    async def until(self, condition: Any, what: str, seconds: float = 30) -> None:
        """Let frames come until a condition holds."""
        await wait_until(condition, what, sleep, seconds)

    async def drop(self) -> None:
        """Break the connection, without any farewell."""
        protocol, self.close_code = self.protocol, None
        self.protocol = object()
        protocol.transport.abortConnection()
        await self.until(lambda: self.close_code is not None, "the end of the connection")

    def answers(self, kind: str) -> list[Any]:
        """Give the frames of a type."""
        return [frame for frame in self.frames if frame["type"] == kind]


def _adopt(protocol: _Protocol, factory: Any) -> _Protocol:
    protocol.factory = factory
    return protocol
