"""HTTP/1.1 with as little work as can be: requests are bytes built beforehand, one at a time a connection.

Not a general client: loopback only, no compression, no redirects.
"""

from __future__ import annotations

import asyncio
from typing import cast

from attrs import frozen

HOST = "127.0.0.1"
HEAD_END = b"\r\n\r\n"


class BadAnswer(Exception):
    """A server's answer that is not what a workload needs."""


@frozen
class Answer:
    """A status and a body."""

    status: int
    body: bytes


def build_request(method: str, path: str, token: str | None = None, body: bytes | None = None) -> bytes:
    """Build a request's bytes; a body is JSON."""
    head = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    if token is not None:
        head.append(f"Authorization: Bearer {token}")
    if body is not None:
        head += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*head, "", ""]).encode() + (body or b"")


class _Protocol(asyncio.Protocol):
    """Collects one answer at a time."""

    def __init__(self) -> None:
        """Begin with nothing received."""
        self.transport: asyncio.Transport | None = None
        self.waiting: asyncio.Future[Answer] | None = None
        self._received = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Take bytes in, and wake who waits when the answer is whole."""
        self._received += data
        answer = take_answer(self._received)
        if answer is not None and self.waiting is not None and not self.waiting.done():
            self.waiting.set_result(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell who waits."""
        self.transport = None
        if self.waiting is not None and not self.waiting.done():
            self.waiting.set_exception(BadAnswer("the connection was lost"))


class Connection:
    """One keep-alive connection to a loopback port, opened when needed."""

    def __init__(self, port: int) -> None:
        """Name the port; nothing is opened yet."""
        self.port = port
        self._protocol: _Protocol | None = None
        self._turn = asyncio.Lock()

    async def exchange(self, request: bytes) -> Answer:
        """Send a request and give its answer, after those that others sent before."""
        async with self._turn:
            return await self._exchange(request)

    async def _exchange(self, request: bytes) -> Answer:
        """Send a request, on a new connection if the old one is gone, and give its answer."""
        protocol = self._protocol
        if protocol is None or protocol.transport is None:
            loop = asyncio.get_running_loop()
            _, protocol = await loop.create_connection(_Protocol, HOST, self.port)
            self._protocol = protocol
        assert protocol.transport is not None
        protocol.waiting = asyncio.get_running_loop().create_future()
        protocol.transport.write(request)
        return await protocol.waiting

    def close(self) -> None:
        """Close the connection; a later exchange opens a new one."""
        if self._protocol is not None and self._protocol.transport is not None:
            self._protocol.transport.abort()
        self._protocol = None


def take_answer(received: bytearray) -> Answer | None:
    """Remove one whole answer from what was received, or give None when more must come."""
    head_end = received.find(HEAD_END)
    if head_end < 0:
        return None
    head = bytes(received[:head_end]).lower()
    start = head_end + len(HEAD_END)
    status = int(head[9:12])
    length_at = head.find(b"\r\ncontent-length:")
    if length_at >= 0:
        length = int(head[length_at + 17 :].split(b"\r\n", 1)[0])
        if len(received) < start + length:
            return None
        body, end = bytes(received[start : start + length]), start + length
    elif b"\r\ntransfer-encoding: chunked" in head:
        chunked = _take_chunks(received, start)
        if chunked is None:
            return None
        body, end = chunked
    else:
        body, end = b"", start
    del received[:end]
    return Answer(status, body)


def _take_chunks(received: bytearray, start: int) -> tuple[bytes, int] | None:
    """Read a chunked body from `start`; give it and where it ends, or None when more must come."""
    if not received.endswith(b"0\r\n\r\n"):
        return None
    parts: list[bytes] = []
    while True:
        line_end = received.find(b"\r\n", start)
        if line_end < 0:
            return None
        size = int(bytes(received[start:line_end]).split(b";")[0], 16)
        start = line_end + 2
        if len(received) < start + size + 2:
            return None
        if size == 0:
            return b"".join(parts), start + 2
        parts.append(bytes(received[start : start + size]))
        start += size + 2
