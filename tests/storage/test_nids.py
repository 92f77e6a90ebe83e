"""Tests of numbers for names, on both engines."""

from __future__ import annotations

from storage import nids
from storage.database import Database, Transaction
from storage.migrate import migrate
from storage.statements import SQLITE_MAX_VARIABLES
from tests.storage.helpers import PostgresCase, SqliteCase


class NidsContract:
    """What every engine does."""

    database: Database

    async def test_a_number_that_is_given_stays(self) -> None:
        """Users said to be new keep the number that another worker gave them meanwhile, and all have one."""
        await migrate(self.database)
        names = [f"@u{number}:plait.test" for number in range(500)] + ["@\0:plait.test"]
        early = await self.database.write(nids.intern_users, names[:7])
        made = await self.database.write(nids.new_users, names)
        self.assertEqual(made.keys(), set(names))  # type: ignore[attr-defined]
        self.assertEqual({name: made[name] for name in early}, early)  # type: ignore[attr-defined]
        self.assertEqual(len(set(made.values())), len(names))  # type: ignore[attr-defined]
        self.assertEqual(await self.database.read(nids.users, names), made)  # type: ignore[attr-defined]
        self.assertEqual(await self.database.write(nids.intern_users, names), made)  # type: ignore[attr-defined]


class SqliteTests(NidsContract, SqliteCase):
    """On SQLite."""

    async def test_more_users_than_sqlite_takes_arguments(self) -> None:
        """However many users are asked for, those who have numbers are found."""
        names = [f"@u{number}:plait.test" for number in range(SQLITE_MAX_VARIABLES + 1)]

        def read(tx: Transaction) -> None:
            self.assertEqual(nids.users(tx, names), made)
            self.assertEqual(nids.user_ids(tx, range(len(names))), {nid: name for name, nid in made.items()})

        await migrate(self.database)
        made = await self.database.write(nids.intern_users, [names[0], names[-1]])
        await self.database.read(read)


class PostgresTests(NidsContract, PostgresCase):
    """On PostgreSQL."""
