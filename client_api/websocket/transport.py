"""Sockets: Autobahn's protocol, bounded, with frames written whole and back-pressure passed on.

Autobahn reads frames, checks UTF-8 and closes; every option that bounds something is set here, since its
defaults are "without". What is sent is written as bytes of one frame, past its per-message work.

Source: RFC 6455; security W2, W3, W4, W5.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import pack
from typing import Any, Protocol

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket.compress import PerMessageDeflateOffer, PerMessageDeflateOfferAccept
from autobahn.websocket.types import ConnectionRequest
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import connectionDone
from twisted.protocols.policies import ProtocolWrapper
from twisted.python.failure import Failure
from zope.interface import implementer

from homeserver.clock import Clock, Timer
from protocol.frames import BAD_FRAME, FRAME_TOO_LARGE, MAX_UNAUTHENTICATED_BYTES, SUBPROTOCOL, CloseCode

CLOSE_SECONDS = 5.0
"""How long a client may take to answer the closing handshake."""
_TEXT = 0x81
_MASKED = 0x80
_SHORT_HEAD = 6


class Connected(Protocol):
    """A connection, as its socket sees it."""

    def opened(self) -> None:
        """Greet the client."""

    def counted(self) -> None:
        """Count a frame of the WebSocket protocol."""

    def received(self, raw: bytes) -> None:
        """Do what a message asks for."""

    def paused(self) -> None:
        """Wait: the socket takes no more."""

    def resumed(self) -> None:
        """Go on."""

    def lost(self) -> None:
        """Note that the socket is gone."""

    def say_bye(self, code: CloseCode, retry_after_ms: int | None = None) -> None:
        """End the session."""


class Sockets(WebSocketServerFactory):
    """Makes sockets, and knows those that are open."""

    def __init__(self, clock: Clock, *, frame_bytes: int, compression: bool) -> None:
        """Take messages of at most `frame_bytes` of those who are authenticated."""
        super().__init__(  # type: ignore[no-untyped-call]  # Autobahn's
            protocols=[SUBPROTOCOL], server=None, reactor=clock.reactor
        )
        self.clock = clock
        self.frame_bytes = frame_bytes
        self.open: set[ClientSocket] = set()
        self._on_empty: Callable[[], object] | None = None
        self.setProtocolOptions(  # type: ignore[no-untyped-call]  # Autobahn's
            versions=[13],
            webStatus=False,
            utf8validateIncoming=True,
            requireMaskedClientFrames=True,
            maskServerFrames=False,
            maxFramePayloadSize=MAX_UNAUTHENTICATED_BYTES,
            maxMessagePayloadSize=MAX_UNAUTHENTICATED_BYTES,
            failByDrop=False,
            echoCloseCodeReason=False,
            # The request is whole when a socket is made; closing has a timer of ours.
            openHandshakeTimeout=0,
            closeHandshakeTimeout=0,
            tcpNoDelay=True,
            autoPingInterval=0,
            perMessageCompressionAccept=_accept_compression if compression else _refuse_compression,
        )

    def when_empty(self, call: Callable[[], object]) -> None:
        """Call once no socket is open any more."""
        self._on_empty = call

    def forget(self, socket: ClientSocket) -> None:
        """Note that a socket is gone."""
        self.open.discard(socket)
        if not self.open and self._on_empty is not None:
            self._on_empty()

    def take_over(self, request: Any, handshake: bytes, connect: Callable[[ClientSocket], Connected]) -> None:
        """Take a request's transport from HTTP; `connect` makes the connection of the socket."""
        channel: Any = request.channel
        socket: Any = ClientSocket(connect)
        socket.factory = self
        transport: Any = channel.transport
        channel.transport = None
        channel.setTimeout(None)
        transport.unregisterProducer()
        if isinstance(transport, ProtocolWrapper):
            transport.wrappedProtocol = socket
        else:
            transport.protocol = socket
        socket.makeConnection(transport)
        transport.registerProducer(_Pressure(socket), True)
        socket.read_on(True)
        socket.dataReceived(handshake)


class ClientSocket(WebSocketServerProtocol):
    """One socket."""

    transport: Any
    factory: Any
    state: Any
    _perMessageCompress: Any

    def __init__(self, connect: Callable[[ClientSocket], Connected]) -> None:
        """Wait for the transport."""
        super().__init__()
        self.connection = connect(self)
        self._closing: Timer | None = None
        self._is_lost = False

    def dataReceived(self, data: bytes) -> None:
        """Take bytes in; a short message that comes by itself, as acknowledgements do, is read here."""
        is_between = self.state == self.STATE_OPEN and not (
            self.inside_message or self.current_frame or self.data
        )
        message = read_short(data) if is_between else None
        if message is None:
            super().dataReceived(data)
        else:
            self.connection.counted()
            self.connection.received(message)

    # Called by Autobahn.

    def onConnect(self, request: ConnectionRequest) -> str:
        """Speak our subprotocol; all else was checked before."""
        return SUBPROTOCOL

    def onOpen(self) -> None:
        """Begin."""
        self.factory.open.add(self)
        self.connection.opened()

    def onMessageFrameBegin(self, length: int) -> None:
        """Count a frame, and refuse one that would make its message too large (security: W2)."""
        self.connection.counted()
        if self.message_data_total_length + length > self.maxMessagePayloadSize:
            self.connection.say_bye(FRAME_TOO_LARGE)
        super().onMessageFrameBegin(length)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        """Take a message."""
        if isBinary:
            self.connection.say_bye(BAD_FRAME)
        else:
            self.connection.received(payload)

    def onPing(self, payload: bytes) -> None:
        """Answer a ping of the WebSocket protocol, within bounds."""
        self.connection.counted()
        super().onPing(payload)

    def onPong(self, payload: bytes) -> None:
        """Count a pong of the WebSocket protocol."""
        self.connection.counted()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """End."""
        self._is_lost = True
        if self._closing is not None and self._closing.active():
            self._closing.cancel()
        self.factory.forget(self)
        self.connection.lost()
        super().connectionLost(reason)

    # Called by the connection.

    def send(self, frame: bytes) -> None:
        """Send one message."""
        if self._is_lost or self.state != self.STATE_OPEN:
            return
        if self._perMessageCompress is not None:
            self.sendMessage(frame)  # type: ignore[no-untyped-call]  # Autobahn's
        else:
            self.transport.write(_head(len(frame)) + frame)

    def trust(self) -> None:
        """Take messages of full size: the client is known."""
        self.maxFramePayloadSize = self.maxMessagePayloadSize = self.factory.frame_bytes

    def read_on(self, reading: bool) -> None:
        """Take bytes in, or leave them in the network; one that is closing already does as it must."""
        if self._is_lost or self.transport.disconnecting:
            return
        if reading:
            self.transport.resumeProducing()
        else:
            self.transport.pauseProducing()

    def close(self, code: int, reason: str) -> None:
        """Close; a client that does not answer in time is cut off."""
        if not self._is_lost and self._closing is None:
            self._closing = self.factory.clock.call_later(CLOSE_SECONDS, self.transport.abortConnection)
            self.read_on(True)
            self.sendClose(code, reason)


@implementer(IPushProducer)
class _Pressure:
    """Tells a connection whether its socket takes more."""

    def __init__(self, socket: ClientSocket) -> None:
        self._socket = socket

    def pauseProducing(self) -> None:
        """Wait."""
        self._socket.connection.paused()

    def resumeProducing(self) -> None:
        """Go on."""
        self._socket.connection.resumed()

    def stopProducing(self) -> None:
        """Do nothing: the loss of the connection is told otherwise."""


def read_short(data: bytes) -> bytes | None:
    """Give the payload of a single short, whole, masked text frame in ASCII; None for all else."""
    length = len(data) - _SHORT_HEAD
    if not 0 < length < 126 or data[0] != _TEXT or data[1] != _MASKED | length:
        return None
    mask = int.from_bytes((data[2:_SHORT_HEAD] * 32)[:length], "big")
    payload = (int.from_bytes(data[_SHORT_HEAD:], "big") ^ mask).to_bytes(length, "big")
    return payload if payload.isascii() else None


def _head(length: int) -> bytes:
    """Give the head of a text frame."""
    if length < 126:
        return pack(">BB", _TEXT, length)
    if length < 65536:
        return pack(">BBH", _TEXT, 126, length)
    return pack(">BBQ", _TEXT, 127, length)


def _accept_compression(offers: list[Any]) -> PerMessageDeflateOfferAccept | None:
    """Take the first offer of deflate, without any memory between messages (security: W3)."""
    for offer in offers:
        if isinstance(offer, PerMessageDeflateOffer) and offer.accept_no_context_takeover:
            return PerMessageDeflateOfferAccept(  # type: ignore[no-untyped-call]  # Autobahn's
                offer, request_no_context_takeover=True, no_context_takeover=True
            )
    return None


def _refuse_compression(offers: list[Any]) -> None:
    """Take no offer."""
