"""A user joins a room of 300 members and 1,000 messages over federation."""

from __future__ import annotations

import asyncio
import time
from urllib.parse import quote

from bench.client import Client
from bench.figures import Figures
from bench.stage import Stage
from bench.workloads.workload import Workload

PATIENCE_SECONDS = 120.0
PROBE_SECONDS = 0.2


async def play(stage: Stage) -> Figures:
    """Measure one join: the answer's time, and the cost until all members are known there."""
    room_id = await stage.history_room()
    joiner = (await (await stage.away()).users(1))[0]
    members = await _count_members(stage.home.clients[0], room_id)
    meter = await stage.meter(federated=True)
    await meter.timed(joiner.exchange(joiner.build_join(room_id, stage.home.name)))
    answered = meter.elapsed()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (found := await _count_members(joiner, room_id)) <= members and time.monotonic() < deadline:
        await asyncio.sleep(PROBE_SECONDS)
    notes = [f"answer in {answered:.2f} s", f"{found} members after {meter.elapsed():.2f} s"]
    figures = await meter.finish("join", 1, notes)
    return Figures(figures.unit, 1, 0.0, (), figures.cpu_ms, notes)


async def _count_members(user: Client, room_id: str) -> int:
    """Count whom a user's server knows as joined."""
    answer = await user.call("GET", f"/v3/rooms/{quote(room_id)}/joined_members")
    return len(answer["joined"])


WORKLOAD = Workload(
    "federated-join",
    "join over federation, 300 members, 1,000 messages",
    "≤ 100 + 50 ms",
    play,
)
