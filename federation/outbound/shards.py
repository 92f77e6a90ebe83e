"""The shards of destinations this process sends to, by leases in the database.

Source: `storage/federation_shards.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

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
    _settled: set[int] = field(factory=set, init=False)
    """Shards whose backlog was handed to destinations since they are held."""
    _until: int = field(default=0, init=False)

    def owns(self, server: ServerName) -> bool:
        """Tell whether this process sends to `server`."""
        return shard_of(server) in self._positions and self.clock.now_ms() < self._until

    async def renew(self, position_of: Callable[[int], int]) -> Mapping[int, int]:
        """Renew the leases, take free shards, and give those yet to be settled with their positions.

        New positions are kept with it; `position_of` gives the one of a shard. After a lapse nothing is
        settled: what passed meanwhile was not handed to destinations.
        """
        now = self.clock.now_ms()
        held = await self.store.renew(self.holder, now, now + LEASE, self._moved(position_of))
        self._lapse()
        self._positions, self._until = dict(held), now + LEASE
        self._settled &= held.keys()
        return {shard: position for shard, position in held.items() if shard not in self._settled}

    def settle(self, shards: Collection[int]) -> None:
        """Note that all that is owed in shards has been handed to destinations."""
        self._settled.update(shards)

    async def release(self, position_of: Callable[[int], int]) -> None:
        """Give all shards up, where they stand now."""
        moved, self._positions = self._moved(position_of), {}
        self._settled = set()
        await self.store.release(self.holder, moved)

    def _moved(self, position_of: Callable[[int], int]) -> dict[int, int]:
        """Give the positions of what is settled that are further than what is kept."""
        self._lapse()
        reached = {shard: position_of(shard) for shard in self._settled}
        return {shard: position for shard, position in reached.items() if position > self._positions[shard]}

    def _lapse(self) -> None:
        """See whether the leases have ended, so that events may have passed that nobody sends."""
        if self.clock.now_ms() >= self._until:
            self._settled.clear()
