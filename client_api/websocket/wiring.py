"""The WebSocket client API, put together; `homeserver/app.py` gives the services."""

from __future__ import annotations

import random
from importlib.metadata import version
from typing import Any

from attrs import frozen
from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred

from client_api.websocket.commands import Sending
from client_api.websocket.connection import Connection
from client_api.websocket.handshake import bearer, check_origin, upgrade_request
from client_api.websocket.metrics import SessionMetrics
from client_api.websocket.opening import MAX_USER_AGENT, Opening, Peer, StoredFilters, Tokens
from client_api.websocket.pushing import Feeding
from client_api.websocket.registry import Registry
from client_api.websocket.services import Heard, Services, Settings
from client_api.websocket.transport import ClientSocket, Sockets
from homeserver.accounts.tickets import LIFE_MS, Tickets
from homeserver.clock import Clock
from homeserver.config.sections import Config
from homeserver.feed.tail import Feed
from homeserver.http.answers import error_response
from homeserver.http.calls import Call, Reply, Response, TakeOver
from homeserver.http.client_address import address_key
from homeserver.http.rate_limits import RateLimiter
from homeserver.http.routing import Auth, RateClass, Route
from homeserver.rooms.conversations import Conversations
from homeserver.sync.feed import SessionFeed
from homeserver.sync.filters import Filters
from homeserver.sync.long_poll import LongPoll
from homeserver.sync.waiting import Waiters
from protocol.errors import InvalidParam, MatrixError, Unavailable

PATH = "/_plait/client/v1/ws"
TICKET_PATH = PATH + "/ticket"
STOP_SECONDS = 5.0
"""How long clients have to take their `bye` when the server stops."""
_MIN_HEARTBEAT = 1.0


@frozen(eq=False)
class WebSocketParts:
    """The services that the WebSocket client API needs."""

    tokens: Tokens
    """`homeserver.accounts.sessions.Sessions`."""
    stored_filters: StoredFilters
    """`homeserver.accounts.filters`: filters by ID."""
    session_feed: SessionFeed
    polls: LongPoll
    waiters: Waiters
    conversations: Conversations
    limiter: RateLimiter
    presences: Heard
    """`homeserver.ephemeral.presence.Presences`."""
    tickets: Tickets


class WebSocketApi:
    """Serves the socket and the tickets to it, and ends all sessions when the server stops."""

    def __init__(self, services: Services, sockets: Sockets, tickets: Tickets, config: Config) -> None:
        """Take what `make_websocket` made."""
        self._tickets = tickets
        self._services = services
        self._sockets = sockets
        self._config = config.websocket
        self._stopping = False

    def routes(self) -> tuple[Route, ...]:
        """List the endpoints, none if the configuration has them off."""
        if not self._config.enabled:
            return ()
        ticket: dict[str, Any] = {"auth": Auth.GUEST, "limit": RateClass.WRITES, "while_suspended": True}
        return (
            Route("GET", PATH, self.open, auth=Auth.NONE, over_websocket=False, cors=False),
            Route("POST", TICKET_PATH, self.ticket, body=bytes, over_websocket=False, **ticket),
        )

    async def ticket(self, call: Call[bytes]) -> Reply:
        """POST /_plait/client/v1/ws/ticket: give what opens one socket, in its URL."""
        ticket = await self._tickets.make(call.access_token, call.now)
        return {"ticket": ticket, "expires_in_ms": LIFE_MS}

    async def open(self, call: Call[None]) -> Reply:
        """GET /_plait/client/v1/ws: refuse a token in the URL, take a ticket, and the connection over."""
        if call.query.get("access_token") is not None or call.query.get("token") is not None:
            raise InvalidParam("access_token: is never taken from the URL here")
        ticket = call.query.get("ticket")
        token = None if ticket is None else await self._tickets.take(ticket, call.now)
        return TakeOver(lambda request: self._start(request, call, token))

    def _start(self, request: Any, call: Call[None], token: str | None) -> Response | None:
        """Check the handshake and begin, or give the refusal."""
        headers = request.requestHeaders
        address = address_key(call.ip)
        try:
            if self._stopping:
                raise Unavailable("The server is about to stop")
            check_origin(headers.getRawHeaders(b"origin", ()), self._config.allowed_origins)
            handshake = upgrade_request(
                lambda name: headers.getRawHeaders(name, ()), compression=self._config.compression
            )
            self._services.registry.check_room_for(address)
        except MatrixError as error:
            return error_response(error, "a WebSocket handshake")
        token = token or bearer(headers.getRawHeaders(b"authorization", ()))
        peer = Peer(call.ip, address, call.user_agent[:MAX_USER_AGENT], token)
        dispatch = request.dispatcher.dispatch

        def connect(socket: ClientSocket) -> Connection:
            return Connection(self._services, socket, peer, dispatch)

        self._sockets.take_over(request, handshake, connect)
        return None

    @property
    def connections(self) -> int:
        """Count the open sockets."""
        return len(self._sockets.open)

    async def stop(self) -> None:
        """Tell everybody to come back later, and wait a little until they have heard it."""
        self._stopping = True
        self._services.registry.say_bye_to_all()
        if not self._sockets.open:
            return
        emptied: Deferred[None] = Deferred()
        timer = self._services.clock.call_later(STOP_SECONDS, lambda: emptied.callback(None))
        self._sockets.when_empty(lambda: None if emptied.called else emptied.callback(None))
        await emptied
        if timer.active():
            timer.cancel()


def make_websocket(
    parts: WebSocketParts, feed: Feed, clock: Clock, config: Config, metrics: CollectorRegistry
) -> WebSocketApi:
    """Put the WebSocket client API together and let it follow the feed.

    Its `routes()` belong to the listeners' resource `client`, since frames are dispatched by the listener
    they came by; `stop()` comes first when the server stops, while everything still works.
    """
    section = config.websocket
    settings = Settings(
        config.server_name,
        version("plait"),
        int(max(_MIN_HEARTBEAT, section.heartbeat) * 1000),
        section.frame_bytes,
        section.window_frames,
        section.window_bytes,
        config.limits.text_message_chars,
        config.limits.delivery_status_members,
    )
    registry = Registry(config.limits.connections_per_user)
    services = Services(
        Opening(parts.tokens, parts.session_feed, Filters(), parts.stored_filters, clock),
        Feeding(parts.session_feed, parts.polls, parts.waiters, clock),
        Sending(parts.conversations, parts.limiter, clock, config.limits.text_message_chars),
        registry,
        parts.presences,
        SessionMetrics(metrics, registry.__len__),
        settings,
        random.SystemRandom(),
    )
    feed.add_session_listener(registry.apply)
    sockets = Sockets(clock, frame_bytes=section.frame_bytes, compression=section.compression)
    return WebSocketApi(services, sockets, parts.tickets, config)
