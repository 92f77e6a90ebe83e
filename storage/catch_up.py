"""What this server built while a destination was away: the feed, joined with that destination's rooms."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from protocol.identifiers import ServerName
from storage.database import Database, Row, Transaction

_ROOMS = """SELECT rs.room_nid FROM room_servers rs WHERE rs.server = ? AND (rs.members > 0 OR EXISTS (
    SELECT 1 FROM feed f
    WHERE f.room_nid = rs.room_nid AND f.pos > ? AND f.ref = rs.left_nid AND f.kind = 1))"""
_INSIDE = "SELECT room_nid FROM room_servers WHERE server = ? AND members > 0"
_FAREWELLS = """SELECT f.pos, f.room_nid, f.ref
FROM room_servers rs JOIN feed f ON f.room_nid = rs.room_nid AND f.ref = rs.left_nid
WHERE rs.server = ? AND rs.members <= 0 AND f.pos > ? AND f.pos <= ? AND f.kind = 1 AND (f.flags & 1) = 1"""
_OWED = """SELECT f.pos, f.room_nid, f.ref FROM feed f
WHERE f.room_nid IN ? AND f.pos > ? AND f.pos <= ? AND (f.flags & 1) = 1 ORDER BY f.pos LIMIT ?"""
_NEWEST = """SELECT pos, room_nid, ref FROM feed WHERE pos IN (
    SELECT MAX(f.pos) FROM feed f
    WHERE f.room_nid IN ? AND f.pos > ? AND f.pos <= ? AND (f.flags & 1) = 1 GROUP BY f.room_nid)"""
_SERVERS_OWED = """SELECT DISTINCT rs.server FROM feed f JOIN room_servers rs ON rs.room_nid = f.room_nid
WHERE f.pos > ? AND f.pos <= ? AND (f.flags & 1) = 1"""

_MEMBERSHIPS = """SELECT pos, room_nid, ref FROM feed
WHERE pos > ? AND pos <= ? AND (flags & 3) = 3 AND kind = 1 ORDER BY pos LIMIT ?"""


@frozen
class Owed:
    """An event built here that a destination may not have: feed position, room and event numbers."""

    pos: int
    room_nid: int
    event_nid: int


@frozen
class CatchUpStore:
    """Queries over the feed for one destination or all."""

    database: Database

    async def owed(self, server: ServerName, after: int, upto: int, limit: int) -> list[Owed]:
        """Give events with `after < pos <= upto` of rooms `server` is in, or was last in, oldest first."""
        return await self.database.read(_owed, server, after, upto, limit)

    async def newest(self, server: ServerName, after: int, upto: int) -> list[Owed]:
        """Give the newest such event of each room, oldest first: of one it has left, what ended its stay."""
        return await self.database.read(_newest, server, after, upto)

    async def servers_owed(self, after: int, upto: int) -> list[ServerName]:
        """Give the servers of rooms in which events were built with `after < pos <= upto`."""
        return [row[0] for row in await self.database.read(_rows, _SERVERS_OWED, (after, upto))]

    async def memberships(self, after: int, upto: int, limit: int) -> list[Owed]:
        """Give the memberships that were built here with `after < pos <= upto`, oldest first."""
        return [Owed(*row) for row in await self.database.read(_rows, _MEMBERSHIPS, (after, upto, limit))]


def _owed(tx: Transaction, server: ServerName, after: int, upto: int, limit: int) -> list[Owed]:
    rooms = _chunks(tx.all(_ROOMS, (server, after)))
    found = [Owed(*row) for chunk in rooms for row in tx.all(_OWED, (chunk, after, upto, limit))]
    return sorted(found, key=lambda owed: owed.pos)[:limit]


def _newest(tx: Transaction, server: ServerName, after: int, upto: int) -> list[Owed]:
    inside = _chunks(tx.all(_INSIDE, (server,)))
    found = [Owed(*row) for chunk in inside for row in tx.all(_NEWEST, (chunk, after, upto))]
    found += [Owed(*row) for row in tx.all(_FAREWELLS, (server, after, upto))]
    return sorted(found, key=lambda owed: owed.pos)


def _chunks(rows: Sequence[Row]) -> Sequence[list[int]]:
    """Give rooms in chunks that fit into one statement."""
    rooms = [row[0] for row in rows]
    return [rooms[start : start + 5_000] for start in range(0, len(rooms), 5_000)]


def _rows(tx: Transaction, sql: str, args: Sequence[object]) -> list[Row]:
    return tx.all(sql, args)
