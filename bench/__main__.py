"""`python -m bench`: measure homeservers beside each other."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import tempfile
from pathlib import Path

import click
from rich.console import Console

from bench.figures import Figures
from bench.hosts import Column
from bench.run import Cells, Run
from bench.stage import Scale
from bench.table import build_table
from bench.workloads.catalogue import WORKLOADS
from bench.workloads.workload import Workload

ALL_COLUMNS = ",".join(column.value for column in Column)


def _columns(_context: click.Context, _option: click.Parameter, value: str) -> list[Column]:
    """Read the list of servers."""
    try:
        return [Column(name) for name in value.split(",")]
    except ValueError as problem:
        raise click.BadParameter(f"{problem}; choose from {ALL_COLUMNS}") from problem


def _workloads(_context: click.Context, _option: click.Parameter, value: str | None) -> list[Workload]:
    """Read the list of workloads; none means all."""
    if value is None:
        return list(WORKLOADS)
    names = value.split(",")
    known = {workload.name for workload in WORKLOADS}
    if unknown := set(names) - known:
        raise click.BadParameter(f"{', '.join(sorted(unknown))}; choose from {', '.join(sorted(known))}")
    return [workload for workload in WORKLOADS if workload.name in names]


@click.command()
@click.option("--server", "columns", default=ALL_COLUMNS, callback=_columns, help="Servers, with commas.")
@click.option("--only", "workloads", default=None, callback=_workloads, help="Workloads, with commas.")
@click.option("--quick", is_flag=True, help="Less of everything: a look, not figures to quote.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Also write the figures here.")
@click.option("--keep", is_flag=True, help="Keep the servers' folders with their logs.")
def main(
    columns: list[Column], workloads: list[Workload], quick: bool, json_path: Path | None, keep: bool
) -> None:
    """Measure homeservers from outside, and print the figures beside each other."""
    directory = Path(tempfile.mkdtemp(prefix="plait-bench-"))
    directory.chmod(0o755)
    progress = Console(stderr=True, highlight=False, soft_wrap=True)
    run = Run(columns, workloads, Scale(quick), directory, lambda line: progress.print(line, markup=False))
    try:
        cells = asyncio.run(run.play())
    finally:
        if keep:
            progress.print(f"kept: {directory}")
        else:
            shutil.rmtree(directory, ignore_errors=True)
    width = None if sys.stdout.isatty() else 200
    Console(width=width).print(build_table(columns, workloads, cells))
    if json_path is not None:
        json_path.write_text(json.dumps(_to_json(cells), indent=2) + "\n", encoding="utf-8")


def _to_json(cells: Cells) -> dict[str, dict[str, object]]:
    """Arrange figures by workload and server."""
    arranged: dict[str, dict[str, object]] = {}
    for (column, name), cell in cells.items():
        value: object = cell.to_json() if isinstance(cell, Figures) else {"failed": cell}
        arranged.setdefault(name, {})[column.value] = value
    return arranged


if __name__ == "__main__":
    main()
