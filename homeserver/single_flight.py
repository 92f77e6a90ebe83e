"""One piece of work for many that ask for the same thing at the same time."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class SingleFlight(Generic[K, T]):
    """Run a coroutine once per key at a time; whoever asks meanwhile gets the same answer or failure.

    All are answered in the order of asking.
    """

    def __init__(self) -> None:
        """Start with nothing under way."""
        self._waiting: dict[K, list[Deferred[T]]] = {}

    async def run(self, key: K, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Give the answer of `work()`, or of the one that is already under way for `key`."""
        answer: Deferred[T] = Deferred()
        if key in self._waiting:
            self._waiting[key].append(answer)
        else:
            self._waiting[key] = [answer]
            Deferred.fromCoroutine(work()).addBoth(self._tell, key)
        return await answer

    def _tell(self, result: T | Failure, key: K) -> None:
        for waiting in self._waiting.pop(key):
            waiting.callback(result)
