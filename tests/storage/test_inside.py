"""Tests of coroutines that run within a transaction."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from storage.database import Transaction
from storage.inside import Inside, run_at_once
from tests.storage.helpers import SqliteCase


def one(tx: Transaction, number: int) -> int:
    """Give a number by way of the database."""
    row = tx.one("SELECT ? + 0", (number,))
    assert row is not None
    return int(row[0])


class InsideTests(SqliteCase):
    """A coroutine reads on a database thread and never waits."""

    async def test_reads_are_answered_at_once(self) -> None:
        """Any number of look-ups are one job."""

        async def add(inside: Inside) -> int:
            return await inside.read(one, 1) + await inside.read(one, number=2)

        self.assertEqual(await self.database.read(lambda tx: run_at_once(add(Inside(tx)))), 3)

    async def test_nothing_is_written(self) -> None:
        """A write is refused."""

        async def write(inside: Inside) -> None:
            await inside.write(one, 1)

        with self.assertRaises(RuntimeError):
            await self.database.read(lambda tx: run_at_once(write(Inside(tx))))

    def test_nothing_else_is_waited_for(self) -> None:
        """A coroutine that waits for the reactor is an error, and is ended."""
        ended = []

        async def wait() -> None:
            try:
                await Deferred()
            finally:
                ended.append(True)

        with self.assertRaises(RuntimeError):
            run_at_once(wait())
        self.assertEqual(ended, [True])
