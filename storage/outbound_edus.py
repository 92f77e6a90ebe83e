"""EDUs that must arrive, and events for destinations outside the room, kept until they were delivered."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from protocol.identifiers import ServerName
from storage.database import Database, Row, Transaction
from storage.rows import Rows, Statement

MAX_WAITING = 10_000
"""EDUs kept for one destination; beyond it the oldest are given up."""

_QUEUE = Statement("INSERT INTO outbound_edus (edu_nid, server, ts, edu) VALUES (?, ?, ?, ?)")
_NEXT = "SELECT edu_nid, edu FROM outbound_edus WHERE server = ? ORDER BY ts, edu_nid LIMIT ?"
_DELETE = "DELETE FROM outbound_edus WHERE edu_nid IN ?"
_WAITING = "SELECT DISTINCT server FROM outbound_edus"
_SERVERS = "SELECT DISTINCT server FROM outbound_edus WHERE edu_nid IN ?"
_TRIM = """DELETE FROM outbound_edus WHERE server = ? AND edu_nid NOT IN (
    SELECT edu_nid FROM outbound_edus WHERE server = ? ORDER BY ts DESC, edu_nid DESC LIMIT ?)"""

_ADD_EXTRA = """INSERT INTO outbound_extras (server, pos, room_nid, event_nid) VALUES (?, ?, ?, ?)
ON CONFLICT (server, pos) DO NOTHING"""
_EXTRAS = """SELECT pos, room_nid, event_nid FROM outbound_extras
WHERE server = ? AND pos > ? AND pos <= ? ORDER BY pos LIMIT ?"""
_DELETE_EXTRAS = "DELETE FROM outbound_extras WHERE server = ? AND pos <= ?"


@frozen
class QueuedEdu:
    """An EDU that waits: its number and its canonical JSON."""

    edu_nid: int
    edu: bytes


@frozen
class Extra:
    """An event owed to a server that is not in the room: feed position, room and event numbers."""

    pos: int
    room_nid: int
    event_nid: int


def queue_rows(edus: Sequence[tuple[int, ServerName, int, bytes]]) -> Rows:
    """Give the rows that queue EDUs (number, server, time in ms, canonical JSON) within another write."""
    rows: tuple[Row, ...] = tuple(edus)
    return Rows(_QUEUE, rows)


@frozen
class OutboundEduStore:
    """The tables of EDUs and events that wait for a destination."""

    database: Database

    async def next(self, server: ServerName, limit: int) -> list[QueuedEdu]:
        """Give the oldest EDUs that wait for `server`."""
        return await self.database.read(_next, server, limit)

    async def delivered(self, edu_nids: Sequence[int]) -> None:
        """Forget EDUs that arrived."""
        if edu_nids:
            await self.database.write(_execute, _DELETE, (list(edu_nids),))

    async def waiting(self) -> list[ServerName]:
        """Give the servers for which EDUs wait."""
        return [row[0] for row in await self.database.read(_all, _WAITING, ())]

    async def servers_of(self, edu_nids: Sequence[int]) -> list[ServerName]:
        """Give the servers for which these EDUs wait."""
        return [row[0] for row in await self.database.read(_all, _SERVERS, (list(edu_nids),))]

    async def trim(self, server: ServerName) -> None:
        """Give up the oldest EDUs of a server beyond MAX_WAITING."""
        await self.database.write(_execute, _TRIM, (server, server, MAX_WAITING))

    async def add_extra(self, server: ServerName, extra: Extra) -> None:
        """Keep an event owed to a server outside the room."""
        await self.database.write(_execute, _ADD_EXTRA, (server, extra.pos, extra.room_nid, extra.event_nid))

    async def extras(self, server: ServerName, after: int, upto: int, limit: int) -> list[Extra]:
        """Give events owed to a server outside the room, with `after < pos <= upto`, oldest first."""
        rows = await self.database.read(_all, _EXTRAS, (server, after, upto, limit))
        return [Extra(*row) for row in rows]

    async def drop_extras(self, server: ServerName, upto: int) -> None:
        """Forget events owed up to a position."""
        await self.database.write(_execute, _DELETE_EXTRAS, (server, upto))


def _next(tx: Transaction, server: ServerName, limit: int) -> list[QueuedEdu]:
    return [QueuedEdu(edu_nid, bytes(edu)) for edu_nid, edu in tx.all(_NEXT, (server, limit))]


def _all(tx: Transaction, sql: str, args: Sequence[object]) -> list[Row]:
    return tx.all(sql, args)


def _execute(tx: Transaction, sql: str, args: Sequence[object]) -> None:
    tx.execute(sql, args)
