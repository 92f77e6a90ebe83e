"""All workloads, in the order they are played: the one that restarts servers first, memory last."""

from __future__ import annotations

from bench.workloads import (
    fanout_sync,
    fanout_websocket,
    federated_burst,
    federated_events,
    federated_join,
    first_sync,
    idle_sync,
    local_join,
    memory,
    messages,
    send_many_rooms,
    send_one_room,
)
from bench.workloads.workload import Workload

WORKLOADS: tuple[Workload, ...] = (
    first_sync.WORKLOAD,
    send_many_rooms.WORKLOAD,
    send_one_room.WORKLOAD,
    fanout_sync.WORKLOAD,
    fanout_websocket.WORKLOAD,
    idle_sync.WORKLOAD,
    messages.WORKLOAD,
    local_join.WORKLOAD,
    federated_events.WORKLOAD,
    federated_burst.WORKLOAD,
    federated_join.WORKLOAD,
    memory.WORKLOAD,
)
