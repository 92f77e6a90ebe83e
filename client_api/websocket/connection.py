"""One connection: takes frames through the states of a session, from `hello` to `bye`.

It knows nothing of sockets (`transport.py`) and decides nothing about rooms; what it does with a frame in
which state is the table of `protocol.session`, and the table of handlers below.

Source: protocol/spec.md, chapter 4; security W4, W7, W10.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from client_api.websocket.answering import Answering, AskingFrame
from client_api.websocket.asking import Asking, error_frame
from client_api.websocket.commands import Commands, Dispatch
from client_api.websocket.flood import Allowance
from client_api.websocket.live import Live
from client_api.websocket.metrics import LOST
from client_api.websocket.opening import PRESENCES, Opened, Peer
from client_api.websocket.services import AUTH_MS, Services
from homeserver.background import run_in_background
from homeserver.clock import Timer
from protocol.canonical_json import dumps
from protocol.errors import MatrixError, NotJson, Unavailable
from protocol.frames import (
    AUTH_FAILED,
    AUTH_TIMEOUT,
    BAD_FRAME,
    FLOOD,
    OVERLOADED,
    Ack,
    Auth,
    Cancel,
    ClientFrame,
    CloseCode,
    Message,
    Ping,
    Pong,
    Presence,
    Read,
    Request,
    Typing,
    decode_frame,
    frame_id,
)
from protocol.session import Event, State, next_state

OVERLOAD_RETRY_MS = 5000


class Socket(Protocol):
    """What carries the frames."""

    def send(self, frame: bytes) -> None:
        """Send one message."""

    def trust(self) -> None:
        """Take messages of full size: the client is known."""

    def read_on(self, reading: bool) -> None:
        """Take bytes in, or leave them in the network."""

    def close(self, code: int, reason: str) -> None:
        """Close, for good within a few seconds."""


class Connection:
    """A client on a socket."""

    def __init__(self, services: Services, socket: Socket, peer: Peer, dispatch: Dispatch) -> None:
        """Wait for `opened`."""
        self.state = State.GREETED
        self._services = services
        self._socket = socket
        self._peer = peer
        self._allowance = Allowance()
        self._asking = Asking(socket.send)
        commands = Commands(dispatch, services.sending, peer.ip)
        self._answering = Answering(commands, self._asking, services.settings.frame_bytes)
        self._auth_timer: Timer | None = None
        self._live: Live | None = None
        self._is_paused = False

    # Called by the socket.

    def opened(self) -> None:
        """Greet the client."""
        services = self._services
        services.registry.greet(self._peer.address, self)
        self._auth_timer = services.clock.call_later(AUTH_MS / 1000, lambda: self.say_bye(AUTH_TIMEOUT))
        self._socket.send(services.settings.hello(secrets.token_urlsafe(9), services.clock.now_ms()))

    def counted(self) -> None:
        """Count a frame of the WebSocket protocol, whatever it holds."""
        if self._live is not None:
            self._live.heartbeat.heard()
        if not self._allowance.take(self._services.clock.now_ms()):
            self.say_bye(FLOOD, OVERLOAD_RETRY_MS)

    def received(self, raw: bytes) -> None:
        """Do what a message asks for, or say why not."""
        if self.state is State.CLOSED:
            return
        found: str | int | None = None
        try:
            frame = decode_frame(raw)
            found = getattr(frame, "id", None)
            self.state = next_state(self.state, frame)
            _HANDLERS[type(frame)](self, frame)
        except MatrixError as error:
            self._socket.send(error_frame(error, found if found is not None else frame_id(raw), "a frame"))
            if isinstance(error, NotJson) and not self._allowance.take_bad():
                self.say_bye(BAD_FRAME)

    def paused(self) -> None:
        """Wait: the socket takes no more. Nothing is read meanwhile, so that answers do not pile up."""
        self._is_paused = True
        self._socket.read_on(False)
        if self._live is not None:
            self._live.pause()

    def resumed(self) -> None:
        """Go on: the socket takes bytes again."""
        self._is_paused = False
        self._socket.read_on(True)
        if self._live is not None:
            self._live.resume()

    def lost(self) -> None:
        """Note that the socket is gone."""
        if self.state is not State.CLOSED:
            self.state = next_state(self.state, Event.ENDED)
            self._services.metrics.ended(LOST)
        self._end()

    # Called by the registry, and by timers.

    def say_bye(self, code: CloseCode, retry_after_ms: int | None = None) -> None:
        """End the session."""
        if self.state is State.CLOSED:
            return
        self.state = next_state(self.state, Event.ENDED)
        self._services.metrics.ended(code.reason)
        self._end()
        bye: dict[str, object] = {"type": "bye", "reason": code.reason, "reconnect": code.reconnect.value}
        if retry_after_ms is not None:
            bye["retry_after_ms"] = retry_after_ms
        self._socket.send(dumps(bye))
        self._socket.close(code.code, code.reason)

    def check_token(self) -> None:
        """See whether the session's token is still good; until that is known nothing is pushed."""
        if self._live is not None:
            self._live.check_token()

    def _end(self) -> None:
        """Stop all that goes on."""
        self._asking.stop()
        if self._auth_timer is not None and self._auth_timer.active():
            self._auth_timer.cancel()
        self._services.registry.part(self._peer.address, self)
        live, self._live = self._live, None
        if live is not None:
            live.stop()
            if self._services.registry.remove(live.requester, self):
                live.gone()

    # Handlers.

    def _on_auth(self, frame: Auth) -> None:
        live = self._live
        work = self._authenticate(frame) if live is None else live.renew(frame)
        run_in_background(work, "authenticating a WebSocket")

    def _on_asking(self, frame: AskingFrame) -> None:
        live = self._require_live()
        if isinstance(frame, Presence) and frame.presence in PRESENCES:
            live.presence = frame.presence
        self._answering.start(frame, live.requester)

    def _on_cancel(self, frame: Cancel) -> None:
        self._asking.cancel(frame)

    def _on_ack(self, frame: Ack) -> None:
        self._require_live().pusher.acknowledge(frame.seq)

    def _on_ping(self, frame: Ping) -> None:
        self._socket.send(b'{"type":"pong","ts":%d}' % self._services.clock.now_ms())

    def _on_pong(self, frame: Pong) -> None:
        if frame.seq is not None and self._live is not None:
            self._live.pusher.acknowledge(frame.seq)

    def _require_live(self) -> Live:
        """Give what a session has while it is live; the table of states lets nothing else come here."""
        if self._live is None:
            raise RuntimeError("a frame came through that has no place before authentication")
        return self._live

    # Authentication.

    async def _authenticate(self, frame: Auth) -> None:
        changes = self._services.registry.changes
        try:
            opened = await self._services.opening.open(frame, self._peer)
        except Exception as error:
            self._not_authenticated(error)
            return
        if self.state is not State.CLOSED:
            self._begin(opened, in_doubt=self._services.registry.changes != changes)

    def _not_authenticated(self, error: Exception) -> None:
        """Say why, and bye."""
        if self.state is State.CLOSED:
            return
        self._socket.send(error_frame(error, None, "authenticating a WebSocket"))
        if isinstance(error, MatrixError) and not isinstance(error, Unavailable):
            self.say_bye(AUTH_FAILED)
        else:
            self.say_bye(OVERLOADED, OVERLOAD_RETRY_MS)

    def _begin(self, opened: Opened, *, in_doubt: bool) -> None:
        """Let the session live; `in_doubt`: its token may have been revoked since it was looked up."""
        self.state = next_state(self.state, Event.ACCEPTED)
        if self._auth_timer is not None and self._auth_timer.active():
            self._auth_timer.cancel()
        services = self._services
        services.registry.part(self._peer.address, self)
        self._socket.trust()
        live = self._live = Live(services, opened, self._peer, self._socket.send, self)
        services.registry.add(opened.requester, self)
        services.metrics.begun(resumed=opened.since is not None, refused=opened.unusable is not None)
        if opened.unusable is not None:
            self._socket.send(error_frame(opened.unusable, None, "a position"))
        if self._is_paused:
            live.pause()
        live.start(in_doubt=in_doubt)


_HANDLERS: Mapping[type[ClientFrame], Callable[[Connection, Any], None]] = {
    Auth: Connection._on_auth,
    Request: Connection._on_asking,
    Message: Connection._on_asking,
    Read: Connection._on_asking,
    Typing: Connection._on_asking,
    Presence: Connection._on_asking,
    Cancel: Connection._on_cancel,
    Ack: Connection._on_ack,
    Ping: Connection._on_ping,
    Pong: Connection._on_pong,
}
