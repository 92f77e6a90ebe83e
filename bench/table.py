"""The table: a row for each workload, a column for each server."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from bench.figures import Figures
from bench.hosts import Column
from bench.run import Cells
from bench.workloads.workload import Workload


def build_table(columns: Sequence[Column], workloads: Sequence[Workload], cells: Cells) -> Table:
    """Lay the figures out beside each other."""
    table = Table(title="CPU is the operating system's count, children included", show_lines=True)
    for heading in ("workload", "Plait must reach", *(column.value for column in columns)):
        table.add_column(heading, overflow="fold")
    for workload in workloads:
        found = (cells.get((column, workload.name), "-") for column in columns)
        table.add_row(workload.title, workload.goal, *map(_write, found))
    return table


def _write(cell: Figures | str) -> str:
    """Write one cell."""
    return cell if isinstance(cell, str) else "\n".join(cell.lines())
