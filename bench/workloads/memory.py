"""Memory after all of this."""

from __future__ import annotations

from bench.figures import Figures
from bench.stage import Stage
from bench.workloads.workload import Workload


async def play(stage: Stage) -> Figures:
    """Tell the home server's resident memory now, and its peak over all workloads so far."""
    await stage.settle()
    stage.home.note_peak()
    notes = [
        f"{stage.home.at_rest:.0f} MB at rest",
        f"{stage.home.resident():.0f} MB after",
        f"{stage.home.peak:.0f} MB at peak",
    ]
    return Figures("run", 1, 0.0, (), {}, notes)


WORKLOAD = Workload("memory", "memory after all of this", "≤ 130 MB", play)
