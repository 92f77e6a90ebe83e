"""How each destination does: its back-off, and how far behind it is."""

from __future__ import annotations

from attrs import frozen

from protocol.identifiers import ServerName
from storage.database import Database, Transaction

_GET = "SELECT failing_since, retry_at, delay FROM destinations WHERE server = ?"
_SET = """INSERT INTO destinations (server, failing_since, retry_at, delay) VALUES (?, ?, ?, ?)
ON CONFLICT (server) DO UPDATE SET
    failing_since = excluded.failing_since, retry_at = excluded.retry_at, delay = excluded.delay"""
_CLEAR = "UPDATE destinations SET failing_since = NULL, retry_at = 0, delay = 0 WHERE server = ?"
_SET_POSITION = """INSERT INTO destinations (server, position) VALUES (?, ?)
ON CONFLICT (server) DO UPDATE SET position = excluded.position"""
_CLEAR_POSITION = "UPDATE destinations SET position = NULL WHERE server = ?"
_BEHIND = "SELECT server, position FROM destinations WHERE position IS NOT NULL"


@frozen
class Failing:
    """A destination that does not answer: since when, until when to leave it, the present delay (all ms)."""

    since: int
    retry_at: int
    delay: int


@frozen
class DestinationStore:
    """The table of destinations."""

    database: Database

    async def failing(self, server: ServerName) -> Failing | None:
        """Give the back-off of `server`, or None if it answers."""
        return await self.database.read(_get, server)

    async def set_failing(self, server: ServerName, failing: Failing | None) -> None:
        """Keep the back-off of `server`, or that it answers again."""
        await self.database.write(_set, server, failing)

    async def set_position(self, server: ServerName, position: int | None) -> None:
        """Keep that `server` has everything up to `position`, or (None) that it is not behind any more."""
        await self.database.write(_set_position, server, position)

    async def behind(self) -> dict[ServerName, int]:
        """Give the destinations that are behind, with their positions."""
        return await self.database.read(_behind)


def _get(tx: Transaction, server: ServerName) -> Failing | None:
    row = tx.one(_GET, (server,))
    return None if row is None or row[0] is None else Failing(row[0], row[1], row[2])


def _set(tx: Transaction, server: ServerName, failing: Failing | None) -> None:
    if failing is None:
        tx.execute(_CLEAR, (server,))
    else:
        tx.execute(_SET, (server, failing.since, failing.retry_at, failing.delay))


def _set_position(tx: Transaction, server: ServerName, position: int | None) -> None:
    if position is None:
        tx.execute(_CLEAR_POSITION, (server,))
    else:
        tx.execute(_SET_POSITION, (server, position))


def _behind(tx: Transaction) -> dict[ServerName, int]:
    return dict(tx.all(_BEHIND))
