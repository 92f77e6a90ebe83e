"""The shards of destinations this process sends to, by leases in the database.

Source: `storage/federation_shards.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import define, field

from homeserver.clock import Clock
from protocol.identifiers import ServerName
from storage.federation_shards import ShardStore, shard_of

LEASE = 30_000
"""Milliseconds a lease lasts."""


@define
class Shards:
    """What this process holds: {shard: the feed position kept for it}."""

    store: ShardStore
    holder: str
    """The name of this process, unlike that of any other."""
    clock: Clock
    _positions: dict[int, int] = field(factory=dict, init=False)
    _until: int = field(default=0, init=False)

    def owns(self, server: ServerName) -> bool:
        """Tell whether this process sends to `server`."""
        return shard_of(server) in self._positions and self.clock.now_ms() < self._until

    async def renew(self) -> Mapping[int, int]:
        """Renew the leases, take free shards, and give those newly held with their positions.

        After a lapse everything is newly held: what passed meanwhile was not handed to destinations.
        """
        now = self.clock.now_ms()
        before = self._positions if now < self._until else {}
        held = await self.store.renew(self.holder, now, now + LEASE)
        gained = {shard: position for shard, position in held.items() if shard not in before}
        self._positions = {shard: before.get(shard, position) for shard, position in held.items()}
        self._until = now + LEASE
        return gained

    async def advance(self, position_of: Callable[[int], int]) -> None:
        """Keep new positions; `position_of` gives the one of a shard."""
        reached = {shard: position_of(shard) for shard in self._positions}
        moved = {shard: position for shard, position in reached.items() if position > self._positions[shard]}
        await self.store.advance(self.holder, moved)
        for shard, position in moved.items():
            if shard in self._positions:
                self._positions[shard] = position

    async def release(self) -> None:
        """Give all shards up."""
        self._positions = {}
        await self.store.release(self.holder)
