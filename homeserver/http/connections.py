"""Outgoing HTTP/1.1 connections: one request at a time, kept for the next while they are idle.

Lean on purpose: a message to another server costs about as much as writing and reading these bytes. Framing
and bounds are in `answer_reader`, addresses and TLS in `dialing`, deadlines in `agent`.

Source: RFC 9112, 9 (connection management).
"""

from __future__ import annotations

from typing import Any

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure

from homeserver.http.answer_reader import AnswerReader, OutboundAnswer
from homeserver.http.dialing import Place
from homeserver.http.outbound_errors import CannotConnect, OutboundError

MAX_IDLE = 200
"""Idle connections kept in all."""
MAX_IDLE_PER_PLACE = 2
IDLE_SECONDS = 25
"""How long an idle connection is kept: less than servers keep theirs, so that few are found closed."""


class NoAnswerBegun(CannotConnect):
    """The connection ended before anything of an answer came: the request may never have been read."""


class OutboundConnection(Protocol):
    """A connection to one place."""

    def __init__(self) -> None:
        """Begin with nothing asked."""
        self._reader: AnswerReader | None = None
        self._answered: Deferred[OutboundAnswer] | None = None
        self.usable = True
        """Whether another request may be asked over it."""

    def ask(self, request: bytes, reader: AnswerReader) -> Deferred[OutboundAnswer]:
        """Send a request and give its answer; fails with OutboundError. Cancelling drops the connection."""
        assert self._answered is None, "one request at a time"
        transport: Any = self.transport
        answered: Deferred[OutboundAnswer] = Deferred(lambda _: self._give_up())
        self._reader, self._answered = reader, answered
        transport.write(request)
        return answered

    def dataReceived(self, data: bytes) -> None:
        """Read on; what nobody asked for ends the connection."""
        reader = self._reader
        if reader is None:
            self.drop()
            return
        try:
            answer = reader.feed(data)
        except OutboundError as error:
            self._fail(error)
            return
        if answer is not None:
            if not reader.persistent:
                self.close()
            self._settle().callback(answer)

    def connectionLost(self, reason: Failure | None = None) -> None:
        """End the answer under way."""
        self.usable = False
        reader = self._reader
        if reader is None:
            return
        if not reader.begun:
            why = "it was closed" if reason is None else type(reason.value).__name__
            self._fail(NoAnswerBegun(f"the server gave no answer: {why}"))
            return
        try:
            answer = reader.end()
        except OutboundError as error:
            self._fail(error)
        else:
            self._settle().callback(answer)

    def drop(self) -> None:
        """Close at once."""
        if self.usable:
            self.usable = False
            transport: Any = self.transport
            transport.abortConnection()

    def close(self) -> None:
        """Close once everything is sent."""
        self.usable = False
        transport: Any = self.transport
        transport.loseConnection()

    def _give_up(self) -> None:
        self._settle()
        self.drop()

    def _fail(self, error: OutboundError) -> None:
        answered = self._settle()
        self.drop()
        answered.errback(error)

    def _settle(self) -> Deferred[OutboundAnswer]:
        answered = self._answered
        assert answered is not None
        self._reader = self._answered = None
        return answered


class ConnectionFactory(Factory):
    """Makes connections for an endpoint."""

    protocol = OutboundConnection
    noisy = False


@frozen(eq=False)
class _Idle:
    """A connection nobody uses, and since when (seconds)."""

    connection: OutboundConnection
    since: float


@define(eq=False)
class IdleConnections:
    """Keeps idle connections by place, the most recent used first; one timer for all of them."""

    reactor: Any
    _by_place: dict[Place, list[_Idle]] = field(factory=dict, init=False)
    _count: int = field(default=0, init=False)
    _timer: Any = field(default=None, init=False)

    def take(self, place: Place) -> OutboundConnection | None:
        """Give a connection to `place` that is still open, if there is one."""
        idle = self._by_place.get(place, [])
        while idle:
            connection = idle.pop().connection
            self._count -= 1
            if connection.usable:
                return connection
        return None

    def put(self, place: Place, connection: OutboundConnection) -> None:
        """Keep a connection for later, or close it when enough are kept."""
        if not connection.usable:
            return
        idle = self._by_place.setdefault(place, [])
        if self._count >= MAX_IDLE or len(idle) >= MAX_IDLE_PER_PLACE:
            connection.close()
            return
        idle.append(_Idle(connection, self.reactor.seconds()))
        self._count += 1
        if self._timer is None:
            self._timer = self.reactor.callLater(IDLE_SECONDS, self._expire)

    def close(self) -> None:
        """Close all of them."""
        self._sort_out(until=float("inf"))
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        """Close what has been idle for long, and look again when the next one will have been."""
        self._timer = None
        oldest = self._sort_out(until=self.reactor.seconds() - IDLE_SECONDS)
        if oldest is not None:
            wait = max(oldest + IDLE_SECONDS - self.reactor.seconds(), 1.0)
            self._timer = self.reactor.callLater(wait, self._expire)

    def _sort_out(self, until: float) -> float | None:
        """Let go of what is closed and what is idle since `until` or before; tell how old the rest is."""
        oldest: float | None = None
        for place, idle in list(self._by_place.items()):
            kept = [each for each in idle if each.connection.usable and each.since > until]
            for each in idle:
                if each.connection.usable and each not in kept:
                    each.connection.close()
            self._count -= len(idle) - len(kept)
            if kept:
                self._by_place[place] = kept
                oldest = min(kept[0].since, oldest) if oldest is not None else kept[0].since
            else:
                del self._by_place[place]
        return oldest
