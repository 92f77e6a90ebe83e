"""The first `/sync` of a user in 100 rooms of 10 members, with the server's caches cold."""

from __future__ import annotations

from collections.abc import Sequence

from bench.client import Client
from bench.figures import Figures
from bench.hosts import in_parallel
from bench.stage import Stage
from bench.workloads.workload import Workload

MEMBERS = 10
SAMPLES = 3
MESSAGES = 10


async def play(stage: Stage) -> Figures:
    """Measure a first sync right after each of some restarts, each by another user."""
    users = await stage.home.users(MEMBERS)

    async def furnish(number: int) -> None:
        owner = users[number % MEMBERS]
        room_id = await owner.create_room(name=f"Room {number}")
        for member in users:
            if member is not owner:
                await member.join(room_id)
        for mark in range(MESSAGES):
            await owner.exchange(owner.build_send(room_id, mark))

    await in_parallel(furnish, range(stage.scale.of(100, 20)), workers=5)
    return await _measure(stage, users[: stage.scale.of(SAMPLES, 1)])


async def _measure(stage: Stage, users: Sequence[Client]) -> Figures:
    """Restart, sync once, and add up."""
    samples = []
    size = 0
    for user in users:
        await stage.home.restart()
        meter = await stage.meter()
        body = b""

        async def sync(who: Client = user) -> None:
            nonlocal body
            body = await who.exchange(who.build_sync(None, 0))

        await meter.timed(sync())
        size = len(body)
        samples.append(await meter.finish("sync"))
    return Figures(
        "sync",
        len(samples),
        0.0,
        [latency for sample in samples for latency in sample.latencies],
        {who: sum(sample.cpu_ms[who] for sample in samples) for who in samples[0].cpu_ms},
        [f"{size / 1000:.0f} KB"],
    )


WORKLOAD = Workload(
    "first-sync",
    "first /sync, 100 rooms of 10 members, caches cold",
    "≤ 60 + 30 ms",
    play,
)
