"""Bring a database to the schema of this code: numbered `migrations/NNNN_name.sql`, one transaction each.

The scripts are one SQL text for both engines, with three small differences per dialect:
`BYTES` becomes BLOB or BYTEA; on PostgreSQL a column of type `TEXT` gets `COLLATE "C"`, so that text
sorts by code point as on SQLite; a line that starts with `--@postgres` or `--@sqlite` counts on that engine
alone. The version lives in a table of one row. Two processes that start at once are safe: each step looks at
the version again under a lock. Before an upgrade an existing SQLite file is copied beside itself.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from attrs import frozen
from twisted.logger import Logger

from storage.database import Database, Dialect, Transaction
from storage.statements import split_script

_log = Logger()
_LOCK = 0x706C616974_6D6967  # any number will do, as long as every process of ours takes the same
_NAME = re.compile(r"(\d{4})_(\w+)\.sql")
_TYPES = {
    Dialect.SQLITE: (("BYTES", "BLOB"),),
    Dialect.POSTGRES: (("BYTES", "BYTEA"), (r"(?<![Aa][Ss] )TEXT", 'TEXT COLLATE "C"')),
}
_CREATE_VERSION = (
    "CREATE TABLE IF NOT EXISTS schema_version"
    " (one_row SMALLINT PRIMARY KEY CHECK (one_row = 1), version BIGINT NOT NULL)"
)
_GET_VERSION = "SELECT version FROM schema_version"
_SET_VERSION = (
    "INSERT INTO schema_version (one_row, version) VALUES (1, ?)"
    " ON CONFLICT (one_row) DO UPDATE SET version = excluded.version"
)


class SchemaTooNew(Exception):
    """The database was written by a newer Plait; this one must not touch it."""


@frozen
class Migration:
    """One step: `number` is the schema version after it."""

    number: int
    name: str
    script: str

    def statements(self, dialect: Dialect) -> list[str]:
        """Give the statements for one engine."""
        text = re.sub(rf"^--@{dialect.value}\b", "", self.script, flags=re.MULTILINE)
        code = re.split(r"('(?:[^']|'')*'|--[^\n]*)", text)
        for word, substitute in _TYPES[dialect]:
            code[::2] = [re.sub(rf"{word}\b", substitute, part) for part in code[::2]]
        return split_script("".join(code))


def load_migrations() -> tuple[Migration, ...]:
    """Read all migrations of this code, in order; raises `ValueError` when two have one number."""
    found = []
    for entry in files("storage").joinpath("migrations").iterdir():
        if match := _NAME.fullmatch(entry.name):
            found.append(Migration(int(match[1]), match[2], entry.read_text("utf-8")))
    found.sort(key=lambda migration: migration.number)
    if len({migration.number for migration in found}) < len(found):
        raise ValueError("two migrations have one number")
    return tuple(found)


async def migrate(database: Database, migrations: Sequence[Migration] | None = None) -> int:
    """Apply what is missing and give the schema version.

    Raises `SchemaTooNew` when the database is ahead of the code; nothing is changed then.
    """
    steps = load_migrations() if migrations is None else tuple(migrations)
    is_first = True
    while (applied := await database.write(_apply_next, steps, is_first)) is not None:
        is_first = False
        _log.info(
            "database schema is now version {number} ({name})", number=applied.number, name=applied.name
        )
    return _newest(steps)


def _newest(steps: Sequence[Migration]) -> int:
    """Give the version that all steps together lead to."""
    return steps[-1].number if steps else 0


def _apply_next(tx: Transaction, steps: Sequence[Migration], is_first: bool) -> Migration | None:
    """Apply the next step that is missing, or give None when there is none; the first one of an upgrade is
    preceded by a copy."""
    if tx.dialect is Dialect.POSTGRES:
        tx.execute("SET LOCAL lock_timeout = 0")
        tx.execute("SELECT pg_advisory_xact_lock(?)", (_LOCK,))
    tx.execute(_CREATE_VERSION)
    row = tx.one(_GET_VERSION)
    version = int(row[0]) if row else 0
    if version > _newest(steps):
        raise SchemaTooNew(f"the database has schema version {version}, this Plait knows {_newest(steps)}")
    step = next((step for step in steps if step.number > version), None)
    if step is None:
        return None
    if version and is_first and tx.dialect is Dialect.SQLITE:
        _back_up(tx, step.number)
    for statement in step.statements(tx.dialect):
        tx.execute(statement)
    tx.execute(_SET_VERSION, (step.number,))
    return step


def _back_up(tx: Transaction, version: int) -> None:
    """Copy the file, as last committed, to `NAME.before-VERSION` before it is upgraded to `version`.

    The write lock is held meanwhile, so nothing is committed between the copy and the upgrade.
    """
    row = next(row for row in tx.all("PRAGMA database_list") if row[1] == "main")
    path = Path(row[2])
    target = path.with_name(f"{path.name}.before-{version}")
    part = target.with_name(target.name + ".part")
    part.unlink(missing_ok=True)
    os.close(os.open(part, os.O_CREAT | os.O_WRONLY, 0o600))
    source = sqlite3.connect(path)
    try:
        source.execute("VACUUM INTO ?", (str(part),))
    finally:
        source.close()
    with part.open("rb") as copy:
        os.fsync(copy.fileno())
    part.replace(target)
