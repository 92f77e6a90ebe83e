"""The epoch of the feed: it changes when the feed was set back, so that no client reads on where it was.

The database keeps the epoch, the data folder a mark of how far the feed once was. A feed that begins
behind its mark, as after a backup was put back, begins a new epoch.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from attrs import frozen
from twisted.logger import Logger

from storage import feed
from storage.database import Database, Transaction

_NAME = "epoch"
_GET = "SELECT next FROM counters WHERE name = ?"
_SET = "INSERT INTO counters (name, next) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET next = excluded.next"
_log = Logger()


@frozen
class FeedMark:
    """The mark in the data folder."""

    path: Path

    def read(self) -> int:
        """Give how far the feed once was; 0 if nobody knows."""
        with suppress(OSError, ValueError):
            return int(self.path.read_text(encoding="ascii"))
        return 0

    def write(self, position: int) -> None:
        """Note how far the feed is."""
        draft = self.path.with_suffix(".new")
        draft.write_text(f"{position}\n", encoding="ascii")
        draft.replace(self.path)


async def settle_epoch(database: Database, mark: FeedMark, now: int) -> int:
    """Give the present epoch, beginning a new one if the feed is behind its mark; `now` in milliseconds."""
    epoch, is_new = await database.write(_settle, mark.read(), now)
    if is_new:
        _log.warn("the feed is behind its mark: clients will sync afresh (epoch {epoch})", epoch=epoch)
    return epoch


def _settle(tx: Transaction, marked: int, now: int) -> tuple[int, bool]:
    row = tx.one(_GET, (_NAME,))
    if row is not None and feed.tail(tx) >= marked:
        return int(row[0]), False
    epoch = now // 1000 if row is not None else 1
    tx.execute(_SET, (_NAME, epoch))
    return epoch, row is not None
