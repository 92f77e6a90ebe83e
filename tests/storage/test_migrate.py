"""Migrations bring any older database to the present schema, on both engines."""

from __future__ import annotations

import sqlite3
import stat
from pathlib import Path

from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import SynchronousTestCase

from storage.database import Database, Dialect, Transaction
from storage.engines import open_database
from storage.migrate import Migration, SchemaTooNew, load_migrations, migrate
from tests.storage.helpers import REACTOR, PostgresCase, SqliteCase

FIRST = Migration(
    1, "first", "-- a; 'comment\nCREATE TABLE a (x BYTES, y TEXT);\n--@postgres CREATE TABLE p (x TEXT)\n;"
)
SECOND = Migration(
    2, "second", "ALTER TABLE a ADD COLUMN z BIGINT;\nINSERT INTO a (y, z) VALUES ('BYTES; --', 7)"
)
BROKEN = Migration(2, "broken", "CREATE TABLE b (x BIGINT); CREATE TABLE a (x BIGINT)")

COLUMNS = {
    Dialect.SQLITE: (
        "SELECT m.name, c.name FROM sqlite_master m, pragma_table_info(m.name) c WHERE m.type = 'table'"
    ),
    Dialect.POSTGRES: (
        "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'"
    ),
}


def columns(tx: Transaction) -> list[tuple[object, ...]]:
    """Give every (table, column) of the database."""
    return sorted(tx.all(COLUMNS[tx.dialect]))


class MigrateContract:
    """What migrating does on every engine."""

    database: Database
    url: str

    async def test_from_empty(self) -> None:
        """An empty database gets every migration of the code, and a second run changes nothing."""
        version = await migrate(self.database)
        self.assertEqual(version, load_migrations()[-1].number)
        before = await self.database.read(columns)
        self.assertIn(("state_nodes", "hash"), before)
        self.assertEqual(await migrate(self.database), version)
        self.assertEqual(await self.database.read(columns), before)

    async def test_from_each_older_version(self) -> None:
        """A database of any older version ends with the same schema as a new one."""
        steps = load_migrations()
        for known in range(1, len(steps) + 1):
            await migrate(self.database, steps[:known])
        upgraded = await self.database.read(columns)
        fresh = await self.open_another()
        await migrate(fresh)
        self.assertEqual(await fresh.read(columns), upgraded)
        await fresh.close()

    async def test_dialects(self) -> None:
        """Types are substituted, guarded lines count on their engine alone, literals are left alone."""
        await migrate(self.database, [FIRST, SECOND])
        found = await self.database.read(lambda tx: tx.all("SELECT x, y, z FROM a"))
        self.assertEqual(found, [(None, "BYTES; --", 7)])
        tables = {row[0] for row in await self.database.read(columns)}
        self.assertEqual("p" in tables, self.database.dialect is Dialect.POSTGRES)

    async def test_text_sorts_by_code_point(self) -> None:
        """Text sorts alike on both engines, whatever the locale of the database."""
        await migrate(self.database, [FIRST])
        words = ["b", "B", "a", "é", "_", "\uffff", "\U00010000"]
        await self.database.write(lambda tx: tx.many("INSERT INTO a (y) VALUES (?)", [(w,) for w in words]))
        found = await self.database.read(lambda tx: [row[0] for row in tx.all("SELECT y FROM a ORDER BY y")])
        self.assertEqual(found, sorted(words))

    async def test_a_failing_step_leaves_the_version_before(self) -> None:
        """A step that fails half-way leaves nothing behind, and the version is the one before."""
        await migrate(self.database, [FIRST])
        before = await self.database.read(columns)
        with self.assertRaises(Exception):  # noqa: B017  # the driver's own error
            await migrate(self.database, [FIRST, BROKEN])
        self.assertEqual(await self.database.read(columns), before)
        self.assertEqual(await migrate(self.database, [FIRST, SECOND]), 2)

    async def test_a_newer_database_is_refused(self) -> None:
        """A database ahead of the code is refused and left as it is."""
        await migrate(self.database, [FIRST, SECOND])
        with self.assertRaisesRegex(SchemaTooNew, "version 2, this Plait knows 1"):
            await migrate(self.database, [FIRST])

    async def test_two_processes_at_once(self) -> None:
        """Two that start at once both succeed, and each step is applied once."""
        other = await open_database(self.url, REACTOR, pool_size=2)
        both = [Deferred.fromCoroutine(migrate(db, [FIRST, SECOND])) for db in (self.database, other)]
        self.assertEqual(await gatherResults(both), [2, 2])
        rows = await other.read(lambda tx: tx.all("SELECT z FROM a"))
        self.assertEqual(rows, [(7,)])
        await other.close()


class SqliteMigrateTests(MigrateContract, SqliteCase):
    """Migrating on SQLite."""

    async def open_another(self) -> Database:
        """Open a second, empty database."""
        return await open_database(self.url + ".other", REACTOR)

    async def test_the_file_is_backed_up_before_an_upgrade(self) -> None:
        """An existing file is copied with its old schema and rows; a new one is not."""
        path = Path(self.url.removeprefix("sqlite:///"))
        backup = path.with_name("plait.db.before-2")
        await migrate(self.database, [FIRST])
        await self.database.write(lambda tx: tx.execute("INSERT INTO a (y) VALUES ('kept')"))
        self.assertFalse(backup.exists())
        await migrate(self.database, [FIRST, SECOND])
        copy = sqlite3.connect(backup)
        self.assertEqual(copy.execute("SELECT x, y FROM a").fetchall(), [(None, "kept")])
        self.assertEqual(copy.execute("SELECT version FROM schema_version").fetchall(), [(1,)])
        copy.close()
        self.assertEqual(stat.S_IMODE(backup.stat().st_mode), 0o600)

    async def test_one_copy_of_each_upgrade(self) -> None:
        """A file that is made now is not copied, whatever steps it takes; an upgrade in steps copies once."""
        folder = Path(self.url.removeprefix("sqlite:///")).parent
        await migrate(self.database, [FIRST, SECOND])
        self.assertEqual(list(folder.glob("*.before-*")), [])
        more = [Migration(number, "more", f"CREATE TABLE t{number} (x BIGINT);") for number in (3, 4, 5)]
        await migrate(self.database, [FIRST, SECOND, *more])
        self.assertEqual([path.name for path in folder.glob("*.before-*")], ["plait.db.before-3"])


class PostgresMigrateTests(MigrateContract, PostgresCase):
    """Migrating on PostgreSQL."""

    async def open_another(self) -> Database:
        """Open a second, empty database."""
        url = self.server.create_database()
        self.addCleanup(self.server.drop_database, url)
        return await open_database(url, REACTOR)


class LoadTests(SynchronousTestCase):
    """The shipped scripts are in order."""

    def test_numbers_have_no_holes(self) -> None:
        """The migrations are numbered from 1 without holes, and each has statements for both engines."""
        steps = load_migrations()
        self.assertEqual([step.number for step in steps], list(range(1, len(steps) + 1)))
        for step in steps:
            for dialect in Dialect:
                self.assertTrue(step.statements(dialect))
