"""What accounts need done now and then: sightings written, and expired rows dropped."""

from __future__ import annotations

from homeserver.accounts.last_seen import LastSeen
from homeserver.background import run_in_background
from homeserver.clock import Clock, Timer
from storage import registration_tokens, sessions
from storage.database import Database, Transaction

FLUSH_SECONDS = 60.0
FLUSHES_A_SWEEP = 60


class AccountUpkeep:
    """Runs on a timer while the server runs. Several workers may do the same: the work is idempotent."""

    def __init__(self, database: Database, last_seen: LastSeen, clock: Clock) -> None:
        """Begin with `start`."""
        self._database = database
        self._last_seen = last_seen
        self._clock = clock
        self._timer: Timer | None = None
        self._flushes = 0

    def start(self) -> None:
        """Begin."""
        self._timer = self._clock.call_later(FLUSH_SECONDS, self._turn)

    async def stop(self) -> None:
        """End, writing what waits."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        await self._last_seen.flush()

    def _turn(self) -> None:
        self.start()
        run_in_background(self.work(), "the upkeep of accounts")

    async def work(self) -> None:
        """Write sightings; now and then, drop what has expired."""
        await self._last_seen.flush()
        if self._flushes % FLUSHES_A_SWEEP == 0:
            await self._database.write(_sweep, self._clock.now_ms())
        self._flushes += 1


def _sweep(tx: Transaction, now: int) -> None:
    registration_tokens.drop_expired(tx, now)
    sessions.drop_loose_refresh_tokens(tx, now)
