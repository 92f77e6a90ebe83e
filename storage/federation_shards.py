"""Leases on the sending of federation traffic, a shard of all destinations each, with how far it has come.

Any number of processes may share one database: each holds some shards, and a process that dies loses
them when its lease ends. Two holders for a moment do no harm, since receivers know events by their IDs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from zlib import crc32

from attrs import frozen

from protocol.identifiers import ServerName
from storage.database import Database, Transaction

SHARDS = 16

_MAKE = """INSERT INTO federation_shards (shard, holder, expires, position) VALUES (?, NULL, 0, 0)
ON CONFLICT (shard) DO NOTHING"""
_ALL = "SELECT shard, holder, expires, position FROM federation_shards ORDER BY shard FOR UPDATE"
_FORGET_DEAD = "DELETE FROM federation_senders WHERE expires <= ?"
_ENROL = """INSERT INTO federation_senders (holder, expires) VALUES (?, ?)
ON CONFLICT (holder) DO UPDATE SET expires = excluded.expires"""
_COUNT = "SELECT COUNT(*) FROM federation_senders"
_LEAVE = "DELETE FROM federation_senders WHERE holder = ?"
_TAKE = "UPDATE federation_shards SET holder = ?, expires = ? WHERE shard IN ?"
_RELEASE = "UPDATE federation_shards SET holder = NULL, expires = 0 WHERE holder = ?"
_ADVANCE = "UPDATE federation_shards SET position = ? WHERE holder = ? AND shard IN ? AND position < ?"


def shard_of(server: ServerName) -> int:
    """Give the shard of a destination; the same for ever, in every process."""
    return crc32(server.encode()) % SHARDS


@frozen
class ShardStore:
    """The table of shards."""

    database: Database

    async def renew(
        self, holder: str, now: int, until: int, positions: Mapping[int, int]
    ) -> Mapping[int, int]:
        """Move the positions of shards that `holder` holds, and keep its leases until `until` (ms).

        Takes its fair share and gives {shard: position}. A holder with more than its share gives some up, so
        that newcomers find work.
        """
        return await self.database.write(_renew, holder, now, until, positions)

    async def release(self, holder: str, positions: Mapping[int, int]) -> None:
        """Give all leases of `holder` up at these positions, so that others may take them at once."""
        await self.database.write(_release, holder, positions)


def _renew(
    tx: Transaction, holder: str, now: int, until: int, positions: Mapping[int, int]
) -> dict[int, int]:
    tx.execute(_FORGET_DEAD, (now,))
    tx.execute(_ENROL, (holder, until))
    holders = (tx.one(_COUNT) or (1,))[0]
    rows = tx.all(_ALL)
    if len(rows) < SHARDS:
        tx.many(_MAKE, [(shard,) for shard in range(SHARDS)])
        rows = tx.all(_ALL)
    _advance(tx, holder, positions)
    mine = [shard for shard, owner, _, _ in rows if owner == holder]
    free = [
        shard for shard, owner, expires, _ in rows if owner is None or (owner != holder and expires <= now)
    ]
    keep = _fair_share(mine, free, holders)
    _set_holder(tx, None, 0, [shard for shard in mine if shard not in keep])
    _set_holder(tx, holder, until, keep)
    reached = {shard: positions[shard] for shard in mine if shard in positions}
    return {shard: max(position, reached.get(shard, 0)) for shard, _, _, position in rows if shard in keep}


def _fair_share(mine: Sequence[int], free: Sequence[int], holders: int) -> list[int]:
    """Choose shards to hold: those held first, never more than an equal share, rounded up."""
    share = -(-SHARDS // holders)
    return [*mine, *free][:share]


def _set_holder(tx: Transaction, holder: str | None, until: int, shards: Sequence[int]) -> None:
    if shards:
        tx.execute(_TAKE, (holder, until, list(shards)))


def _advance(tx: Transaction, holder: str, positions: Mapping[int, int]) -> None:
    for position in set(positions.values()):
        shards = [shard for shard, reached in positions.items() if reached == position]
        tx.execute(_ADVANCE, (position, holder, shards, position))


def _release(tx: Transaction, holder: str, positions: Mapping[int, int]) -> None:
    _advance(tx, holder, positions)
    tx.execute(_RELEASE, (holder,))
    tx.execute(_LEAVE, (holder,))
