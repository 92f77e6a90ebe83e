"""Databases for tests: a temporary SQLite file, and a private PostgreSQL server.

The server runs on a unix socket in a temporary directory, is started at most once in a test process
and stopped when the process ends. Each test gets a fresh, empty database. A contract test is a class
of tests mixed into `SqliteCase` and into `PostgresCase`.
"""

from __future__ import annotations

import atexit
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import psycopg2
from attrs import define, frozen
from twisted.internet import reactor
from twisted.internet.interfaces import IReactorFromThreads
from twisted.trial.unittest import SkipTest, TestCase

from storage.database import Database, Transaction
from storage.engines import open_database
from storage.trie_format import NodeName
from storage.trie_nodes import INSERT_NODES, node_rows

REACTOR = IReactorFromThreads(reactor)
_names = count(1)


def _program(name: str) -> str | None:
    """Find a PostgreSQL server program."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    if found := next((folder / name for folder in folders if (folder / name).exists()), None):
        return str(found)
    if config := shutil.which("pg_config"):
        folder = subprocess.run(
            [config, "--bindir"], capture_output=True, text=True, check=True
        ).stdout.strip()
        if (Path(folder) / name).exists():
            return str(Path(folder) / name)
    return shutil.which(name)


@frozen
class PostgresServer:
    """A running private server; `socket` is the directory of its socket."""

    socket: Path
    user: str

    def url(self, name: str) -> str:
        """Give the URL of one of its databases."""
        return f"postgresql://{self.user}@/{name}?host={self.socket}"

    def create_database(self) -> str:
        """Make an empty database and give its URL."""
        name = f"plait_{next(_names)}"
        self.sql(f"CREATE DATABASE {name}")
        return self.url(name)

    def drop_database(self, url: str) -> None:
        """Remove a database."""
        self.sql(f"DROP DATABASE {url.split('/')[3].split('?')[0]} WITH (FORCE)")

    def sql(self, statement: str) -> None:
        """Run an administrative statement."""
        connection = psycopg2.connect(self.url("postgres"))
        connection.autocommit = True
        connection.cursor().execute(statement)
        connection.close()


def postgres_server() -> PostgresServer:
    """Give the private server of this process, or raise `SkipTest` when PostgreSQL is missing."""
    initdb, postgres = _program("initdb"), _program("postgres")
    if initdb is None or postgres is None:
        raise SkipTest("skipped: PostgreSQL is not installed")
    return _start(initdb, postgres)


@cache
def _start(initdb: str, postgres: str) -> PostgresServer:
    user = "postgres" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name
    folder = Path(tempfile.mkdtemp(prefix="plait-pg-"))
    if os.getuid() == 0:
        shutil.chown(folder, user)
    data = str(folder / "data")
    initialise = [initdb, "-D", data, "-U", user, "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "-N"]
    subprocess.run(_as_user(initialise, user), check=True, capture_output=True, cwd=folder)
    settings = ["listen_addresses=", "fsync=off", "max_connections=200", "full_page_writes=off"]
    options = [part for setting in settings for part in ("-c", setting)]
    log = (folder / "log").open("wb")
    # The server is our direct child, so that a signal reaches it.
    server = subprocess.Popen(
        [postgres, "-D", data, "-k", str(folder), *options],
        stdout=log,
        stderr=log,
        cwd=folder,
        user=user if os.getuid() == 0 else None,
        group=pwd.getpwnam(user).pw_gid if os.getuid() == 0 else None,
        extra_groups=[] if os.getuid() == 0 else None,
    )
    atexit.register(_stop, server, folder)
    running = PostgresServer(folder, user)
    _wait_until_ready(running, server, folder / "log")
    return running


def _as_user(command: Sequence[str], user: str) -> list[str]:
    """Run a command as `user` when we are root, since PostgreSQL refuses root."""
    return ["runuser", "-u", user, "--", *command] if os.getuid() == 0 else list(command)


def _wait_until_ready(running: PostgresServer, server: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the server accepts connections; at most 30 s."""
    for _ in range(600):
        try:
            psycopg2.connect(running.url("postgres")).close()
            return
        except psycopg2.OperationalError:
            if server.poll() is not None:
                break
            time.sleep(0.05)
    raise RuntimeError(f"PostgreSQL did not start: {log.read_text()}")


def _stop(server: subprocess.Popen[bytes], folder: Path) -> None:
    """Stop the server at once and remove its files."""
    server.send_signal(signal.SIGQUIT)
    server.wait(timeout=30)
    shutil.rmtree(folder, ignore_errors=True)


class SqliteCase(TestCase):
    """A test with a fresh SQLite database in `self.database`."""

    url: str
    database: Database

    async def setUp(self) -> None:
        """Open an empty database file."""
        folder = Path(tempfile.mkdtemp(prefix="plait-sqlite-"))
        self.addCleanup(shutil.rmtree, folder)
        self.url = f"sqlite:///{folder}/plait.db"
        self.database = await open_database(self.url, REACTOR, pool_size=4)

    async def tearDown(self) -> None:
        """Close the database."""
        await self.database.close()


class PostgresCase(TestCase):
    """A test with a fresh PostgreSQL database in `self.database`."""

    url: str
    server: PostgresServer
    database: Database

    async def setUp(self) -> None:
        """Open an empty database on the private server."""
        self.server = postgres_server()
        self.url = self.server.create_database()
        self.addCleanup(self.server.drop_database, self.url)
        self.database = await open_database(self.url, REACTOR, pool_size=4)

    async def tearDown(self) -> None:
        """Close the database."""
        await self.database.close()


def insert_nodes(tx: Transaction, room_nid: int, nodes: Mapping[NodeName, bytes]) -> None:
    """Store nodes of state tries; those already there are left alone."""
    tx.many(INSERT_NODES, node_rows(room_nid, nodes))


@define(eq=False)
class LateDatabase:
    """A database of which one answer comes late: after something else has happened."""

    database: Any
    happens: Any = None

    async def read(self, work: Any, *args: Any) -> Any:
        """Read, and let happen what happens before anyone hears of it."""
        found = await self.database.read(work, *args)
        happens, self.happens = self.happens, None
        if happens is not None:
            await happens()
        return found


class CountingDatabase:
    """Counts the hops to another database's threads."""

    def __init__(self, database: Database) -> None:
        """Count from now on."""
        self._database = database
        self.dialect = database.dialect
        self.reads = 0

    async def read(self, work: Any, *args: Any, **kwargs: Any) -> Any:
        """Count one."""
        self.reads += 1
        return await self._database.read(work, *args, **kwargs)

    async def write(self, work: Any, *args: Any, **kwargs: Any) -> Any:
        """Count none."""
        return await self._database.write(work, *args, **kwargs)

    async def close(self) -> None:
        """Leave it open."""
