"""Tests of statements that PostgreSQL plans once a connection."""

from __future__ import annotations

from storage.database import IntegrityError, Transaction
from storage.plans import Often
from tests.storage.helpers import PostgresCase
from tests.storage.test_postgres import kill_others

_PUT = Often("INSERT INTO t (a, b, c) VALUES (?, ?, ?) ON CONFLICT (a) DO UPDATE SET c = t.c")
_GET = Often("SELECT a, b, c FROM t WHERE a IN ? AND b LIKE '%\"%' ORDER BY a")
_CLAIM = Often("INSERT INTO t (a, b, c) VALUES ? ON CONFLICT DO NOTHING RETURNING a")
_PLANS = "SELECT count(*) FROM pg_prepared_statements"
ROWS = [(1, '%s "quoted"', b"\0\xff"), (2, '"', None), (3, "none", b"")]


def put_and_get(tx: Transaction) -> list[tuple[object, ...]]:
    """Put the rows one by one, and give those that match."""
    for row in ROWS:
        tx.many(_PUT, [row])
    return tx.all(_GET, ([1, 2, 3],))


def plans(tx: Transaction) -> int:
    """Run all three statements, and count the plans of the connection."""
    put_and_get(tx)
    tx.values(_CLAIM, [(4, "", None)])
    row = tx.one(_PLANS)
    assert row is not None
    return int(row[0])


class PlansTests(PostgresCase):
    """What a plan may not change."""

    async def setUp(self) -> None:
        """Make a table."""
        await super().setUp()
        sql = "CREATE TABLE t (a BIGINT PRIMARY KEY, b TEXT NOT NULL, c BYTEA)"
        await self.database.write(lambda tx: tx.execute(sql))

    async def test_values_come_and_go_unchanged(self) -> None:
        """Text with marks of the driver, bytes, nothing, and lists are what they are without a plan."""
        self.assertEqual(await self.database.write(put_and_get), ROWS[:2])

    async def test_a_connection_plans_once(self) -> None:
        """However often a statement is run, in however many transactions, it has one plan a connection."""
        for _ in range(10):
            self.assertEqual(await self.database.write(plans), 3)

    async def test_counts_and_answers_are_those_of_the_statement(self) -> None:
        """A claim gives the rows it took, and several rows need no plan."""

        def claim(tx: Transaction) -> list[int]:
            once, again = (tx.values(_CLAIM, [(7, "", None)]) for _ in range(2))
            both = tx.values(_CLAIM, [(7, "", None), (8, "", None)])
            return [len(once), len(again), len(both)]

        self.assertEqual(await self.database.write(claim), [1, 0, 1])

    async def test_a_failure_leaves_no_doubt(self) -> None:
        """A plan that was sent with a statement that failed is made anew in the next transaction."""

        def fail(tx: Transaction) -> None:
            tx.many(_PUT, [(1, None, None)])
            tx.all(_GET, ([1],))

        for _ in range(8):
            with self.assertRaises(IntegrityError):
                await self.database.write(fail)
            self.assertEqual(await self.database.write(put_and_get), ROWS[:2])

    async def test_a_new_connection_has_plans_of_its_own(self) -> None:
        """What was planned on a connection that is lost is planned again."""
        await self.database.write(plans)
        await self.database.write(kill_others)
        for _ in range(8):
            self.assertEqual(await self.database.write(put_and_get), ROWS[:2])
