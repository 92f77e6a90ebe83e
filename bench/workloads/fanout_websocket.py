"""One sender, 100 members on WebSockets."""

from __future__ import annotations

from bench.fanout import measure_fanout
from bench.figures import Figures
from bench.stage import Stage
from bench.websocket import follow
from bench.workloads.workload import PLAIT_COLUMNS, Workload


async def play(stage: Stage) -> Figures:
    """Measure deliveries over WebSockets, acknowledgements included."""
    return await measure_fanout(stage, follow)


WORKLOAD = Workload(
    "fanout-websocket",
    "the same, 100 WebSockets",
    "≤ 0.10 ms, acknowledgements included; p99 < 50 ms",
    play,
    PLAIT_COLUMNS,
)
