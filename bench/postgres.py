"""A private PostgreSQL on loopback as it is shipped, durable, whose processes can be accounted for."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import psycopg2
from attrs import frozen

from tests.interop.ports import free_ports
from tests.interop.programs import Command, Program, Sleep

UNPRIVILEGED_USER = "postgres"
DEBIAN_PROGRAMS = Path("/usr/lib/postgresql")
DATABASE_USER = "bench"


class NoPostgres(Exception):
    """PostgreSQL is not installed here."""


def find_postgres() -> Path:
    """Find the folder of PostgreSQL's newest programs, or raise `NoPostgres`."""
    folders = sorted(DEBIAN_PROGRAMS.glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if folders:
        return folders[-1].parent
    found = shutil.which("postgres")
    if found is None:
        raise NoPostgres("PostgreSQL is not installed")
    return Path(found).resolve().parent


@frozen
class PostgresServer:
    """One cluster with default settings, in C locale and UTF-8, trusting loopback."""

    program: Program
    port: int

    @classmethod
    def make(cls, directory: Path) -> PostgresServer:
        """Initialise a cluster in `directory`; as root, under PostgreSQL's own account."""
        programs = find_postgres()
        directory.mkdir(parents=True)
        user = UNPRIVILEGED_USER if os.geteuid() == 0 else None
        if user is not None:
            shutil.chown(directory, user)
        data = str(directory / "data")
        initdb = [str(programs / "initdb"), "-D", data, "-U", DATABASE_USER, "-A", "trust"]
        locale = ["--locale=C", "--encoding=UTF8"]
        subprocess.run([*initdb, *locale], check=True, stdout=subprocess.DEVNULL, user=user, cwd=directory)
        (port,) = free_ports(1)
        argv = [str(programs / "postgres"), "-D", data, "-p", str(port)]
        argv += ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]
        log = directory / "postgres.log"
        return cls(Program(Command(argv, directory, log, user=user, stop_signal=signal.SIGINT)), port)

    async def start(self, sleep: Sleep) -> None:
        """Start the postmaster and wait until it answers."""
        self.program.start()
        await self.program.wait_ready(self._answers, sleep)

    def create_database(self, name: str) -> str:
        """Create an empty database and give its DSN."""
        _execute(self._dsn("postgres"), f'CREATE DATABASE "{name}"')
        return self._dsn(name)

    @staticmethod
    def analyze(dsn: str) -> None:
        """Gather a database's statistics, as autovacuum would a minute later: fresh tables get bad plans."""
        _execute(dsn, "ANALYZE")

    def _dsn(self, name: str) -> str:
        """Give the DSN of a database."""
        return f"postgresql://{DATABASE_USER}@127.0.0.1:{self.port}/{name}"

    def _answers(self) -> bool:
        """Tell whether a connection can be opened."""
        try:
            psycopg2.connect(self._dsn("postgres"), connect_timeout=1).close()
        except psycopg2.OperationalError:
            return False
        return True


def _execute(dsn: str, statement: str) -> None:
    """Run one statement outside a transaction."""
    connection = psycopg2.connect(dsn)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
    finally:
        connection.close()
