"""A private PostgreSQL on loopback, made for one run and thrown away after it."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
from pathlib import Path

import psycopg2
from attrs import frozen

from tests.interop.ports import free_ports
from tests.interop.programs import Command, Program, Sleep

UNPRIVILEGED_USER = "postgres"
DEBIAN_BINARIES = Path("/usr/lib/postgresql")
DATABASE_USER = "plait"


def find_postgres() -> Path | None:
    """Find the newest PostgreSQL's program folder on this machine, or None."""
    candidates = sorted(DEBIAN_BINARIES.glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if candidates:
        return candidates[-1].parent
    found = shutil.which("postgres")
    return Path(found).resolve().parent if found else None


@frozen
class PostgresServer:
    """One PostgreSQL cluster in C locale and UTF-8, trusting loopback; databases are made on demand."""

    program: Program
    port: int

    @classmethod
    def make(cls, directory: Path, binaries: Path, *, durable: bool) -> PostgresServer:
        """Initialise a cluster in `directory`; without `durable` it never waits for the disk (tests)."""
        directory.mkdir(parents=True, exist_ok=True)
        user = _unprivileged_user()
        if user is not None:
            shutil.chown(directory, user)
        data = directory / "data"
        initdb = [str(binaries / "initdb"), "-D", str(data), "-U", DATABASE_USER, "-A", "trust", "-N"]
        initdb += ["--locale=C", "--encoding=UTF8"]
        subprocess.run(initdb, check=True, stdout=subprocess.DEVNULL, user=user, cwd=directory)
        (port,) = free_ports(1)
        argv = [str(binaries / "postgres"), "-D", str(data), "-p", str(port)]
        settings = {"listen_addresses": "127.0.0.1", "unix_socket_directories": ""}
        if not durable:
            settings |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        for key, value in settings.items():
            argv += ["-c", f"{key}={value}"]
        log = directory / "postgres.log"
        return cls(Program(Command(argv, directory, log, user=user, stop_signal=signal.SIGINT)), port)

    async def start(self, sleep: Sleep) -> None:
        """Start the postmaster and wait until it answers."""
        self.program.start()
        await self.program.wait_ready(self._answers, sleep)

    def create_database(self, name: str) -> str:
        """Create an empty database and give its DSN."""
        connection = psycopg2.connect(self.dsn("postgres"))
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(f'CREATE DATABASE "{name}"')
        finally:
            connection.close()
        return self.dsn(name)

    def dsn(self, name: str) -> str:
        """Give the DSN of a database, as `postgresql://…`."""
        return f"postgresql://{DATABASE_USER}@127.0.0.1:{self.port}/{name}"

    def _answers(self) -> bool:
        """Tell whether a connection can be opened."""
        try:
            psycopg2.connect(self.dsn("postgres"), connect_timeout=1).close()
        except psycopg2.OperationalError:
            return False
        return True


def _unprivileged_user() -> str | None:
    """Give the account PostgreSQL must run as when we are root, which it refuses to be."""
    if os.geteuid() != 0:
        return None
    pwd.getpwnam(UNPRIVILEGED_USER)
    return UNPRIVILEGED_USER
