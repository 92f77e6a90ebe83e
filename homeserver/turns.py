"""First come, first served: one at a time under each key, in order of asking.

Unlike `DeferredLock`, handing a turn on does not nest: a thousand may wait without the stack growing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred

K = TypeVar("K", bound=Hashable)


class Turns(Generic[K]):
    """Locks by key; `take` and `give` come in pairs."""

    def __init__(self) -> None:
        """Start with all keys free."""
        self._waiting: dict[K, deque[Deferred[None]]] = {}
        self._given: deque[Deferred[None]] = deque()
        self._giving = False

    def waiting(self, key: K) -> int:
        """Tell how many wait behind the one whose turn it is."""
        return len(self._waiting.get(key, ()))

    async def take(self, key: K) -> None:
        """Wait until it is one's turn; does not wait at all if nobody has it."""
        waiting = self._waiting.get(key)
        if waiting is None:
            self._waiting[key] = deque()
            return
        turn: Deferred[None] = Deferred(waiting.remove)
        waiting.append(turn)
        await turn

    def give(self, key: K) -> None:
        """Hand the turn on to whoever waits longest."""
        waiting = self._waiting[key]
        if not waiting:
            del self._waiting[key]
            return
        self._given.append(waiting.popleft())
        if self._giving:
            return
        self._giving = True
        try:
            while self._given:
                self._given.popleft().callback(None)
        finally:
            self._giving = False
