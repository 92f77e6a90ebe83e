"""What a workload is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from attrs import frozen

from bench.figures import Figures
from bench.hosts import Column
from bench.stage import Stage

EVERY_COLUMN = frozenset(Column)
PLAIT_COLUMNS = frozenset({Column.PLAIT_SQLITE, Column.PLAIT_POSTGRES})


@frozen
class Workload:
    """One row of the table: its name on the command line, its title, what Plait must reach, and its play."""

    name: str
    title: str
    goal: str
    play: Callable[[Stage], Awaitable[Figures]]
    columns: frozenset[Column] = EVERY_COLUMN
