"""A WebSocket client of the subprotocol `plait.v1.json` with as little work as can be.

Frames are masked with a zero key, which RFC 6455 allows and which costs nothing. It follows sync frames
and acknowledges them as the protocol asks: every 16 frames, or once a second.

Source: protocol/spec.md, WebSocket; RFC 6455.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable

from attrs import mutable

from bench.client import Client, marks
from bench.wire import HOST, BadAnswer

PATH = "/_plait/client/v1/ws"
SUBPROTOCOL = "plait.v1.json"
SEQ = re.compile(rb'"seq":\s*(\d+)')
TYPE = re.compile(rb'"type":\s*"([a-z_]+)"')
ACK_FRAMES = 16
ACK_SECONDS = 1.0
TEXT, CLOSE, PING, PONG = 0x1, 0x8, 0x9, 0xA
HEADERS = (
    "Host: localhost",
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Key: cGxhaXQtYmVuY2gtcGxhaQ==",
    "Sec-WebSocket-Version: 13",
    f"Sec-WebSocket-Protocol: {SUBPROTOCOL}",
)


def build_frame(opcode: int, payload: bytes) -> bytes:
    """Build one whole client frame."""
    length = len(payload)
    if length < 126:
        head = bytes((0x80 | opcode, 0x80 | length))
    elif length < 65536:
        head = bytes((0x80 | opcode, 0x80 | 126)) + length.to_bytes(2, "big")
    else:
        head = bytes((0x80 | opcode, 0x80 | 127)) + length.to_bytes(8, "big")
    return head + bytes(4) + payload


def build_json(**frame: object) -> bytes:
    """Build a text frame with one JSON object."""
    return build_frame(TEXT, json.dumps(frame, separators=(",", ":")).encode())


@mutable
class Socket:
    """One open WebSocket."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    async def open(cls, port: int) -> Socket:
        """Connect and shake hands."""
        reader, writer = await asyncio.open_connection(HOST, port)
        writer.write("\r\n".join([f"GET {PATH} HTTP/1.1", *HEADERS, "", ""]).encode())
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 101"):
            raise BadAnswer(f"no WebSocket: {head[:200]!r}")
        return cls(reader, writer)

    async def receive(self) -> bytes:
        """Give the next message; answer pings on the way."""
        message = b""
        while True:
            first, second = await self.reader.readexactly(2)
            length = second & 0x7F
            if length == 126:
                length = int.from_bytes(await self.reader.readexactly(2), "big")
            elif length == 127:
                length = int.from_bytes(await self.reader.readexactly(8), "big")
            payload = await self.reader.readexactly(length)
            opcode = first & 0x0F
            if opcode == PING:
                self.writer.write(build_frame(PONG, payload))
            elif opcode == CLOSE:
                raise BadAnswer(f"the socket was closed: {payload!r}")
            elif opcode != PONG:
                message += payload
                if first & 0x80:
                    return message

    def send(self, frame: bytes) -> None:
        """Write a built frame."""
        self.writer.write(frame)

    def close(self) -> None:
        """Drop the connection."""
        self.writer.transport.abort()


@mutable
class Acknowledger:
    """Acknowledges what came, no more often than the protocol asks."""

    socket: Socket
    last: int = 0
    _acknowledged: int = 0
    _timer: asyncio.TimerHandle | None = None

    def received(self, seq: int) -> None:
        """Note a sync frame; acknowledge now or within a second."""
        self.last = seq
        if seq - self._acknowledged >= ACK_FRAMES:
            self._acknowledge()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(ACK_SECONDS, self._acknowledge)

    def stop(self) -> None:
        """Forget what is due."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _acknowledge(self) -> None:
        """Acknowledge all frames so far."""
        self.stop()
        self._acknowledged = self.last
        self.socket.send(build_json(type="ack", seq=self.last))


async def follow(client: Client, since: str, take: Callable[[list[int]], object]) -> None:
    """Follow the feed from a token on, until cancelled, handing over the numbers of messages."""
    socket = await Socket.open(client.connection.port)
    acknowledger = Acknowledger(socket)
    try:
        socket.send(build_json(type="auth", token=client.token, since=since))
        while True:
            _take_frame(socket, acknowledger, await socket.receive(), take)
    finally:
        acknowledger.stop()
        socket.close()


def _take_frame(
    socket: Socket, acknowledger: Acknowledger, frame: bytes, take: Callable[[list[int]], object]
) -> None:
    """Do what a server's frame asks for."""
    found = TYPE.search(frame[:64]) or TYPE.search(frame)
    kind = found.group(1) if found else b""
    if kind == b"sync":
        seq = SEQ.search(frame)
        acknowledger.received(int(seq.group(1)) if seq else acknowledger.last + 1)
        if numbers := marks(frame):
            take(numbers)
    elif kind == b"ping":
        socket.send(build_json(type="pong", seq=acknowledger.last))
    elif kind in (b"error", b"bye"):
        raise BadAnswer(frame[:300].decode("utf-8", "replace"))
