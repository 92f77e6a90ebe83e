"""Waiting for a destination: until its back-off ends or it is heard of, or a grudge is over.

A grudge is held against a server that is up but takes no transactions. It goes on whatever else is heard
of that server, or each of its own requests would be answered by another vain try.
"""

from __future__ import annotations

from attrs import define, field
from twisted.internet.defer import Deferred

from homeserver.clock import Clock

FIRST_GRUDGE = 60.0
MAX_GRUDGE = 3_600.0
"""Seconds before a server that refuses transactions is tried again, doubling from first to max."""


@define(eq=False)
class Patience:
    """The waiting of one destination."""

    clock: Clock
    grudge: float = field(default=0.0, init=False)
    """Seconds; 0: none is held."""
    _waiting: Deferred[None] | None = field(default=None, init=False)
    _firm: bool = field(default=False, init=False)
    _heard: bool = field(default=False, init=False)

    def listen(self) -> None:
        """Take note from now on: a wait of which the length is yet to be found ends if it was heard of."""
        self._heard = False

    async def wait(self, seconds: float, *, firm: bool = False) -> None:
        """Wait, unless the destination was heard of since `listen`, or is sooner; `firm`: even then."""
        if self._heard and not firm:
            return
        waiting: Deferred[None] = Deferred()
        self._waiting, self._firm = waiting, firm
        timer = self.clock.call_later(seconds, self.end)
        await waiting
        self._firm = False
        if timer.active():
            timer.cancel()

    def hear(self) -> None:
        """Note that the destination lives."""
        self._heard = True
        if not self._firm:
            self.end()

    def end(self) -> None:
        """Wait no longer."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)

    def offend(self, asked_ms: object) -> None:
        """Hold a grudge, longer than the last one and as long as the server asks for."""
        asked = asked_ms / 1000 if isinstance(asked_ms, int) else 0.0
        self.grudge = min(max(self.grudge * 2, FIRST_GRUDGE, asked), MAX_GRUDGE)

    def forgive(self) -> None:
        """Hold no grudge."""
        self.grudge = 0.0
