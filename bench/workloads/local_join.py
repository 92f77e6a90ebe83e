"""Local users join a room of 100, one after the other."""

from __future__ import annotations

from bench.figures import Figures
from bench.stage import Stage
from bench.workloads.workload import Workload


async def play(stage: Stage) -> Figures:
    """Measure joins."""
    members = stage.scale.of(100, 20)
    joiners = stage.scale.of(40, 10)
    users = await stage.home.users(members + joiners)
    room_id = await stage.full_room(users[:members])
    meter = await stage.meter()
    for user in users[members:]:
        await meter.timed(user.exchange(user.build_join(room_id)))
    return await meter.finish("join")


WORKLOAD = Workload("local-join", "local join of a room of 100", "≤ 2 + 1 ms", play)
