"""The contract of `storage.database`, which both engines keep."""

from __future__ import annotations

import resource
import stat
import threading
import time
from pathlib import Path

from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import TestCase

from protocol.errors import Unavailable
from storage.database import (
    Database,
    DatabaseGone,
    IntegrityError,
    Transaction,
    UnknownOutcome,
    single_statement,
)
from storage.engines import open_database
from storage.workers import Workers
from tests.storage.helpers import REACTOR, PostgresCase, SqliteCase

SCHEMA = {
    "sqlite": "CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT UNIQUE, c BLOB)",
    "postgres": "CREATE TABLE t (a BIGINT PRIMARY KEY, b TEXT UNIQUE, c BYTEA)",
}
INSERT = "INSERT INTO t (a, b, c) VALUES (?, ?, ?)"


def make_table(tx: Transaction) -> None:
    """Make the table of these tests."""
    tx.execute(SCHEMA[tx.dialect.value])


def put(tx: Transaction, *rows: tuple[object, ...]) -> int:
    """Insert rows one by one and count them."""
    return sum(tx.execute(INSERT, row) for row in rows)


def rows_of(tx: Transaction) -> list[tuple[object, ...]]:
    """Give all rows in order."""
    return tx.all("SELECT a, b, c FROM t ORDER BY a")


class DatabaseContract:
    """What every engine does."""

    database: Database
    url: str

    async def fill(self, *rows: tuple[object, ...]) -> None:
        """Make the table and put rows in."""
        await self.database.write(make_table)
        await self.database.write(put, *rows)

    async def test_values_come_back_as_they_went(self) -> None:
        """Integers of 64 bits, text with any character but U+0000, bytes and NULL are kept exactly."""
        rows = [(-(2**63), "é'\"\\%s ?", bytes(range(256))), (2**63 - 1, "\U0001f600", b""), (0, None, None)]
        await self.fill(*rows)
        found = await self.database.read(rows_of)
        self.assertEqual(found, sorted(rows))
        self.assertTrue(all(type(row[2]) in (bytes, type(None)) for row in found))

    async def test_a_write_that_raises_leaves_nothing(self) -> None:
        """An exception of the work rolls its transaction back and reaches the caller as it is."""
        await self.fill()

        def work(tx: Transaction) -> None:
            put(tx, (1, "x", b""))
            raise ZeroDivisionError

        with self.assertRaises(ZeroDivisionError):
            await self.database.write(work)
        self.assertEqual(await self.database.read(rows_of), [])

    async def test_a_broken_constraint_is_an_integrity_error(self) -> None:
        """A duplicate key raises IntegrityError and the transaction is undone."""
        await self.fill((1, "x", b""))
        with self.assertRaises(IntegrityError):
            await self.database.write(put, (2, "y", b""), (1, "z", b""))
        self.assertEqual(await self.database.read(rows_of), [(1, "x", b"")])

    async def test_a_failed_transaction_cannot_go_on(self) -> None:
        """A work that swallows an IntegrityError can neither go on nor commit, on either engine."""
        await self.fill((1, "x", b""))

        def swallow(tx: Transaction) -> None:
            put(tx, (2, "y", b""))
            try:
                put(tx, (1, "z", b""))
            except IntegrityError:
                return

        with self.assertRaises(IntegrityError):
            await self.database.write(swallow)
        self.assertEqual(len(await self.database.read(rows_of)), 1)

    async def test_refused_data_is_an_integrity_error(self) -> None:
        """U+0000, lone surrogates and integers past 64 bits are refused alike (security: F16)."""
        await self.fill()
        for row in ((1, "a\0b", b""), (1, "\ud800", b""), (2**63, "x", b"")):
            with self.assertRaises(IntegrityError):
                await self.database.write(put, row)
            with self.assertRaises(IntegrityError):
                await self.database.write(lambda tx, row=row: tx.many(INSERT, [row]))
        self.assertEqual(await self.database.read(rows_of), [])

    async def test_lists_expand(self) -> None:
        """`IN ?` and `NOT IN ?` take lists of integers, text or bytes, also empty ones."""
        await self.fill((1, "x", b"\0\\"), (2, 'y"\\{},', b"b"), (3, "NULL", b"c"))

        def select(tx: Transaction, where: str, *args: object) -> list[object]:
            return [row[0] for row in tx.all(f"SELECT a FROM t WHERE {where} ORDER BY a", args)]

        for where, args, expected in (
            ("a IN ?", [[1, 3, 9]], [1, 3]),
            ("a NOT IN ?", [[1, 3, 9]], [2]),
            ("a IN ?", [[]], []),
            ("a NOT IN ?", [[]], [1, 2, 3]),
            ("b IN ? AND a > ?", [['y"\\{},', "NULL", "x"], 1], [2, 3]),
            ("c IN ?", [(b"\0\\", b"c")], [1, 3]),
            ("a IN ? AND b IN ?", [list(range(-9000, 2)), ["x"] * 5], [1]),
            ("b LIKE '%L' AND b <> '?' AND a IN ?", [[3]], [3]),
        ):
            self.assertEqual(await self.database.read(select, where, *args), expected, where)

    async def test_many_rows_in_one_call(self) -> None:
        """`many` inserts any number of rows, with ON CONFLICT, and updates too."""
        await self.fill((5, "five", b""))
        rows = [(n, f"n{n}", b"%") for n in range(4500)]

        def work(tx: Transaction) -> None:
            tx.many(INSERT + " ON CONFLICT (a) DO UPDATE SET b = excluded.b", rows)
            tx.many("UPDATE t SET c = ? WHERE a = ?", [(b"u", 1), (b"v", 2)])
            tx.many(INSERT, [])

        await self.database.write(work)
        found = await self.database.read(rows_of)
        self.assertEqual(len(found), 4500)
        self.assertEqual(found[1:3], [(1, "n1", b"u"), (2, "n2", b"v")])
        self.assertEqual(found[5], (5, "n5", b""))

    async def test_many_rows_keep_their_values(self) -> None:
        """However many rows go in at once, each value comes back: quotes, braces, NULL alone or not."""
        await self.fill()
        texts = [
            "",
            "NULL",
            "null",
            'a"b',
            "it's",
            "\\",
            '\\"',
            "{}",
            "{1,2}",
            ",",
            " ",
            "%s ?",
            "\U0001f600",
        ]
        blobs = [b"", b"\0", b"\\", b'"{},', bytes(range(256)), None]
        rows = [(n - 7, text, blobs[n % len(blobs)]) for n, text in enumerate([*texts, None])]
        empty = [(n, None, None) for n in range(100, 110)]
        ends = [(end, f"{end}", b"") for n in range(1, 9) for end in (2**63 - n, n - 1 - 2**63)]
        for part in (rows, empty, ends):
            await self.database.write(lambda tx, part=part: tx.many(INSERT, part))
        self.assertEqual(await self.database.read(rows_of), sorted([*rows, *empty, *ends]))
        for row in ((1000, "a\0b", b""), (1000, "\ud800", b""), (2**63, "x", b"")):
            several = [*((n, "x", b"") for n in range(200, 210)), row]
            with self.assertRaises(IntegrityError):
                await self.database.write(lambda tx, several=several: tx.many(INSERT, several))
        self.assertEqual(len(await self.database.read(rows_of)), len(rows) + len(empty) + len(ends))

    async def test_values_gives_what_the_statement_returns(self) -> None:
        """`values` runs one statement over all rows and returns its rows, past the variable limit too."""
        await self.fill((5, "five", b""))
        sql = "INSERT INTO t (a, b, c) VALUES ? ON CONFLICT (a) DO NOTHING RETURNING a"
        rows = [(n, f"n{n}", None) for n in range(12_000)]
        returned = await self.database.write(lambda tx: tx.values(sql, rows))
        self.assertEqual(sorted(row[0] for row in returned), [n for n in range(12_000) if n != 5])
        joined = "WITH v(x, y) AS (VALUES ?) SELECT b, y FROM v JOIN t ON a = x ORDER BY a"
        found = await self.database.read(lambda tx: tx.values(joined, [(7, "p"), (3, "q")]))
        self.assertEqual(found, [("n3", "q"), ("n7", "p")])
        self.assertEqual(await self.database.read(lambda tx: tx.values(joined, [])), [])

    async def test_many_values_are_read_as_they_went(self) -> None:
        """However many rows a query reads, and of whatever types, each comes to it exactly."""
        await self.fill()
        odd = ["", "é'\"\\%s ?", "{a,b}", "NULL", "\U0001f600", "\\x00"]
        rows = [(n - (1 << 62), odd[n % len(odd)] + str(n), bytes((n % 256, 92, 0))) for n in range(450)]
        await self.database.write(put, *rows)
        wanted = "WITH w(a, b, c) AS ( VALUES ?) SELECT t.a, t.b, t.c FROM w JOIN t ON t.a = w.a"
        alike = f"{wanted} AND t.b = w.b AND t.c = w.c ORDER BY t.a"
        for count in (3, 20, 450):
            found = await self.database.read(lambda tx, count=count: tx.values(alike, rows[:count]))
            self.assertEqual(sorted(found), rows[:count])
        mixed = "WITH w(a, b) AS ( VALUES ?) SELECT t.a FROM w JOIN t ON t.a = w.a AND t.b = w.b"
        some = [(row[0], row[1] if row[0] % 2 else None) for row in rows]
        found = await self.database.read(lambda tx: tx.values(mixed, some))
        self.assertEqual(sorted(found), [(row[0],) for row in some if row[1] is not None])

    async def test_pairs_come_as_they_are(self) -> None:
        """`pairs` gives bytes by bytes, for one row, none or thousands, within a transaction or alone."""
        sql = "SELECT CAST(b AS BYTES), c FROM t WHERE b LIKE '%n%' AND a >= ? AND a IN ?"
        sql = sql.replace("BYTES", {"sqlite": "BLOB", "postgres": "BYTEA"}[self.database.dialect.value])
        rows = [(n, f"n{n}", bytes((n % 256, 0, 10, 255)) * (n % 7)) for n in range(3_000)]

        def work(tx: Transaction) -> list[dict[bytes, bytes]]:
            tx.many(INSERT, rows)
            return [tx.pairs(sql, (least, list(range(3_000)))) for least in (0, 2_999, 3_000)]

        await self.fill()
        expected = {b.encode(): c for _, b, c in rows}
        one = {b"n2999": expected[b"n2999"]}
        self.assertEqual(await self.database.write(work), [expected, one, {}])
        alone = single_statement(lambda tx: tx.pairs(sql, (0, [2_999])))
        self.assertEqual(await self.database.read(alone), one)
        with self.assertRaises(IntegrityError):
            await self.database.read(lambda tx: (tx.pairs(sql, (0, [2**70])), tx.one("SELECT 1")))

    async def test_for_update_is_accepted(self) -> None:
        """`SELECT … FOR UPDATE` runs on both engines."""
        await self.fill((1, "x", b""))
        row = await self.database.write(lambda tx: tx.one("SELECT b FROM t WHERE a = ? FOR UPDATE", [1]))
        self.assertEqual(row, ("x",))

    async def test_a_read_keeps_one_snapshot(self) -> None:
        """What commits during a read does not appear in it."""
        await self.fill((1, "x", b""))
        begun, written = threading.Event(), threading.Event()

        def look_twice(tx: Transaction) -> tuple[int, int]:
            first = len(rows_of(tx))
            begun.set()
            written.wait(10)
            return first, len(rows_of(tx))

        def wait_then_put(tx: Transaction) -> None:
            begun.wait(10)
            put(tx, (2, "y", b""))

        looking = Deferred.fromCoroutine(self.database.read(look_twice))
        await self.database.write(wait_then_put)
        written.set()
        self.assertEqual(await looking, (1, 1))
        self.assertEqual(len(await self.database.read(rows_of)), 2)

    async def test_a_read_cannot_write(self) -> None:
        """A statement that writes is refused in a read transaction."""
        await self.fill()
        with self.assertRaises(Exception):  # noqa: B017  # the driver's own error: a bug of the caller
            await self.database.read(put, (1, "x", b""))
        self.assertEqual(await self.database.read(rows_of), [])

    async def test_a_single_statement(self) -> None:
        """A work marked as a single statement reads like others, cannot write, and cannot run two."""
        await self.fill((1, "x", b""))
        self.assertEqual(await self.database.read(single_statement(lambda tx: rows_of(tx))), [(1, "x", b"")])
        with self.assertRaises(Exception):  # noqa: B017  # the driver's own error: a bug of the caller
            await self.database.read(single_statement(lambda tx: put(tx, (2, "y", b""))))
        with self.assertRaisesRegex(RuntimeError, "single_statement"):
            await self.database.read(single_statement(lambda tx: (rows_of(tx), rows_of(tx))))
        self.assertEqual(await self.database.read(rows_of), [(1, "x", b"")])

    async def test_many_jobs_at_once(self) -> None:
        """Many concurrent reads and writes all finish, each with its own result."""
        await self.fill()
        writes = [Deferred.fromCoroutine(self.database.write(put, (n, f"n{n}", b""))) for n in range(100)]
        reads = [Deferred.fromCoroutine(self.database.read(lambda tx, n=n: n)) for n in range(100)]
        self.assertEqual(await gatherResults(writes), [1] * 100)
        self.assertEqual(await gatherResults(reads), list(range(100)))
        self.assertEqual(len(await self.database.read(rows_of)), 100)

    async def test_a_closed_database_is_gone(self) -> None:
        """After close, work that was queued is done and new work raises DatabaseGone."""
        await self.fill()
        last = Deferred.fromCoroutine(self.database.write(put, (1, "x", b"")))
        await self.database.close()
        self.assertEqual(await last, 1)
        with self.assertRaises(DatabaseGone):
            await self.database.read(rows_of)


class SqliteTests(DatabaseContract, SqliteCase):
    """SQLite keeps the contract."""

    async def test_a_commit_that_fails_has_not_happened(self) -> None:
        """When a full disk fails COMMIT, that is known: nothing is written, and the next write is."""
        await self.fill()
        written = Path(self.url.removeprefix("sqlite:///") + "-wal").stat().st_size
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)

        def fill_the_disk(tx: Transaction) -> None:
            put(tx, (1, "x", b"c" * 8192))
            resource.setrlimit(resource.RLIMIT_FSIZE, (written, limits[1]))

        try:
            with self.assertRaises(DatabaseGone) as caught:
                await self.database.write(fill_the_disk)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        self.assertNotIsInstance(caught.exception, UnknownOutcome)
        await self.database.write(put, (2, "y", b""))
        self.assertEqual(await self.database.read(rows_of), [(2, "y", b"")])

    async def test_the_file_is_private(self) -> None:
        """The database file can be read by its owner alone."""
        mode = Path(self.url.removeprefix("sqlite:///")).stat().st_mode
        self.assertEqual(stat.S_IMODE(mode), 0o600)


class PostgresTests(DatabaseContract, PostgresCase):
    """PostgreSQL keeps the contract."""


class UrlTests(TestCase):
    """Database URLs are understood or refused."""

    async def test_a_bad_url_is_refused(self) -> None:
        """A URL of another kind is a ValueError that shows the two right forms."""
        for url in ("mysql://x/y", "plait.db", "sqlite:", "sqlite:///", "sqlite://host/x"):
            with self.assertRaisesRegex(ValueError, "sqlite:///PATH"):
                await open_database(url, REACTOR)

    async def test_a_missing_folder_is_told(self) -> None:
        """A SQLite path that cannot be opened raises DatabaseGone with the path."""
        with self.assertRaisesRegex(DatabaseGone, "nowhere"):
            await open_database("sqlite:////nowhere/at/all.db", REACTOR)

    async def test_an_absent_server_is_told(self) -> None:
        """A PostgreSQL server that does not answer raises DatabaseGone."""
        with self.assertRaises(DatabaseGone):
            await open_database("postgresql://nobody@127.0.0.1:1/x", REACTOR)


class EchoSession:
    """A session without a database, which holds its work until told."""

    def __init__(self) -> None:
        self.go = threading.Event()

    def run(self, work, args, kwargs):  # type: ignore[no-untyped-def]
        """Wait, then run the work."""
        self.go.wait(10)
        return work(*args, **kwargs)

    def settle(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class WorkersTests(TestCase):
    """The queue is bounded and abandons what nobody waits for."""

    async def test_a_full_queue_refuses(self) -> None:
        """Past the bound a job is refused at once with 503, and served again when there is room."""
        session = EchoSession()
        workers = Workers(REACTOR, "test", [session], max_waiting=2)
        jobs = [workers.submit(int, ("1",), {}), workers.submit(int, ("2",), {})]
        with self.assertRaises(Unavailable):
            workers.submit(int, (), {})
        session.go.set()
        self.assertEqual([await job for job in jobs], [1, 2])
        self.assertEqual(await workers.submit(int, ("3",), {}), 3)
        await workers.close()

    async def test_warm_connections_go_first(self) -> None:
        """Jobs that come one after the other are left to one connection, though it ends each one later."""
        used: list[int] = []

        class Session(EchoSession):
            def run(self, work, args, kwargs):  # type: ignore[no-untyped-def]
                used.append(id(self))
                return work(*args, **kwargs)

            def settle(self) -> None:
                time.sleep(0.001)

        workers = Workers(REACTOR, "test", [Session() for _ in range(20)], max_waiting=5)
        for number in range(100):
            self.assertEqual(await workers.submit(int, (number,), {}), number)
        await workers.close()
        self.assertEqual(len(set(used)), 1)

    async def test_a_cancelled_job_is_not_begun(self) -> None:
        """A job cancelled while it waits never runs, and its place in the queue is free again."""
        session, ran = EchoSession(), []
        workers = Workers(REACTOR, "test", [session], max_waiting=5)
        first = workers.submit(ran.append, (1,), {})
        second = workers.submit(ran.append, (2,), {})
        second.addErrback(lambda _failure: None)
        second.cancel()
        session.go.set()
        await first
        await workers.close()
        self.assertEqual(ran, [1])
        self.assertEqual(workers.waiting, 0)
