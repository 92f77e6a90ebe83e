"""Back-off: how long a server that fails is left in peace, shared by all requests to it.

Delays double with jitter from a few seconds to a day, are kept in the database, so that a restart starts
no storm, and are forgotten as soon as the server answers, or sends a signed request of its own.

Source: server-server-api.md leaves it open; federation checklist, "Sending".
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from random import SystemRandom

from attrs import define, field, frozen

from federation.failures import Unreachable
from homeserver.clock import Clock
from protocol.identifiers import ServerName
from storage.destinations import DestinationStore, Failing

FIRST_DELAY = 2_000
"""Milliseconds after the first failure."""
FRESH = 30_000
"""Milliseconds for which what the database said of a failing server is believed."""
MAX_KNOWN = 20_000
"""Servers remembered in memory."""


@frozen
class _Known:
    """What is remembered of a server, and when that was read or written."""

    failing: Failing | None
    at: int


@define
class Backoff:
    """The back-off of every server."""

    store: DestinationStore
    clock: Clock
    max_delay: int
    """Milliseconds."""
    random: SystemRandom
    _known: OrderedDict[ServerName, _Known] = field(factory=OrderedDict, init=False)
    _listeners: list[Callable[[ServerName], None]] = field(factory=list, init=False)

    def on_recovery(self, listener: Callable[[ServerName], None]) -> None:
        """Have `listener` told of each server that failed and now answers."""
        self._listeners.append(listener)

    async def retry_at(self, server: ServerName) -> int:
        """Give the time (ms) before which `server` is not to be asked; 0 if it does not fail."""
        failing = await self._get(server)
        return 0 if failing is None else failing.retry_at

    async def check(self, server: ServerName) -> None:
        """Raise Unreachable while `server` is to be left in peace."""
        if await self.retry_at(server) > self.clock.now_ms():
            raise Unreachable(server, "it failed a short while ago")

    async def failed(self, server: ServerName, began: int, retry_after: int = 0) -> None:
        """Note a failure of a request begun at `began`; `retry_after` (ms) is the wait the server asked for.

        Requests that failed side by side count once.
        """
        now = self.clock.now_ms()
        failing = await self._get(server)
        known = self._known[server]
        if failing is not None and known.at > began and not retry_after:
            return
        delay = FIRST_DELAY if failing is None else min(failing.delay * 2, self.max_delay)
        wait = min(max(int(delay * self.random.uniform(0.8, 1.2)), retry_after), self.max_delay)
        await self._set(server, Failing(failing.since if failing else now, now + wait, delay), now)

    async def succeeded(self, server: ServerName) -> None:
        """Note that `server` answers, or lives: forget its back-off."""
        if await self._get(server) is None:
            return
        await self._set(server, None, self.clock.now_ms())
        for listener in self._listeners:
            listener(server)

    async def _get(self, server: ServerName) -> Failing | None:
        """Read from memory; from the database if unknown, or failing and not looked at for a while."""
        now = self.clock.now_ms()
        known = self._known.get(server)
        if known is not None and (known.failing is None or now - known.at < FRESH):
            self._known.move_to_end(server)
            return known.failing
        failing = await self.store.failing(server)
        latest = self._known.get(server)
        if latest is not None and latest is not known:
            return latest.failing  # noted meanwhile: newer than what was read
        self._remember(server, _Known(failing, known.at if known is not None else 0))
        return failing

    async def _set(self, server: ServerName, failing: Failing | None, now: int) -> None:
        self._remember(server, _Known(failing, now))
        await self.store.set_failing(server, failing)

    def _remember(self, server: ServerName, known: _Known) -> None:
        self._known[server] = known
        self._known.move_to_end(server)
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
