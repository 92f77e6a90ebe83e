"""When, where and as what devices were last seen: gathered in memory, written now and then.

Not in the feed: nobody is woken by it. What is not yet written is lost by a crash.
"""

from __future__ import annotations

from storage import devices
from storage.database import Database
from storage.devices import SeenRow

INTERVAL_MS = 60_000
"""A device's sightings are noted no more often."""


class LastSeen:
    """Sightings that wait to be written. Bound: one for each device seen since the last flush."""

    def __init__(self, database: Database) -> None:
        """Write to `database`."""
        self._database = database
        self._waiting: dict[tuple[int, str], SeenRow] = {}

    def note(self, seen: SeenRow) -> None:
        """Remember a sighting."""
        self._waiting[seen.user_nid, seen.device_id] = seen

    def latest(self, user_nid: int, device_id: str) -> SeenRow | None:
        """Give a sighting that is not yet written."""
        return self._waiting.get((user_nid, device_id))

    async def flush(self) -> None:
        """Write what waits."""
        rows = sorted(self._waiting.values())
        self._waiting.clear()
        if rows:
            await self._database.write(devices.note_seen, rows)
