"""Who is in which room, and which servers are: tables that follow the resolved state of each room.

Nothing here decides a membership. Rows are written for the difference of two resolved states, in the
transaction that moves the room's head, under its lock; that is why the server counts may be relative.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

from storage.database import Row, Transaction
from storage.rows import Rows, Statement


class Membership(IntEnum):
    """A user's relation to a room; LEAVE also stands for never having been there."""

    LEAVE = 0
    JOIN = 1
    INVITE = 2
    KNOCK = 3
    BAN = 4


BY_NAME = {each.name.lower(): each for each in Membership}
"""Memberships by their name in `m.room.member`."""


class MembershipRow(NamedTuple):
    """The membership of one user in one room."""

    room_nid: int
    user_nid: int
    membership: int
    event_nid: int
    local: int


class ServerRow(NamedTuple):
    """A change to a server's number of joined members; `event_nid` is the event that caused it."""

    room_nid: int
    server: str
    change: int
    event_nid: int


def _add_changes(earlier: Row, later: Row) -> Row:
    room_nid, server, change, _ = earlier
    return (room_nid, server, change + later[2], later[3])


PUT_MEMBERSHIP = Statement(
    "INSERT INTO memberships (room_nid, user_nid, membership, event_nid, local) VALUES (?, ?, ?, ?, ?)"
    " ON CONFLICT (room_nid, user_nid) DO UPDATE SET membership = excluded.membership,"
    " event_nid = excluded.event_nid, forgotten = 0",
    key=2,
)
CHANGE_SERVER = Statement(
    "INSERT INTO room_servers (room_nid, server, members, left_nid) VALUES (?, ?, ?, ?)"
    " ON CONFLICT (room_nid, server) DO UPDATE SET members = room_servers.members + excluded.members,"
    " left_nid = CASE WHEN room_servers.members + excluded.members <= 0 THEN excluded.left_nid END",
    key=2,
    fold=_add_changes,
)

_FORGET = (
    "UPDATE memberships SET forgotten = 1"
    " WHERE room_nid = ? AND user_nid = ? AND forgotten = 0 AND membership IN (0, 4)"
)
_LOCAL = (
    "SELECT u.user_id, m.user_nid FROM memberships AS m JOIN users AS u ON u.user_nid = m.user_nid"
    " WHERE m.room_nid = ? AND m.membership = 1 AND m.local = 1"
)
_SERVERS = "SELECT server, members FROM room_servers WHERE room_nid = ? AND members > 0"
_SERVERS_IN = "SELECT DISTINCT server FROM room_servers WHERE room_nid IN ? AND members > 0"
_ROOMS_OF_USER = """
    SELECT room_nid, membership, event_nid, forgotten FROM memberships WHERE user_nid = ? AND membership IN ?
"""
_ONE = "SELECT membership, event_nid, forgotten FROM memberships WHERE room_nid = ? AND user_nid = ?"
_MEMBERS = "SELECT user_nid, event_nid FROM memberships WHERE room_nid = ? AND membership = ?"
_COUNTS = "SELECT membership, count(*) FROM memberships WHERE room_nid = ? GROUP BY membership"


class UserRoom(NamedTuple):
    """A room in a user's life."""

    room_nid: int
    membership: int
    event_nid: int
    forgotten: int


def membership_rows(*rows: MembershipRow) -> Rows:
    """Give rows that set memberships, the later row of a user winning; a forgotten room comes back."""
    return Rows(PUT_MEMBERSHIP, rows)


def server_rows(*rows: ServerRow) -> Rows:
    """Give rows that change servers' numbers of joined members."""
    return Rows(CHANGE_SERVER, rows)


def forget(tx: Transaction, room_nid: int, user_nid: int) -> bool:
    """Hide a room that the user has left; tell whether anything changed."""
    return tx.execute(_FORGET, (room_nid, user_nid)) > 0


def local_members(tx: Transaction, room_nid: int) -> dict[str, int]:
    """Give the joined users of this server with their nids."""
    return {row[0]: row[1] for row in tx.all(_LOCAL, (room_nid,))}


def servers(tx: Transaction, room_nid: int) -> dict[str, int]:
    """Give the servers in a room with their numbers of joined members, our own included."""
    return {row[0]: row[1] for row in tx.all(_SERVERS, (room_nid,))}


def servers_in(tx: Transaction, room_nids: Sequence[int]) -> list[str]:
    """Give the servers with joined members in any of the rooms, our own included."""
    return [row[0] for row in tx.all(_SERVERS_IN, (list(room_nids),))] if room_nids else []


def rooms_of_user(tx: Transaction, user_nid: int, which: Sequence[Membership]) -> list[UserRoom]:
    """Give the rooms in which a user has one of these memberships."""
    found = tx.all(_ROOMS_OF_USER, (user_nid, [int(each) for each in which])) if which else []
    return [UserRoom._make(row) for row in found]


def membership_of(tx: Transaction, room_nid: int, user_nid: int) -> UserRoom | None:
    """Give a user's relation to a room, None if there never was one."""
    row = tx.one(_ONE, (room_nid, user_nid))
    return None if row is None else UserRoom(room_nid, row[0], row[1], row[2])


def members(tx: Transaction, room_nid: int, membership: Membership) -> dict[int, int]:
    """Give all users of one membership, local and remote, with the nid of each one's member event."""
    return {row[0]: row[1] for row in tx.all(_MEMBERS, (room_nid, int(membership)))}


def counts(tx: Transaction, room_nid: int) -> dict[int, int]:
    """Give how many users have each membership."""
    return {row[0]: row[1] for row in tx.all(_COUNTS, (room_nid,))}
