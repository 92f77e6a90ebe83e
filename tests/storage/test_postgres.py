"""PostgreSQL alone: lost connections, unknown outcomes, lost races, the DSN."""

from __future__ import annotations

import threading

from twisted.internet.defer import Deferred, gatherResults

from storage.database import DatabaseGone, IntegrityError, Transaction, UnknownOutcome
from storage.engines import open_database
from tests.storage.helpers import REACTOR, PostgresCase

_DIE_AT_COMMIT = """
    CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql
        AS $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$;
    CREATE TABLE deadly (a BIGINT);
    CREATE CONSTRAINT TRIGGER die AFTER INSERT ON deadly
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION die();
    CREATE TABLE t (a BIGINT PRIMARY KEY, b BIGINT NOT NULL)
"""
_KILL_OTHERS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


def kill_others(tx: Transaction) -> None:
    """End all other connections to this database."""
    tx.execute(_KILL_OTHERS)


def count(tx: Transaction) -> int:
    """Count the rows."""
    row = tx.one("SELECT count(*) FROM t")
    assert row is not None
    return int(row[0])


class LossTests(PostgresCase):
    """What a lost connection means for the caller."""

    async def setUp(self) -> None:
        """Make the tables."""
        await super().setUp()
        await self.database.write(lambda tx: tx.execute(_DIE_AT_COMMIT))

    async def test_an_idle_connection_that_was_lost_is_replaced(self) -> None:
        """After the server ended all idle connections, reads and writes work at once."""
        await gatherResults([Deferred.fromCoroutine(self.database.read(count)) for _ in range(4)])
        await self.database.write(kill_others)
        self.assertEqual(await self.database.read(count), 0)
        for n in range(4):
            await self.database.write(lambda tx, n=n: tx.execute("INSERT INTO t VALUES (?, 0)", [n]))
        self.assertEqual(await self.database.read(count), 4)

    async def test_pairs_over_a_connection_that_was_lost(self) -> None:
        """A COPY notices the loss as other statements do."""
        sql = "SELECT int4send(1), int4send(2)"
        await gatherResults([Deferred.fromCoroutine(self.database.read(count)) for _ in range(4)])
        await self.database.write(kill_others)
        for _ in range(4):
            found = await self.database.read(lambda tx: tx.pairs(sql))
            self.assertEqual(found, {bytes((0, 0, 0, 1)): bytes((0, 0, 0, 2))})

    async def test_a_loss_within_the_work_is_tried_again_once(self) -> None:
        """A transaction cut before COMMIT has not happened; it is run once more on a new connection."""
        runs = []

        def work(tx: Transaction) -> None:
            runs.append(1)
            tx.execute("INSERT INTO t VALUES (?, 0)", [len(runs)])
            if len(runs) == 1:
                tx.execute("SELECT pg_terminate_backend(pg_backend_pid())")

        await gatherResults([Deferred.fromCoroutine(self.database.write(count)) for _ in range(8)])
        await self.database.write(work)
        self.assertEqual(len(runs), 2)
        self.assertEqual(await self.database.read(lambda tx: tx.all("SELECT a FROM t")), [(2,)])

    async def test_a_loss_at_commit_is_an_unknown_outcome(self) -> None:
        """A connection lost during COMMIT raises UnknownOutcome; the work is not repeated, all goes on."""
        runs = []

        def work(tx: Transaction) -> None:
            runs.append(1)
            tx.execute("INSERT INTO deadly VALUES (1)")

        with self.assertRaises(UnknownOutcome):
            await self.database.write(work)
        self.assertEqual(runs, [1])
        for _ in range(4):
            self.assertEqual(await self.database.write(count), 0)

    async def test_a_database_that_goes_away_and_comes_back(self) -> None:
        """While it cannot be reached work raises DatabaseGone; when it is back, work is done again."""
        name = self.url.split("/")[3].split("?")[0]
        self.server.sql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        self.server.sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        for work in (self.database.read(count), self.database.write(count)):
            with self.assertRaises(DatabaseGone):
                await work
        self.server.sql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        self.assertEqual(await self.database.read(count), 0)
        self.assertEqual(await self.database.write(count), 0)

    async def test_a_deadlock_is_run_again(self) -> None:
        """Two transactions that lock each other's rows both commit in the end."""
        await self.database.write(lambda tx: tx.many("INSERT INTO t VALUES (?, ?)", [(1, 0), (2, 0)]))
        both_hold_one = threading.Barrier(2, timeout=20)

        def work(tx: Transaction, first: int, second: int, waits: list[bool]) -> None:
            tx.execute("UPDATE t SET b = b + 1 WHERE a = ?", [first])
            if waits:
                waits.clear()
                both_hold_one.wait()
            tx.execute("UPDATE t SET b = b + 1 WHERE a = ?", [second])

        await gatherResults(
            [Deferred.fromCoroutine(self.database.write(work, first, 3 - first, [True])) for first in (1, 2)]
        )
        self.assertEqual(await self.database.read(lambda tx: tx.all("SELECT DISTINCT b FROM t")), [(2,)])

    async def test_rows_alone_survive_a_lost_connection(self) -> None:
        """A work that only writes rows is run again on a new connection, for nothing of it was sent."""
        await gatherResults([Deferred.fromCoroutine(self.database.write(count)) for _ in range(8)])
        await self.database.write(kill_others)
        for n in range(4):
            await self.database.write(lambda tx, n=n: tx.many("INSERT INTO t VALUES (?, 0)", [(n,)]))
        self.assertEqual(await self.database.read(count), 4)

    async def test_rows_are_there_for_what_follows(self) -> None:
        """Rows wait for company, but a query after them sees them, in order, however many they are."""

        def work(tx: Transaction) -> tuple[int, int]:
            tx.many("INSERT INTO t VALUES (?, ?)", [(1, 1), (2, 2)])
            tx.many("UPDATE t SET b = ? WHERE a = ?", [(10, 1), (20, 2)])
            first = tx.one("SELECT sum(b) FROM t")
            tx.many("INSERT INTO t VALUES (?, ?)", [(n, 10**15) for n in range(3, 100_000)])
            return (0 if first is None else int(first[0])), count(tx)

        self.assertEqual(await self.database.write(work), (30, 99_999))

    async def test_rows_refused_with_the_commit(self) -> None:
        """Rows that the database refuses spoil their transaction, also where they travel with COMMIT."""

        def work(tx: Transaction) -> None:
            count(tx)
            tx.many("INSERT INTO t VALUES (?, ?)", [(1, 0), (1, 0)])

        with self.assertRaises(IntegrityError):
            await self.database.write(work)
        self.assertEqual(await self.database.write(count), 0)

    async def test_a_constraint_that_breaks_at_commit(self) -> None:
        """A deferred constraint that fails at COMMIT is an IntegrityError, for that outcome is known."""
        await self.database.write(
            lambda tx: tx.execute("CREATE TABLE c (a BIGINT REFERENCES t (a) DEFERRABLE INITIALLY DEFERRED)")
        )
        with self.assertRaises(IntegrityError):
            await self.database.write(lambda tx: tx.execute("INSERT INTO c VALUES (9)"))
        self.assertEqual(await self.database.read(count), 0)

    async def test_another_encoding_is_refused(self) -> None:
        """A database that is not UTF-8 is refused when it is opened."""
        self.server.sql("CREATE DATABASE latin ENCODING LATIN1 LOCALE 'C' TEMPLATE template0")
        self.addCleanup(self.server.drop_database, self.server.url("latin"))
        with self.assertRaisesRegex(ValueError, "LATIN1"):
            await open_database(self.server.url("latin"), REACTOR)
