"""Play the chosen workloads on the chosen columns, one column after the other, and collect the figures."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from attrs import frozen

from bench.figures import Figures
from bench.hosts import Column, Hall
from bench.postgres import PostgresServer
from bench.stage import Scale, Stage
from bench.workloads.workload import Workload
from tests.interop.certificates import TestAuthority

WORKLOAD_SECONDS = 600.0
QUICK_WORKLOAD_SECONDS = 120.0

Cells = dict[tuple[Column, str], Figures | str]
"""What each workload gave on each column; a sentence where it failed."""


@frozen
class Run:
    """One run of the benchmark; `tell` is given a line on each step."""

    columns: Sequence[Column]
    workloads: Sequence[Workload]
    scale: Scale
    directory: Path
    tell: Callable[[str], object]

    async def play(self) -> Cells:
        """Play everything; a column or workload that fails leaves its reason in its cells."""
        authority = TestAuthority.make(self.directory / "authority")
        postgres = None
        if any(column is not Column.PLAIT_SQLITE for column in self.columns):
            postgres = PostgresServer.make(self.directory / "postgres")
            await postgres.start(asyncio.sleep)
        cells: Cells = {}
        try:
            for column in self.columns:
                database = None if column is Column.PLAIT_SQLITE else postgres
                await self._play_column(Hall(column, self.directory, authority, database), cells)
        finally:
            if postgres is not None:
                await postgres.program.stop(asyncio.sleep)
        return cells

    async def _play_column(self, hall: Hall, cells: Cells) -> None:
        """Start a server and play all workloads on it."""
        try:
            home = await hall.open("home")
        except Exception as problem:
            cells |= {(hall.column, workload.name): _reason(problem) for workload in self.workloads}
            self.tell(f"{hall.column.value}: {problem}")
            return
        stage = Stage(hall, self.scale, home)
        try:
            await stage.settle()
            home.at_rest = home.resident()
            for workload in self.workloads:
                if hall.column in workload.columns:
                    cells[hall.column, workload.name] = await self._play_workload(stage, workload)
        finally:
            await stage.close()

    async def _play_workload(self, stage: Stage, workload: Workload) -> Figures | str:
        """Play one workload, bounded in time."""
        started = time.monotonic()
        try:
            limit = QUICK_WORKLOAD_SECONDS if self.scale.quick else WORKLOAD_SECONDS
            figures = await asyncio.wait_for(workload.play(stage), limit)
        except Exception as problem:
            self.tell(f"{stage.hall.column.value}: {workload.name} failed: {problem!r}")
            return _reason(problem)
        spent = time.monotonic() - started
        self.tell(f"{stage.hall.column.value}: {workload.name} ({spent:.0f} s): {'; '.join(figures.lines())}")
        return figures


def _reason(problem: Exception) -> str:
    """Tell in a cell why there are no figures."""
    return f"failed: {type(problem).__name__}: {str(problem).splitlines()[0][:80] if str(problem) else ''}"
