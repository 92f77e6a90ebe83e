"""What stores and services see of a database: transactions run on a thread, awaited from the reactor.

A unit of work is a plain function whose first argument is a `Transaction`; it runs whole on a
database thread, in one transaction, and its return value is what the caller awaits. It must not touch
objects the reactor mutates. SQL is one text for both engines: `?` placeholders; a `?` whose argument is
a list or tuple expands to `(?, ?, …)`, so `WHERE event_nid IN ?` works on both (callers keep lists
within `MAX_LIST` entries, `parts_of` cuts longer ones). `FOR UPDATE` is dropped by SQLite, whose write
transactions are exclusive.

A work may be run again after a lost connection or a deadlock, so it must have no effect but its
transaction and its result, and must not use up its arguments. After a statement has failed, the
transaction can neither go on nor commit. Text must be free of U+0000 (`storage.text.escape`). When too many
jobs wait, `read` and `write` raise `protocol.errors.Unavailable`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

Row = tuple[Any, ...]
"""A database row, typed by the store that reads it, at once."""


MAX_LIST = 10_000
"""Entries in a list that is an argument; SQLite takes at least three times as many."""


def parts_of(values: Sequence[T]) -> Iterator[list[T]]:
    """Cut values into lists that a statement takes; nothing has no parts."""
    return (list(values[start : start + MAX_LIST]) for start in range(0, len(values), MAX_LIST))


class Dialect(Enum):
    """Which engine speaks; for the rare statement the two do not share."""

    SQLITE = "sqlite"
    POSTGRES = "postgres"


_SINGLE = "runs_a_single_statement"


def single_statement(work: T) -> T:
    """Mark a work for `Database.read` that runs one statement: it is spared the cost of a transaction.

    On PostgreSQL that halves the round trips. A second statement of such a work raises `RuntimeError`.
    """
    setattr(work, _SINGLE, True)
    return work


def is_single_statement(work: object) -> bool:
    """Tell whether a work was marked by `single_statement`."""
    return getattr(work, _SINGLE, False) is True


class Transaction(Protocol):
    """One open transaction, on a database thread."""

    @property
    def dialect(self) -> Dialect:
        """Tell the engine."""

    def execute(self, sql: str, args: Sequence[object] = ()) -> int:
        """Run a statement and give the number of rows it touched."""

    def all(self, sql: str, args: Sequence[object] = ()) -> list[Row]:
        """Run a query and give all its rows."""

    def one(self, sql: str, args: Sequence[object] = ()) -> Row | None:
        """Run a query and give its first row, or None."""

    def pairs(self, sql: str, args: Sequence[object] = ()) -> dict[bytes, bytes]:
        """Run a query of two columns of bytes, never NULL, and give the second by the first.

        On PostgreSQL it takes a third to a half less of our time than `all`, a fifth less of the server's.
        """

    def many(self, sql: str, rows: Iterable[Sequence[object]]) -> None:
        """Run an `INSERT … VALUES (?, ?, …) [ON CONFLICT …]` for many rows in few round trips.

        It is done when the next statement is; if the database refuses it, that one or COMMIT may raise.
        """

    def values(self, sql: str, rows: Sequence[Sequence[object]]) -> list[Row]:
        """Run a statement whose ` VALUES ?` stands for all `rows` at once, and give what it returns."""


class Database(Protocol):
    """A pool of connections to one database."""

    @property
    def dialect(self) -> Dialect:
        """Tell the engine."""

    async def read(
        self, work: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run `work` in a read-only transaction with one snapshot."""
        ...

    async def write(
        self, work: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run `work` in a transaction that commits when it returns and rolls back when it raises."""
        ...

    async def close(self) -> None:
        """Wait for running work and close all connections."""


class DatabaseGone(Exception):
    """The database cannot be reached; the request may be tried again (503 to clients)."""


class UnknownOutcome(DatabaseGone):
    """The connection to PostgreSQL was lost during COMMIT: it may or may not have happened."""


class IntegrityError(Exception):
    """A statement broke a constraint, or its data was refused; the transaction is rolled back."""
