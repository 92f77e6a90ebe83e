"""Rows on their way into the database: statements as values, so that many writers share one trip.

A store describes what is to be written as `Rows`; the persister gathers the rows of all writes of a
batch by statement and runs each statement once. Not a query builder: the SQL stands in the stores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from attrs import frozen

from storage.database import Row, Transaction

Fold = Callable[[Row, Row], Row]
"""Joins an earlier and a later row of the same key into the one row that is written."""


def keep_last(_earlier: Row, later: Row) -> Row:
    """Let the later row replace the earlier."""
    return later


@frozen(eq=False)
class Statement:
    """One SQL text that is run once for each row, in as few trips as can be.

    `key` counts the leading columns that name a row: within a batch, rows of one name fold into one, since
    PostgreSQL refuses to touch a row twice in one statement. 0: every row stands for itself.
    """

    sql: str
    key: int = 0
    fold: Fold = keep_last

    def run(self, tx: Transaction, rows: Sequence[Row]) -> None:
        """Write all `rows`, folded by key."""
        tx.many(self.sql, self._folded(rows) if self.key else rows)

    def _folded(self, rows: Sequence[Row]) -> Sequence[Row]:
        by_key: dict[Row, Row] = {}
        for row in rows:
            name = row[: self.key]
            earlier = by_key.get(name)
            by_key[name] = row if earlier is None else self.fold(earlier, row)
        return [by_key[name] for name in sorted(by_key)]


@frozen(eq=False)
class Rows:
    """Rows for one statement."""

    statement: Statement
    rows: tuple[Row, ...]


def run_all(tx: Transaction, groups: Iterable[Rows]) -> None:
    """Run each statement once, with its rows from all `groups`, in order of first appearance."""
    gathered: dict[Statement, list[Row]] = {}
    for group in groups:
        gathered.setdefault(group.statement, []).extend(group.rows)
    for statement, rows in gathered.items():
        statement.run(tx, rows)
