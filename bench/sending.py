"""Clients that send as fast as they are answered."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from bench.client import Client
from bench.figures import Figures
from bench.stage import Stage

CLIENTS = 32
MOST = 20_000


async def measure_sends(stage: Stage, clients: Sequence[Client], rooms: Sequence[str]) -> Figures:
    """Let each client send messages in its room, one after the other."""

    def sender(client: Client, room_id: str) -> Callable[[int], Awaitable[object]]:
        return lambda number: client.exchange(client.build_send(room_id, number))

    meter = await stage.meter()
    await meter.drive([sender(*pair) for pair in zip(clients, rooms, strict=True)], MOST)
    return await meter.finish("send")
