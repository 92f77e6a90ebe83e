"""What all connections share: services, and the figures of the configuration."""

from __future__ import annotations

from typing import Protocol

from attrs import frozen

from client_api.websocket.asking import MAX_REQUESTS
from client_api.websocket.commands import Sending
from client_api.websocket.heartbeat import Jitter
from client_api.websocket.metrics import SessionMetrics
from client_api.websocket.opening import Opening
from client_api.websocket.pushing import Feeding
from client_api.websocket.registry import Registry
from homeserver.clock import Clock
from protocol.canonical_json import dumps
from protocol.identifiers import UserID

AUTH_MS = 10_000
"""How long a client has to authenticate."""


class Heard(Protocol):
    """Is told which devices are there."""

    def heard(self, user_id: UserID, device: str, presence: str = "online") -> None:
        """Note a sign of life."""

    def gone(self, user_id: UserID, device: str) -> None:
        """Note that a device has closed its connection."""


@frozen(eq=False)
class Settings:
    """The figures of the configuration."""

    server_name: str
    version: str
    heartbeat_ms: int
    frame_bytes: int
    window_frames: int
    window_bytes: int
    text_chars: int
    delivery_members: int

    def hello(self, session: str, now: int) -> bytes:
        """Give the `hello` frame."""
        limits = {
            "auth_ms": AUTH_MS,
            "frame_bytes": self.frame_bytes,
            "requests": MAX_REQUESTS,
            "window_frames": self.window_frames,
            "window_bytes": self.window_bytes,
            "text_message_chars": self.text_chars,
            "delivery_status_members": self.delivery_members,
        }
        server = {"name": self.server_name, "version": self.version}
        head = {"type": "hello", "session": session, "heartbeat_ms": self.heartbeat_ms}
        return dumps({**head, "limits": limits, "server": server, "ts": now})


@frozen(eq=False)
class Services:
    """What all connections share."""

    opening: Opening
    feeding: Feeding
    sending: Sending
    registry: Registry
    presences: Heard
    metrics: SessionMetrics
    settings: Settings
    jitter: Jitter

    @property
    def clock(self) -> Clock:
        """Give the clock."""
        return self.feeding.clock
