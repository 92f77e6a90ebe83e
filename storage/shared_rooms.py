"""Which users share rooms: what device lists go by."""

from __future__ import annotations

from collections.abc import Sequence

from storage.database import Transaction
from storage.memberships import Membership

_JOIN = int(Membership.JOIN)
_SHARED = (
    "SELECT m.user_nid, m.room_nid FROM memberships AS m JOIN memberships AS mine"
    f" ON mine.room_nid = m.room_nid AND mine.user_nid = ? AND mine.membership = {_JOIN}"
    f" WHERE m.user_nid IN ? AND m.membership = {_JOIN}"
)
_ONLY_IN = (
    f"SELECT DISTINCT m.user_nid FROM memberships AS m WHERE m.room_nid IN ? AND m.membership = {_JOIN}"
    " AND m.user_nid <> ? AND NOT EXISTS (SELECT 1 FROM memberships AS theirs JOIN memberships AS mine"
    f" ON mine.room_nid = theirs.room_nid AND mine.user_nid = ? AND mine.membership = {_JOIN}"
    f" WHERE theirs.user_nid = m.user_nid AND theirs.membership = {_JOIN} AND theirs.room_nid NOT IN ?)"
)
_SERVERS = (
    "SELECT DISTINCT s.server FROM memberships AS m JOIN room_servers AS s ON s.room_nid = m.room_nid"
    f" AND s.members > 0 WHERE m.user_nid = ? AND m.membership = {_JOIN}"
)
_ROOMS = f"SELECT room_nid FROM memberships WHERE user_nid = ? AND membership = {_JOIN}"


def shared(tx: Transaction, user_nid: int, others: Sequence[int]) -> dict[int, set[int]]:
    """Give the rooms in which a user and each of the others are both joined; those without are absent."""
    found: dict[int, set[int]] = {}
    if others:
        for other, room_nid in tx.all(_SHARED, (user_nid, list(others))):
            found.setdefault(other, set()).add(room_nid)
    return found


def only_in(tx: Transaction, user_nid: int, room_nids: Sequence[int]) -> set[int]:
    """Give the users joined in some of these rooms who share no other room with the user."""
    if not room_nids:
        return set()
    rooms = list(room_nids)
    return {row[0] for row in tx.all(_ONLY_IN, (rooms, user_nid, user_nid, rooms))}


def joined_rooms(tx: Transaction, user_nid: int) -> list[int]:
    """Give the rooms a user is joined in."""
    return [row[0] for row in tx.all(_ROOMS, (user_nid,))]


def servers_of_user(tx: Transaction, user_nid: int) -> list[str]:
    """Give the servers that share a room with a user, the user's own among them."""
    return [str(row[0]) for row in tx.all(_SERVERS, (user_nid,))]
