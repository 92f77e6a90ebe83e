"""`/sync` with nothing new."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from bench.client import Client
from bench.figures import Figures
from bench.stage import Stage
from bench.workloads.workload import Workload

CLIENTS = 8
MOST = 20_000
DELIVERY_SECONDS = 1.5


async def play(stage: Stage) -> Figures:
    """Measure syncs from the newest token, over and over."""
    clients = await stage.home.users(CLIENTS)
    for client in clients:
        await client.position()
    # What clients have is told to those who said it a second later; only then is nothing new.
    await asyncio.sleep(DELIVERY_SECONDS)
    await stage.settle()
    tokens = [await client.position() for client in clients]

    def syncer(client: Client, since: str) -> Callable[[int], Awaitable[object]]:
        request = client.build_sync(since, 0)
        return lambda _: client.exchange(request)

    meter = await stage.meter()
    await meter.drive([syncer(*pair) for pair in zip(clients, tokens, strict=True)], MOST)
    return await meter.finish("sync")


WORKLOAD = Workload("idle-sync", "/sync with nothing new", "≤ 0.3 ms, no query", play)
