"""Large answers on their way out, at the pace of the peer: whole bodies in pieces, and bodies in the making.

A body that is made while it goes out (the state of a large room) is never in memory as a whole; its length
is not known before, so it goes out in chunks. If the making fails, the connection breaks off without the
last chunk, and the peer knows that it has not got all.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

WHOLE_ANSWER = 262_144
"""Bytes of an answer that are handed to the transport at once; larger ones follow its pace."""


class Outlet(Protocol):
    """Where an answer goes: a request whose headers are out."""

    def send(self, data: bytes) -> None:
        """Write to the transport."""
        ...

    def follow(self, producer: object) -> None:
        """Let the transport set the pace of `producer`; None sets it free."""
        ...

    def end(self) -> None:
        """Let the connection go on to its next request."""
        ...


@implementer(IPushProducer)
class Pieces:
    """Sends a large body piece by piece, as fast as the peer takes it."""

    def __init__(self, outlet: Outlet, body: bytes) -> None:
        self._outlet = outlet
        self._body = memoryview(body)
        self._at = 0
        self._paused = False
        self._sending = False

    def start(self) -> None:
        """Begin to send."""
        self._outlet.follow(self)
        self.resumeProducing()

    def resumeProducing(self) -> None:
        """Send until told to pause."""
        self._paused = False
        if self._sending:
            return
        self._sending = True
        while not self._paused and self._at < len(self._body):
            piece = self._body[self._at : self._at + WHOLE_ANSWER]
            self._at += len(piece)
            self._outlet.send(bytes(piece))
        self._sending = False
        if not self._paused and self._at >= len(self._body):
            self._paused = True
            self._outlet.follow(None)
            self._outlet.end()

    def pauseProducing(self) -> None:
        """Wait for the peer."""
        self._paused = True

    def stopProducing(self) -> None:
        """Give up: the peer is gone."""
        self._paused = True


@implementer(IPushProducer)
@define(eq=False)
class Making:
    """Sends a body piece by piece as it is made, and has no more made than the peer takes."""

    outlet: Outlet
    pieces: AsyncIterator[bytes]
    chunked: bool
    """False for peers of HTTP/1.0, to whom the end of the connection is the end of the body."""
    _paused: Deferred[None] | None = field(default=None, init=False)
    _gone: bool = field(default=False, init=False)

    async def run(self) -> None:
        """Send all of it; raises what the making raises."""
        self.outlet.follow(self)
        async for piece in self.pieces:
            if self._gone:
                return
            if piece:
                self.outlet.send(b"%x\r\n%b\r\n" % (len(piece), piece) if self.chunked else piece)
            if self._paused is not None:
                await self._paused
        if self._gone:
            return
        if self.chunked:
            self.outlet.send(b"0\r\n\r\n")
        self.outlet.follow(None)
        self.outlet.end()

    def resumeProducing(self) -> None:
        """Go on."""
        waiting, self._paused = self._paused, None
        if waiting is not None:
            waiting.callback(None)

    def pauseProducing(self) -> None:
        """Wait for the peer."""
        if self._paused is None:
            self._paused = Deferred()

    def stopProducing(self) -> None:
        """Give up: the peer is gone."""
        self._gone = True
        self.resumeProducing()
