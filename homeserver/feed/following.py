"""Follow other writers: catch up when the database says that the feed moved, and now and then anyhow.

Only for several workers on one PostgreSQL; a lone process hears of everything from its own commits.
"""

from __future__ import annotations

from homeserver.background import run_in_background
from homeserver.clock import Clock, Timer
from homeserver.feed.tail import Feed

POLL_SECONDS = 1.0
"""How long a notification that was lost may go unnoticed. Each look costs a resting process 1 ms, and the
database about as much."""
BEHIND_MS = 2_000
"""A tail that has not been compared with the database for so long may lack what others wrote."""


class Follower:
    """Keep a feed's tail up to date with the database."""

    def __init__(self, feed: Feed, clock: Clock, poll_seconds: float = POLL_SECONDS) -> None:
        """Poll every `poll_seconds`, besides what `moved` tells."""
        self._feed = feed
        self._clock = clock
        self._poll_seconds = poll_seconds
        self._timer: Timer | None = None
        self._reading = False
        self._again = False
        self._stopped = True
        self._current_at = clock.now_ms()

    def is_behind(self) -> bool:
        """Tell whether the tail may lack what others wrote some seconds ago."""
        return self._clock.now_ms() - max(self._current_at, self._feed.whole_at) > BEHIND_MS

    def start(self) -> None:
        """Begin to poll."""
        self._stopped = False
        self.moved()

    def stop(self) -> None:
        """Poll no more."""
        self._stopped = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def _look(self) -> None:
        """Catch up, unless an own commit has proved of late that there is nothing to catch up with."""
        left = self._poll_seconds - (self._clock.now_ms() - self._feed.whole_at) / 1000
        if 0 < left <= self._poll_seconds and not self._stopped:
            self._timer = self._clock.call_later(left, self._look)
        else:
            self.moved()

    def moved(self) -> None:
        """Catch up now; a call during a reading makes another one follow it."""
        self._again = True
        if not self._reading and not self._stopped:
            self._reading = True
            run_in_background(self._read(), "following the feed")

    async def _read(self) -> None:
        try:
            while self._again and not self._stopped:
                self._again = False
                asked_at = self._clock.now_ms()
                await self._feed.catch_up()
                self._current_at = asked_at
        finally:
            self._reading = False
            self._rest()

    def _rest(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if not self._stopped:
            self._timer = self._clock.call_later(self._poll_seconds, self._look)
