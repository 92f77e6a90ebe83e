"""Now and then: rows past their time are dropped, and the feed's mark is moved."""

from __future__ import annotations

from attrs import define

from homeserver.background import run_in_background
from homeserver.clock import Clock, Timer
from homeserver.epoch import FeedMark
from homeserver.feed.tail import Feed
from storage import staging, to_device, transactions
from storage.database import Database, Transaction

DAY = 86_400_000
MARK_SECONDS = 10.0
MARKS_A_SWEEP = 360


@define(eq=False)
class Janitor:
    """Sweeps on a timer while the server runs; several processes may, since sweeping twice harms nobody."""

    database: Database
    feed: Feed
    mark: FeedMark
    clock: Clock
    _timer: Timer | None = None
    _turns: int = 0

    def start(self) -> None:
        """Begin."""
        self._timer = self.clock.call_later(MARK_SECONDS, self._turn)

    def stop(self) -> None:
        """End, with the mark where the feed is."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self.mark.write(self.feed.position)

    def _turn(self) -> None:
        self.start()
        self.mark.write(self.feed.position)
        self._turns += 1
        if self._turns % MARKS_A_SWEEP == 1:
            run_in_background(self.database.write(_sweep, self.clock.now_ms()), "the sweep of old rows")


def _sweep(tx: Transaction, now: int) -> None:
    transactions.expire(tx, now - DAY)
    to_device.forget_received(tx, now - 7 * DAY)
    staging.expire(tx, now - DAY)
