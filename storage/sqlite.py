"""The SQLite engine: one file in WAL mode, one writer thread, a few reader threads with snapshots.

A write transaction begins with `BEGIN IMMEDIATE`: writers are exclusive, so `FOR UPDATE` is dropped.
Every commit is synced to disk (`synchronous=FULL`). Statements are prepared once per connection and
text. For one process alone; several processes need PostgreSQL.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from attrs import define, field
from twisted.internet.interfaces import IReactorFromThreads

from storage.database import (
    DatabaseGone,
    Dialect,
    IntegrityError,
    Row,
    is_single_statement,
)
from storage.statements import (
    SQLITE_MAX_VARIABLES,
    expand_for_sqlite,
    has_nul,
    parse,
    row_placeholders,
    split_rows,
)
from storage.workers import PooledDatabase, Work, Workers

T = TypeVar("T")

BUSY_TIMEOUT_SECONDS = 10
PREPARED_STATEMENTS = 512
ROWS_A_STATEMENT = 200
"""Rows that `values` runs at once. A trip costs nothing here, but a text does: one of 2,600 rows takes 7 ms
to prepare and is seldom met again; nearly all chunks of this size go through one prepared statement."""
_PRAGMAS = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA temp_store = MEMORY",
    "PRAGMA journal_size_limit = 67108864",
)
WRITER_CACHE_KIB, READER_CACHE_KIB = 4_000, 1_000
"""Pages kept by a connection; what a reader does not hold, the operating system's cache has."""
_REFUSED_DATA = (sqlite3.IntegrityError, sqlite3.DataError, OverflowError, UnicodeEncodeError)
_NUL = "U+0000 in text: the store must escape it"


@define(eq=False)
class SqliteTransaction:
    """One open transaction; see `storage.database.Transaction`."""

    _cursor: sqlite3.Cursor
    _single: bool = False
    failure: BaseException | None = None
    _begun: bool = field(default=False, init=False)

    @property
    def dialect(self) -> Dialect:
        """Tell the engine."""
        return Dialect.SQLITE

    def execute(self, sql: str, args: Sequence[object] = ()) -> int:
        """Run a statement and give the number of rows it touched."""
        return self._run(sql, args, _exhaust)

    def all(self, sql: str, args: Sequence[object] = ()) -> list[Row]:
        """Run a query and give all its rows."""
        return self._run(sql, args, sqlite3.Cursor.fetchall)

    def one(self, sql: str, args: Sequence[object] = ()) -> Row | None:
        """Run a query and give its first row, or None."""
        row: Row | None = self._run(sql, args, sqlite3.Cursor.fetchone)
        return row

    def pairs(self, sql: str, args: Sequence[object] = ()) -> dict[bytes, bytes]:
        """Run a query of two columns of bytes, never NULL, and give the second by the first."""
        return dict(self.all(sql, args))

    def many(self, sql: str, rows: Iterable[Sequence[object]]) -> None:
        """Run the statement once for each row."""
        self._check()
        try:
            self._cursor.executemany(parse(sql).sqlite, _without_nul(rows))
        except (sqlite3.Error, *_REFUSED_DATA, IntegrityError) as error:
            self._fail(error)

    def values(self, sql: str, rows: Sequence[Sequence[object]]) -> list[Row]:
        """Run a statement whose ` VALUES ?` stands for all `rows`, `ROWS_A_STATEMENT` at a time."""
        if not rows:
            return []
        columns = len(rows[0])
        head, tail = (parse(part).sqlite for part in split_rows(sql))
        found: list[Row] = []
        step = min(ROWS_A_STATEMENT, SQLITE_MAX_VARIABLES // columns)
        for start in range(0, len(rows), step):
            chunk = rows[start : start + step]
            text = head + row_placeholders(columns, len(chunk)) + tail
            found += self._run_text(text, [value for row in chunk for value in row], sqlite3.Cursor.fetchall)
        return found

    def _run(self, sql: str, args: Sequence[object], finish: Callable[[sqlite3.Cursor], T]) -> T:
        statement = parse(sql)
        if statement.lists:
            return self._run_text(*expand_for_sqlite(statement, args), finish)
        return self._run_text(statement.sqlite, args, finish)

    def _run_text(self, text: str, args: Sequence[object], finish: Callable[[sqlite3.Cursor], T]) -> T:
        self._check()
        try:
            if has_nul(args):
                raise IntegrityError(_NUL)
            self._cursor.execute(text, args)
            return finish(self._cursor)
        except (sqlite3.Error, *_REFUSED_DATA, IntegrityError) as error:
            self._fail(error)

    def _check(self) -> None:
        """Refuse to go on after a failure, as PostgreSQL does, or after the only statement."""
        if self._single and self._begun:
            raise RuntimeError("a work marked `single_statement` ran two")
        self._begun = True
        if self.failure is not None:
            raise IntegrityError("an earlier statement of this transaction failed") from self.failure

    def _fail(self, error: BaseException) -> NoReturn:
        self.failure = error
        raise _translate(error) from error


def _exhaust(cursor: sqlite3.Cursor) -> int:
    """Let the statement run to its end and give the number of rows it touched."""
    cursor.fetchall()
    return cursor.rowcount


def _without_nul(rows: Iterable[Sequence[object]]) -> Iterator[Sequence[object]]:
    """Pass rows on, refusing U+0000 in text."""
    for row in rows:
        if has_nul(row):
            raise IntegrityError(_NUL)
        yield row


def _translate(error: BaseException) -> BaseException:
    """Give our exception for one of the driver's."""
    if isinstance(error, IntegrityError):
        return error
    if isinstance(error, _REFUSED_DATA):
        return IntegrityError(str(error))
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if isinstance(error, sqlite3.OperationalError) and code != sqlite3.SQLITE_ERROR:
        return DatabaseGone(str(error))
    return error


@define(eq=False)
class SqliteSession:
    """A connection to the file, opened by the thread that uses it when first needed."""

    _path: str
    _writes: bool
    _connection: sqlite3.Connection | None = field(default=None, init=False)

    def run(self, work: Work, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Run a job in a transaction; a write commits before this returns."""
        connection = self._connect()
        cursor = connection.cursor()
        transaction = SqliteTransaction(cursor, not self._writes and is_single_statement(work))
        self._begin(cursor)
        try:
            result = work(transaction, *args, **kwargs)
            if transaction.failure is not None:
                raise IntegrityError("a failed transaction cannot commit") from transaction.failure
        except BaseException:
            self._roll_back()
            raise
        self._commit(cursor)
        return result

    def settle(self) -> None:
        """Do nothing: SQLite transactions end at once."""

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    def _connect(self) -> sqlite3.Connection:
        if self._connection is None:
            try:
                self._connection = connect(self._path, read_only=not self._writes)
            except (sqlite3.OperationalError, OSError) as error:
                raise DatabaseGone(f"cannot open {self._path}: {error}") from error
        return self._connection

    def _begin(self, cursor: sqlite3.Cursor) -> None:
        try:
            cursor.execute("BEGIN IMMEDIATE" if self._writes else "BEGIN")
        except sqlite3.Error as error:
            self.close()
            raise _translate(error) from error

    def _commit(self, cursor: sqlite3.Cursor) -> None:
        """Commit; what fails has not happened, for SQLite undoes it, or leaves it open to be undone."""
        try:
            cursor.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            raise _translate(error) from error

    def _roll_back(self) -> None:
        """Undo; a connection that cannot is given up."""
        try:
            if self._connection is not None and self._connection.in_transaction:
                self._connection.rollback()
        except sqlite3.Error:
            self.close()


def connect(path: str, *, read_only: bool = False) -> sqlite3.Connection:
    """Open a connection with the settings of this engine; a new file is readable by its owner alone."""
    if not Path(path).exists():
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    connection = sqlite3.connect(
        path,
        timeout=BUSY_TIMEOUT_SECONDS,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=PREPARED_STATEMENTS,
    )
    # Builds differ; with the least of them, none does what others refuse.
    connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, SQLITE_MAX_VARIABLES)
    for pragma in _PRAGMAS:
        connection.execute(pragma).fetchall()
    connection.execute(f"PRAGMA cache_size = -{READER_CACHE_KIB if read_only else WRITER_CACHE_KIB}")
    if read_only:
        connection.execute("PRAGMA query_only = ON")
    return connection


def open_sqlite(
    path: str, reactor: IReactorFromThreads, *, readers: int = 3, max_waiting: int = 2_000
) -> PooledDatabase:
    """Open the database file `path`, made when it does not exist; `readers` is the number of read threads."""
    return PooledDatabase(
        Dialect.SQLITE,
        Workers(
            reactor, "read", [SqliteSession(path, False) for _ in range(readers)], max_waiting=max_waiting
        ),
        Workers(reactor, "write", [SqliteSession(path, True)], max_waiting=max_waiting),
    )
