"""One piece of work for many that ask for the same thing at the same time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class SingleFlight(Generic[K, T]):
    """Run a coroutine once per key at a time; whoever asks meanwhile gets the same answer or failure."""

    def __init__(self) -> None:
        """Start with nothing under way."""
        self._waiting: dict[K, list[Deferred[T]]] = {}

    async def run(self, key: K, work: Callable[[], Awaitable[T]]) -> T:
        """Give the answer of `work()`, or of the one that is already under way for `key`."""
        if key in self._waiting:
            answer: Deferred[T] = Deferred()
            self._waiting[key].append(answer)
            return await answer
        self._waiting[key] = []
        try:
            result = await work()
        except BaseException:
            failure = Failure()
            for waiting in self._waiting.pop(key):
                waiting.errback(failure)
            raise
        for waiting in self._waiting.pop(key):
            waiting.callback(result)
        return result
