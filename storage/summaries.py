"""Room summaries: how many are in a room, and the first few of them, for many rooms at once."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from storage.database import Dialect, Transaction
from storage.memberships import Membership
from storage.text import unescape

HEROES = 6
"""Members given for each room: one more than clients want, as the reader is none."""

_COUNTS = (
    "SELECT room_nid, membership, count(*) FROM memberships WHERE room_nid IN ?"
    f" AND membership IN ({int(Membership.JOIN)}, {int(Membership.INVITE)}) GROUP BY room_nid, membership"
)
_FIRST = (
    "SELECT m.room_nid, m.event_nid, u.user_id"
    " FROM memberships AS m JOIN users AS u ON u.user_nid = m.user_nid"
    " WHERE m.room_nid = ? AND m.membership = ? ORDER BY m.event_nid LIMIT ?"
)
_FIRST_OF_MANY = (
    "SELECT w.room_nid, m.event_nid, u.user_id FROM ( VALUES ?) AS w(room_nid, membership, n)"
    " CROSS JOIN LATERAL (SELECT user_nid, event_nid FROM memberships AS a WHERE a.room_nid = w.room_nid"
    " AND a.membership = w.membership ORDER BY a.event_nid LIMIT w.n) AS m"
    " JOIN users AS u ON u.user_nid = m.user_nid"
)


@frozen
class Summary:
    """How many are in a room, and who came first."""

    joined: int
    invited: int
    heroes: tuple[str, ...]
    """Joined and invited users in the order of their coming; if there is at most one, also those who left."""


def summaries(tx: Transaction, room_nids: Sequence[int]) -> dict[int, Summary]:
    """Summarise rooms."""
    counts: dict[tuple[int, int], int] = {
        (row[0], row[1]): row[2] for row in (tx.all(_COUNTS, (list(room_nids),)) if room_nids else ())
    }
    inside = _first(tx, room_nids, (Membership.JOIN, Membership.INVITE))
    lonely = [room for room in room_nids if len(inside.get(room, ())) <= 1]
    gone = _first(tx, lonely, (Membership.LEAVE, Membership.BAN))
    return {
        room: Summary(
            counts.get((room, Membership.JOIN), 0),
            counts.get((room, Membership.INVITE), 0),
            tuple(inside.get(room, ())) + tuple(gone.get(room, ())),
        )
        for room in room_nids
    }


def _first(tx: Transaction, room_nids: Sequence[int], which: Sequence[Membership]) -> dict[int, list[str]]:
    """Give the first members of rooms, of any of these memberships."""
    wanted = [(room, int(membership), HEROES) for room in room_nids for membership in which]
    if tx.dialect is Dialect.POSTGRES:
        rows = tx.values(_FIRST_OF_MANY, wanted)
    else:
        rows = [row for args in wanted for row in tx.all(_FIRST, args)]
    found: dict[int, list[tuple[int, str]]] = {}
    for room_nid, event_nid, user_id in rows:
        found.setdefault(room_nid, []).append((event_nid, unescape(user_id)))
    return {room: [user for _, user in sorted(first)[:HEROES]] for room, first in found.items()}
