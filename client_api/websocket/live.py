"""A session that is authenticated: what is pushed to it, its heartbeat, its access token.

Source: protocol/spec.md, "Authenticating", "Heartbeats"; security W7.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from client_api.websocket.asking import error_frame
from client_api.websocket.heartbeat import Beating, Expiry, Heartbeat
from client_api.websocket.opening import Opened, Peer
from client_api.websocket.pushing import Pusher
from client_api.websocket.services import Services
from homeserver.background import run_in_background
from homeserver.sync.session import Session
from protocol.canonical_json import dumps
from protocol.errors import MatrixError, Unavailable, UnknownToken, UserLocked
from protocol.frames import AUTH_FAILED, LOGGED_OUT, SILENT, Auth, CloseCode
from protocol.session import Window

REPLACED_TOKEN_MS = 10_000
"""How long a session outlives an access token that was replaced by a newer one of the same session."""
RECHECK_SECONDS = 1.0
_PING = b'{"type":"ping"}'


class Owner(Protocol):
    """The connection."""

    def say_bye(self, code: CloseCode, retry_after_ms: int | None = None) -> None:
        """End the session."""


class Live:
    """What a connection has while it is live."""

    def __init__(
        self, services: Services, opened: Opened, peer: Peer, send: Callable[[bytes], None], owner: Owner
    ) -> None:
        """Wait for `start`."""
        self.requester = opened.requester
        self.presence = opened.presence
        self._services = services
        self._token = opened.token
        self._expires = opened.expires
        self._peer = peer
        self._send = send
        self._owner = owner
        self._stopped = False
        self._checks = 0
        settings, clock, who = services.settings, services.clock, opened.requester
        session = Session(who.user_id, who.user_nid, who.device_id)
        window = Window(settings.window_frames, settings.window_bytes)
        self.pusher = Pusher(services.feeding, session, opened.options, window, send, opened.since)
        calls = Beating(self._ping, lambda: owner.say_bye(SILENT))
        self.heartbeat = Heartbeat(clock, settings.heartbeat_ms, services.jitter, calls)
        self._expiry = Expiry(clock, self._warn, self._expired)

    def start(self, *, in_doubt: bool) -> None:
        """Begin: the client is told that it is authenticated, then what changed.

        A token `in_doubt` is looked up once more before anything is pushed.
        """
        self._tell_authenticated()
        self._note_presence()
        self._expiry.set(self._expires)
        self.heartbeat.start()
        if in_doubt:
            self.check_token()
        if not self._stopped:
            self.pusher.start()

    def stop(self) -> None:
        """End all that goes on."""
        self._stopped = True
        self.pusher.stop()
        self.heartbeat.stop()
        self._expiry.stop()

    def gone(self) -> None:
        """Note that the device has no connection any more."""
        self._services.presences.gone(self.requester.user_id, self.requester.device_id)

    def pause(self) -> None:
        """Wait: the socket takes no more."""
        self.heartbeat.stuck(self._services.clock.now_ms())
        self.pusher.pause()

    def resume(self) -> None:
        """Go on: the socket takes bytes again."""
        self.heartbeat.stuck(None)
        self.pusher.resume()

    async def renew(self, frame: Auth) -> None:
        """Take another token for the same user and device."""
        token = frame.token or self._token
        changes = self._services.registry.changes
        try:
            requester, expires = await self._services.opening.identify(token, self._peer)
        except Exception as error:
            self._not_renewed(error)
            return
        if self._stopped:
            return
        if (requester.user_nid, requester.device_id) != (self.requester.user_nid, self.requester.device_id):
            self._owner.say_bye(AUTH_FAILED)
            return
        self.requester, self._token = requester, token
        self._expiry.set(expires)
        self._tell_authenticated()
        if self._services.registry.changes != changes:
            self.check_token()

    def check_token(self) -> None:
        """See whether the token is still good; until that is known nothing is pushed."""
        if not self._stopped:
            self.pusher.hold(True)
            self._checks += 1
            run_in_background(self._check(self._checks), "checking the token of a WebSocket")

    async def _check(self, number: int) -> None:
        """Look the token up again; one that was only replaced leaves time for `auth` with the new one."""
        token = self._token
        try:
            requester, _ = await self._services.opening.identify(token, self._peer)
        except Exception as error:
            if not isinstance(error, MatrixError) or isinstance(error, Unavailable):
                self._services.clock.call_later(RECHECK_SECONDS, self.check_token)
                raise
            self._not_good(token, error, number)
            return
        if number == self._checks and self._token == token:
            self.requester = requester
        self._release(number)

    def _release(self, number: int) -> None:
        """Push again after a check, unless another began since: what this one saw may hold no more."""
        if number == self._checks:
            self.pusher.hold(False)

    def _not_good(self, token: str, error: MatrixError, number: int) -> None:
        if self._stopped:
            return
        if isinstance(error, UserLocked):
            self._end(error)
            return
        if self._token == token and not error.extra.get("soft_logout"):
            self._owner.say_bye(LOGGED_OUT)
            return
        if self._token == token:
            self._expiry.bring_forward(REPLACED_TOKEN_MS)
        self._release(number)

    def _not_renewed(self, error: Exception) -> None:
        """Say why; a session whose new token is not good ends."""
        if self._stopped:
            return
        self._send(error_frame(error, None, "renewing the token of a WebSocket"))
        if isinstance(error, MatrixError) and not isinstance(error, Unavailable):
            self._owner.say_bye(AUTH_FAILED)

    def _tell_authenticated(self) -> None:
        who = self.requester
        self._send(dumps({"type": "auth", "user_id": who.user_id, "device_id": who.device_id}))

    def _ping(self) -> None:
        self._note_presence()
        self._send(_PING)

    def _note_presence(self) -> None:
        self._services.presences.heard(self.requester.user_id, self.requester.device_id, self.presence)

    def _warn(self, left_ms: int) -> None:
        self._send(b'{"type":"token_expiring","expires_in_ms":%d}' % left_ms)

    def _expired(self) -> None:
        self._end(UnknownToken("The access token has expired", soft_logout=True))

    def _end(self, error: MatrixError) -> None:
        """Say why the token is good no more, and bye."""
        self._send(error_frame(error, None, "a token"))
        self._owner.say_bye(AUTH_FAILED)
