"""32 clients send, each in its own room."""

from __future__ import annotations

from bench.client import Client
from bench.figures import Figures
from bench.hosts import in_parallel
from bench.sending import CLIENTS, measure_sends
from bench.stage import Stage
from bench.workloads.workload import Workload


async def play(stage: Stage) -> Figures:
    """Measure sends with as many rooms as clients."""
    clients = await stage.home.users(CLIENTS)
    rooms: dict[str, str] = {}

    async def make_room(client: Client) -> None:
        rooms[client.user_id] = await client.create_room()

    await in_parallel(make_room, clients)
    return await measure_sends(stage, clients, [rooms[client.user_id] for client in clients])


WORKLOAD = Workload(
    "send-many-rooms",
    "32 clients send, each in its own room",
    "≤ 1.2 + 0.5 ms; ≥ 600/s, p50 ≤ 60 ms",
    play,
)
