"""Messages with numbers, when they were sent, and when each reader got them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

from attrs import field, mutable

from bench.client import Client, marks, next_batch

LONG_POLL_MS = 30_000
TIMELINE_LIMIT = 1000


@mutable
class Deliveries:
    """Counts what readers get of what was sent; the same message counts once for each reader."""

    sent_at: dict[int, float] = field(factory=dict)
    latencies: list[float] = field(factory=list)
    expected: int = 0
    _seen: set[tuple[int, int]] = field(factory=set)
    _changed: asyncio.Event = field(factory=asyncio.Event)

    def send(self, mark: int, readers: int) -> None:
        """Note that a message is about to be sent to so many readers."""
        self.sent_at[mark] = time.perf_counter()
        self.expected += readers

    def receive(self, reader: int, numbers: Iterable[int]) -> None:
        """Note what a reader got just now."""
        now = time.perf_counter()
        for mark in numbers:
            if mark in self.sent_at and (reader, mark) not in self._seen:
                self._seen.add((reader, mark))
                self.latencies.append(now - self.sent_at[mark])
        self._changed.set()

    @property
    def complete(self) -> bool:
        """Tell whether all readers got all messages."""
        return len(self.latencies) >= self.expected

    async def wait(self, seconds: float) -> bool:
        """Wait until all is delivered, at most so long; tell whether it was."""
        deadline = time.perf_counter() + seconds
        while not self.complete and (left := deadline - time.perf_counter()) > 0:
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), left)
            except TimeoutError:
                break
        return self.complete


async def long_poll(client: Client, since: str, take: Callable[[list[int]], object]) -> None:
    """Follow `/sync` by long polls until cancelled, handing over the numbers of messages as they come."""
    while True:
        body = await client.exchange(client.build_sync(since, LONG_POLL_MS, TIMELINE_LIMIT))
        since = next_batch(body)
        if found := marks(body):
            take(found)


async def stop_tasks(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel readers; raise what one of them died of."""
    tasks = list(tasks)
    died = [task for task in tasks if task.done()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for task in died:
        task.result()
