"""Aliases of this server and its published rooms."""

from __future__ import annotations

from typing import NamedTuple

from storage.database import Transaction

_ADD_ALIAS = "INSERT INTO aliases (alias, room_nid, creator_nid) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
_ALIAS = "SELECT room_nid, creator_nid FROM aliases WHERE alias = ?"
_REMOVE_ALIAS = "DELETE FROM aliases WHERE alias = ?"
_ALIASES_OF = "SELECT alias FROM aliases WHERE room_nid = ? ORDER BY alias"
_MOVE_ALIASES = "UPDATE aliases SET room_nid = ? WHERE room_nid = ?"
_PUBLISH = "INSERT INTO published_rooms (room_nid) VALUES (?) ON CONFLICT DO NOTHING"
_UNPUBLISH = "DELETE FROM published_rooms WHERE room_nid = ?"
_IS_PUBLISHED = "SELECT 1 FROM published_rooms WHERE room_nid = ?"
_PUBLISHED = (
    "SELECT p.room_nid, coalesce(sum(s.members), 0) AS joined FROM published_rooms AS p"
    " LEFT JOIN room_servers AS s ON s.room_nid = p.room_nid AND s.members > 0"
    " GROUP BY p.room_nid ORDER BY joined DESC, p.room_nid LIMIT ?"
)


class AliasRow(NamedTuple):
    """What an alias points at, and who made it."""

    room_nid: int
    creator_nid: int


def add_alias(tx: Transaction, alias: str, room_nid: int, creator_nid: int) -> bool:
    """Make an alias; False if it is taken."""
    return tx.execute(_ADD_ALIAS, (alias, room_nid, creator_nid)) == 1


def alias(tx: Transaction, name: str) -> AliasRow | None:
    """Look an alias up."""
    row = tx.one(_ALIAS, (name,))
    return None if row is None else AliasRow(*row)


def remove_alias(tx: Transaction, name: str) -> bool:
    """Remove an alias; False if there is none."""
    return tx.execute(_REMOVE_ALIAS, (name,)) == 1


def aliases_of(tx: Transaction, room_nid: int) -> list[str]:
    """Give a room's aliases, in order."""
    return [str(row[0]) for row in tx.all(_ALIASES_OF, (room_nid,))]


def move_aliases(tx: Transaction, old_nid: int, new_nid: int) -> int:
    """Let all aliases of one room point at another; tell how many."""
    return tx.execute(_MOVE_ALIASES, (new_nid, old_nid))


def set_published(tx: Transaction, room_nid: int, published: bool) -> None:
    """Put a room into the published directory or take it out."""
    tx.execute(_PUBLISH if published else _UNPUBLISH, (room_nid,))


def is_published(tx: Transaction, room_nid: int) -> bool:
    """Tell whether a room stands in the published directory."""
    return tx.one(_IS_PUBLISHED, (room_nid,)) is not None


def published(tx: Transaction, limit: int) -> list[tuple[int, int]]:
    """Give published rooms with their numbers of joined members, the largest first."""
    return [(int(nid), int(joined)) for nid, joined in tx.all(_PUBLISHED, (limit,))]
