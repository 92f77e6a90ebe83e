"""The PostgreSQL engine: psycopg2 connections, each served by a thread of its own.

`read` runs REPEATABLE READ, READ ONLY; `write` runs READ COMMITTED. Round trips cost most, on both sides. So
`BEGIN` travels with the first statement; rows to be written (`many`) travel with the next statement whose
answer is needed, or with COMMIT; and a read ends after its result is handed over. A read of one statement
takes one round trip of the caller's time, a group commit three. A work marked `single_statement` takes no
transaction at all (24 µs less of our CPU and 30 µs less of the server's). What is run with nearly every event
is planned once a connection (`plans`). A connection that was lost while idle is replaced and the work run
again; so is a transaction that lost a deadlock. Loss at COMMIT is `UnknownOutcome` and never repeated.
Needs PostgreSQL 13 or newer, with UTF-8 as the database's encoding.
"""

from __future__ import annotations

import contextlib
from binascii import a2b_hex
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn, TypeVar

import psycopg2
import psycopg2.errors
import psycopg2.extensions
from attrs import define, field
from twisted.internet.interfaces import IReactorFromThreads

from storage.database import (
    DatabaseGone,
    Dialect,
    IntegrityError,
    Row,
    UnknownOutcome,
    is_single_statement,
)
from storage.plans import Often, Plans
from storage.statements import (
    Statement,
    array_literal,
    columns_as_arrays,
    insert_from_arrays,
    parse,
    row_placeholders,
    split_row_template,
    split_rows,
)
from storage.workers import PooledDatabase, Work, Workers

T = TypeVar("T")
Connection = psycopg2.extensions.connection
Cursor = psycopg2.extensions.cursor

MAX_TRIES = 4
ROWS_A_STATEMENT = 2_000
MAX_UNSENT_BYTES = 1024 * 1024
"""Beyond this, statements that wait for company go on their own."""
_ROWS_TO_READ = "( VALUES "
"""Before rows that a query reads; those of an INSERT stand without a parenthesis."""
_BYTEA_OID = 17
_COPY_HEADER_BYTES = 19
_BEGIN_READ = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; "
_BEGIN_WRITE = "BEGIN ISOLATION LEVEL READ COMMITTED; "
_SETTINGS = "-c lock_timeout=30s -c idle_in_transaction_session_timeout=120s"
_DEFAULTS: dict[str, object] = {
    "application_name": "plait",
    "client_encoding": "UTF8",
    "connect_timeout": 5,
    "keepalives_idle": 30,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
_REFUSED_DATA = (psycopg2.IntegrityError, psycopg2.DataError, UnicodeEncodeError, ValueError)
_LOST_RACE = (psycopg2.errors.DeadlockDetected, psycopg2.errors.SerializationFailure)


class _ConnectionLost(DatabaseGone):
    """The connection broke before COMMIT was sent: nothing happened."""


class _LostRace(DatabaseGone):
    """PostgreSQL chose this transaction to give way."""


def _bytes_of(value: str | bytes | None, _cursor: object) -> bytes | None:
    """Read a bytea in hex format (which psycopg2 gives as text) as bytes; `fromhex` takes twice as long."""
    return a2b_hex(value[2:]) if isinstance(value, str) else value


_BYTES = psycopg2.extensions.new_type((_BYTEA_OID,), "BYTES", _bytes_of)


class _Copied(list[bytes]):
    """Takes what a COPY gives, a row at a time."""

    write = list[bytes].append


def _pairs_of(copied: _Copied) -> dict[bytes, bytes]:
    """Read a binary COPY of two columns: a header before the first row, then rows, then a mark.

    A row is the number of its columns (2 bytes), then for each column its length (4 bytes) and its bytes.
    """
    copied[0] = copied[0][_COPY_HEADER_BYTES:]
    copied.pop()
    found: dict[bytes, bytes] = {}
    for row in copied:
        end = 6 + int.from_bytes(row[2:6], "big")
        found[row[6:end]] = row[end + 4 :]
    return found


def _with_arrays(statement: Statement, args: Sequence[object]) -> Sequence[object]:
    """Give the arguments of a statement, lists as array literals."""
    flat = list(args)
    for index in statement.lists:
        flat[index] = array_literal(flat[index])  # type: ignore[arg-type]  # a list by contract
    return flat


@define(eq=False)
class PostgresTransaction:
    """One open transaction; see `storage.database.Transaction`.

    `_begin` goes before the first statement; when it is empty, there is one statement and no transaction.
    """

    _cursor: Cursor
    _begin: str
    _plans: Plans
    begun: bool = False
    failure: BaseException | None = None
    _unsent: list[bytes] = field(factory=list, init=False)
    """Statements whose answer nobody needs, on their way with the next one."""

    @property
    def dialect(self) -> Dialect:
        """Tell the engine."""
        return Dialect.POSTGRES

    def execute(self, sql: str, args: Sequence[object] = ()) -> int:
        """Run a statement and give the number of rows it touched."""
        self._run_parsed(sql, args)
        return self._cursor.rowcount

    def all(self, sql: str, args: Sequence[object] = ()) -> list[Row]:
        """Run a query and give all its rows."""
        self._run_parsed(sql, args)
        return self._cursor.fetchall()

    def one(self, sql: str, args: Sequence[object] = ()) -> Row | None:
        """Run a query and give its first row, or None."""
        self._run_parsed(sql, args)
        return self._cursor.fetchone()

    def pairs(self, sql: str, args: Sequence[object] = ()) -> dict[bytes, bytes]:
        """Run a query of two columns of bytes, never NULL, and give the second by the first.

        As a binary COPY: in all other answers the driver gets bytes as hexadecimal text.
        """
        statement = parse(sql)
        text = f"COPY ({statement.postgres}) TO STDOUT (FORMAT binary)"
        self._unsent.append(self._written(text, _with_arrays(statement, args)))
        copied = _Copied()
        self._send(copied)
        return _pairs_of(copied)

    def many(self, sql: str, rows: Iterable[Sequence[object]]) -> None:
        """Have an INSERT with many rows in each statement run, other statements once for each row.

        They are sent with the statement that comes next, and may fail with it.
        """
        all_rows = list(rows)
        if isinstance(sql, Often) and len(all_rows) == 1:
            self._unsent.append(self._planned(parse(sql).postgres, all_rows[0]))
            return
        parts = split_row_template(sql)
        head, row, tail = parts if parts else ("", sql, "")
        joint = "," if parts else ";"
        head, row, tail = (parse(part).postgres for part in (head, row, tail))
        for start in range(0, len(all_rows), ROWS_A_STATEMENT):
            chunk = all_rows[start : start + ROWS_A_STATEMENT]
            arrays = insert_from_arrays(sql, chunk)
            if arrays is not None:
                self._unsent.append(self._written(*arrays))
            else:
                text = head + joint.join([row] * len(chunk)) + tail
                self._unsent.append(self._written(text, [value for r in chunk for value in r]))
            if sum(map(len, self._unsent)) > MAX_UNSENT_BYTES:
                self._send()

    def values(self, sql: str, rows: Sequence[Sequence[object]]) -> list[Row]:
        """Run a statement whose ` VALUES ?` stands for all `rows` at once, and give what it returns."""
        if not rows:
            return []
        head, tail = (parse(part).postgres for part in split_rows(sql))
        arrays = columns_as_arrays(rows) if head.endswith(_ROWS_TO_READ) else None
        if arrays is not None:
            marks = ", ".join(f"%s::{kind}[]" for kind, _ in arrays)
            text = f"{head.removesuffix(_ROWS_TO_READ)}( SELECT * FROM unnest({marks}){tail}"
            self._run(text, [literal for _, literal in arrays])
        else:
            marks = row_placeholders(len(rows[0]), len(rows)).replace("?", "%s")
            often = isinstance(sql, Often) and len(rows) == 1
            self._run(head + marks + tail, [value for row in rows for value in row], often=often)
        return self._cursor.fetchall() if self._cursor.description else []

    def last_words(self) -> bytes:
        """Give what goes before COMMIT; what the server has not begun runs now, since it may be run again."""
        if self._unsent and not self.begun:
            self._send()
        return b"".join(statement + b";" for statement in self._unsent)

    def _run_parsed(self, sql: str, args: Sequence[object]) -> None:
        if not args:
            self._run(sql, None)
        else:
            statement = parse(sql)
            self._run(statement.postgres, _with_arrays(statement, args), often=isinstance(sql, Often))

    def _run(self, text: str, args: Sequence[object] | None, *, often: bool = False) -> None:
        planned = often and args is not None
        self._unsent.append(self._planned(text, args or ()) if planned else self._written(text, args))
        self._send()

    def _planned(self, text: str, args: Sequence[object]) -> bytes:
        """Write out a statement that is planned once."""
        plan, run = self._plans.statements(text)
        return plan + self._written(run, args)

    def _written(self, text: str, args: Sequence[object] | None) -> bytes:
        """Write a statement out."""
        if self.failure is not None:
            raise IntegrityError("an earlier statement of this transaction failed") from self.failure
        if self.begun and not self._begin:
            raise RuntimeError("a work marked `single_statement` ran two")
        try:
            return self._cursor.mogrify(text, args)
        except (psycopg2.Error, UnicodeEncodeError, ValueError) as error:
            self._fail(error)

    def _send(self, copied: _Copied | None = None) -> None:
        """Run what is not sent; the cursor has the answer to the last statement, `copied` that of a COPY."""
        begin = b"" if self.begun else self._begin.encode()
        self.begun = True
        unsent, self._unsent = self._unsent, []
        text = begin + b";".join(unsent)
        try:
            if copied is None:
                self._cursor.execute(text)
            else:
                self._cursor.copy_expert(text, copied)
        except psycopg2.Error as error:
            self._plans.lost()
            self._fail(error)
        self._plans.arrived()

    def _fail(self, error: Exception) -> NoReturn:
        self.failure = error
        raise _translate(error, self._cursor.connection) from error


def _translate(error: Exception, connection: Connection) -> Exception:
    """Give our exception for one of the driver's."""
    if connection.closed:
        return _ConnectionLost(str(error).strip())
    if isinstance(error, _LOST_RACE):
        return _LostRace(str(error).strip())
    if isinstance(error, _REFUSED_DATA):
        return IntegrityError(str(error).strip())
    if isinstance(error, psycopg2.OperationalError | psycopg2.errors.ReadOnlySqlTransaction):
        return DatabaseGone(str(error).strip())
    return error


@define(eq=False)
class PostgresSession:
    """A connection made by the thread that uses it, when first needed and again after a loss."""

    _dsn: str
    _writes: bool
    _connection: Connection | None = field(default=None, init=False)
    _open: bool = field(default=False, init=False)
    _plans: Plans = field(factory=Plans, init=False)

    def run(self, work: Work, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Run a job in a transaction; a write commits before this returns."""
        for _ in range(MAX_TRIES - 1):
            reused = self._connection is not None
            try:
                return self._run_once(work, args, kwargs)
            except _ConnectionLost:
                if not reused:
                    raise
            except _LostRace:
                continue
        return self._run_once(work, args, kwargs)

    def settle(self) -> None:
        """End a read whose result is on its way."""
        if self._open:
            self._roll_back()

    def close(self) -> None:
        """Close the connection."""
        self._open = False
        if self._connection is not None:
            with contextlib.suppress(psycopg2.Error):
                self._connection.close()
            self._connection = None

    def _run_once(self, work: Work, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        cursor = self._connect().cursor()
        begin = _BEGIN_WRITE if self._writes else "" if is_single_statement(work) else _BEGIN_READ
        self._plans.lost()  # what an earlier transaction had not sent
        transaction = PostgresTransaction(cursor, begin, self._plans)
        try:
            result = work(transaction, *args, **kwargs)
            if transaction.failure is not None:
                raise IntegrityError("a failed transaction cannot commit") from transaction.failure
            last_words = transaction.last_words()
        except BaseException:
            if transaction.begun:
                self._roll_back()
            raise
        self._open = transaction.begun and begin != ""
        if self._writes and transaction.begun:
            self._commit(cursor, last_words)
        return result

    def _connect(self) -> Connection:
        if self._connection is None:
            try:
                self._connection = connect(self._dsn, read_only=not self._writes)
                self._plans = Plans()
            except psycopg2.OperationalError as error:
                raise DatabaseGone(f"cannot connect to PostgreSQL: {str(error).strip()}") from error
        return self._connection

    def _commit(self, cursor: Cursor, last_words: bytes) -> None:
        """Commit; when the connection breaks meanwhile, nobody here knows whether it happened."""
        self._open = False
        try:
            cursor.execute(last_words + b"COMMIT")
            self._plans.arrived()
        except psycopg2.Error as error:
            self._plans.lost()
            if cursor.connection.closed:
                self.close()
                raise UnknownOutcome(str(error).strip()) from error
            self._roll_back()
            raise _translate(error, cursor.connection) from error

    def _roll_back(self) -> None:
        """Undo; a connection that cannot is given up."""
        self._open = False
        connection = self._connection
        if connection is None:
            return
        try:
            connection.cursor().execute("ROLLBACK")
        except psycopg2.Error:
            self.close()


def connect(dsn: str, *, read_only: bool = False) -> Connection:
    """Open a connection with the settings of this engine; what the DSN says goes before our defaults.

    Raises `psycopg2.OperationalError` when the server cannot be reached.
    """
    given = psycopg2.extensions.parse_dsn(dsn)
    ours = f"{_SETTINGS} -c default_transaction_read_only={'on' if read_only else 'off'}"
    given["options"] = f"{ours} {given.get('options', '')}".strip()
    connection: Connection = psycopg2.connect(**{**_DEFAULTS, **given})
    connection.autocommit = True
    psycopg2.extensions.register_type(_BYTES, connection)
    return connection


def open_postgres(
    dsn: str, reactor: IReactorFromThreads, *, pool_size: int = 10, max_waiting: int = 2_000
) -> PooledDatabase:
    """Open a pool of `pool_size` connections (at least 2), half of them for writing."""
    writers = max(1, pool_size // 2)
    readers = max(1, pool_size - writers)
    return PooledDatabase(
        Dialect.POSTGRES,
        Workers(
            reactor, "read", [PostgresSession(dsn, False) for _ in range(readers)], max_waiting=max_waiting
        ),
        Workers(
            reactor, "write", [PostgresSession(dsn, True) for _ in range(writers)], max_waiting=max_waiting
        ),
    )
