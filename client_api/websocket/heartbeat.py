"""The timers of a live connection: pings, silence, and the end of its access token.

Source: protocol/spec.md, "Heartbeats" and "Authenticating"; security W4, W7.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from attrs import define

from homeserver.clock import Clock, Timer

PONG_MS = 15_000
"""How long a client may take to answer a ping."""
STUCK_MS = 600_000
"""How long a socket may take no bytes at all; within that a slow client is only waited for."""
WARN_MS = 60_000
"""How long before its end a token is said to end."""
JITTER = 0.1


class Jitter(Protocol):
    """Gives random numbers (`random.SystemRandom`)."""

    def uniform(self, a: float, b: float) -> float:
        """Give a number between two."""
        ...


@define(eq=False)
class Beating:
    """What a heartbeat calls."""

    ping: Callable[[], None]
    silent: Callable[[], None]


@define(eq=False)
class Heartbeat:
    """Pings a client, and tells when nothing was heard of it."""

    _clock: Clock
    _interval_ms: int
    _jitter: Jitter
    _calls: Beating
    _heard: int = 0
    _stuck_since: int | None = None
    _ping: Timer | None = None
    _silence: Timer | None = None

    def start(self) -> None:
        """Begin."""
        self.heard()
        self._arm_ping()
        self._arm_silence(self._interval_ms + PONG_MS)

    def stop(self) -> None:
        """End."""
        for timer in (self._ping, self._silence):
            if timer is not None and timer.active():
                timer.cancel()
        self._ping = self._silence = None

    def heard(self) -> None:
        """Note that the client has sent something."""
        self._heard = self._clock.now_ms()

    def stuck(self, since: int | None) -> None:
        """Note since when the socket takes no bytes; None: it takes them again."""
        self._stuck_since = since
        if since is None:
            self.heard()

    def _arm_ping(self) -> None:
        seconds = self._interval_ms / 1000 * self._jitter.uniform(1 - JITTER, 1 + JITTER)
        self._ping = self._clock.call_later(seconds, self._beat)

    def _beat(self) -> None:
        self._arm_ping()
        if self._stuck_since is None:
            self._calls.ping()

    def _arm_silence(self, wait_ms: int) -> None:
        self._silence = self._clock.call_later(wait_ms / 1000, self._listen)

    def _listen(self) -> None:
        """Judge the silence; nothing can be heard of a client that is not read from."""
        bound, since = self._interval_ms + PONG_MS, self._heard
        if self._stuck_since is not None:
            bound, since = STUCK_MS, self._stuck_since
        left = since + bound - self._clock.now_ms()
        if left > 0:
            self._arm_silence(left)
        else:
            self._calls.silent()


@define(eq=False)
class Expiry:
    """Warns before an access token ends, and tells when it has ended."""

    _clock: Clock
    _warn: Callable[[int], None]
    """Gets the milliseconds that are left."""
    _end: Callable[[], None]
    _ends: int | None = None
    _timer: Timer | None = None

    def set(self, ends: int | None) -> None:
        """Follow a token that ends at `ends`, in milliseconds; None: never by itself."""
        self.stop()
        self._ends = ends
        if ends is not None:
            left = ends - self._clock.now_ms()
            self._arm(left - min(WARN_MS, left // 2), self._tell)

    def bring_forward(self, wait_ms: int) -> None:
        """Let the token end in so long, if it does not sooner, and say so at once."""
        now = self._clock.now_ms()
        if self._ends is None or self._ends > now + wait_ms:
            self.stop()
            self._ends = now + wait_ms
            self._tell()

    def stop(self) -> None:
        """Follow no token."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _tell(self) -> None:
        left = max(0, (self._ends or 0) - self._clock.now_ms())
        self._arm(left, self._end)
        self._warn(left)

    def _arm(self, wait_ms: int, call: Callable[[], None]) -> None:
        self._timer = self._clock.call_later(max(0, wait_ms) / 1000, call)
