"""One thing at a time in each room, in the order of asking; other rooms are not held up."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from twisted.internet.defer import DeferredLock

from protocol.errors import Unavailable

T = TypeVar("T")


class RoomQueues:
    """Lines of work, one for each room that has any."""

    def __init__(self, limit: int) -> None:
        """Let at most `limit` pieces of work wait in a room."""
        self._limit = limit
        self._locks: dict[int, DeferredLock] = {}

    def waiting(self, room_nid: int) -> int:
        """Tell how much waits behind what runs in a room."""
        lock = self._locks.get(room_nid)
        return len(lock.waiting) if lock is not None else 0

    async def run(self, room_nid: int, work: Callable[[], Awaitable[T]]) -> T:
        """Do `work` when it is its turn; raises `Unavailable` when too much waits."""
        lock = self._locks.setdefault(room_nid, DeferredLock())
        if len(lock.waiting) >= self._limit:
            raise Unavailable("Too much waits in the room")
        await lock.acquire()
        try:
            return await work()
        finally:
            lock.release()
            if not lock.locked and not lock.waiting:
                self._locks.pop(room_nid, None)
