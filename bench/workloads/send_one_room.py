"""32 clients send in one room."""

from __future__ import annotations

from bench.figures import Figures
from bench.sending import CLIENTS, measure_sends
from bench.stage import Stage
from bench.workloads.workload import Workload


async def play(stage: Stage) -> Figures:
    """Measure sends that all meet in one room."""
    clients = await stage.home.users(CLIENTS)
    room_id = await stage.full_room(clients)
    return await measure_sends(stage, clients, [room_id] * CLIENTS)


WORKLOAD = Workload("send-one-room", "32 clients send in one room", "as in many rooms", play)
