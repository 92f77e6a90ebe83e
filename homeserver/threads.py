"""A few threads for work that lets go of the interpreter, with a bounded line before them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from protocol.errors import Unavailable

T = TypeVar("T")


class Workers(Protocol):
    """Runs plain functions off the reactor."""

    async def run(self, work: Callable[..., T], *args: Any) -> T:
        """Give what `work` gives."""
        ...


class Threads:
    """Workers that are threads; started with the first work."""

    def __init__(self, reactor: IReactorFromThreads, name: str, *, size: int, bound: int) -> None:
        """Use `size` threads; at most `bound` pieces of work wait or run."""
        self._reactor = reactor
        self._pool = ThreadPool(0, size, name)
        self._bound = bound
        self._under_way = 0

    async def run(self, work: Callable[..., T], *args: Any) -> T:
        """Give what `work` gives; raises Unavailable when too much waits."""
        if self._under_way >= self._bound:
            raise Unavailable("Too much work is waiting")
        if not self._pool.started:
            self._pool.start()
        self._under_way += 1
        try:
            answer: T = await deferToThreadPool(self._reactor, self._pool, work, *args)
            return answer
        finally:
            self._under_way -= 1

    def stop(self) -> None:
        """End the threads, once what runs has ended."""
        if self._pool.started:
            self._pool.stop()
