"""One thing at a time in each room, in the order of asking; other rooms are not held up."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from homeserver.turns import Turns
from protocol.errors import Unavailable

T = TypeVar("T")


class RoomQueues:
    """Lines of work, one for each room that has any."""

    def __init__(self, limit: int) -> None:
        """Let at most `limit` pieces of work wait in a room."""
        self._limit = limit
        self._turns: Turns[int] = Turns()

    def waiting(self, room_nid: int) -> int:
        """Tell how much waits behind what runs in a room."""
        return self._turns.waiting(room_nid)

    async def run(self, room_nid: int, work: Callable[[], Awaitable[T]]) -> T:
        """Do `work` when it is its turn; raises `Unavailable` when too much waits."""
        if self.waiting(room_nid) >= self._limit:
            raise Unavailable("Too much waits in the room")
        await self._turns.take(room_nid)
        try:
            return await work()
        finally:
            self._turns.give(room_nid)
