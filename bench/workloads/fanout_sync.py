"""One sender, 100 members in long-poll `/sync`."""

from __future__ import annotations

from bench.deliveries import long_poll
from bench.fanout import measure_fanout
from bench.figures import Figures
from bench.stage import Stage
from bench.workloads.workload import Workload


async def play(stage: Stage) -> Figures:
    """Measure deliveries over long polls."""
    return await measure_fanout(stage, long_poll)


WORKLOAD = Workload(
    "fanout-sync",
    "one sender, 100 members in long-poll /sync",
    "≤ 0.3 ms a delivery; p99 < 100 ms at 10/s",
    play,
)
