"""Servers under measurement, configured as they are shipped, and the users who sit at them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from enum import Enum
from pathlib import Path
from typing import TypeVar

from attrs import field, frozen, mutable

from bench.accounting import peak_mb, resident_mb
from bench.client import Client
from bench.postgres import PostgresServer
from tests.interop.certificates import TestAuthority
from tests.interop.places import Place
from tests.interop.ports import free_ports
from tests.interop.processes import (
    SYNAPSE_PYTHON,
    Homeserver,
    PlaitServer,
    SynapseServer,
    find_synapse_python,
)
from tests.interop.programs import ProgramFailed

T = TypeVar("T")
SETUP_WORKERS = 12


class Column(Enum):
    """What is measured beside each other."""

    PLAIT_SQLITE = "plait-sqlite"
    PLAIT_POSTGRES = "plait-postgres"
    SYNAPSE = "synapse"


async def in_parallel(
    work: Callable[[T], Awaitable[object]], items: Iterable[T], workers: int = SETUP_WORKERS
) -> None:
    """Do some work for each item, with so many at a time."""
    waiting = iter(items)

    async def drain() -> None:
        for item in waiting:
            await work(item)

    await asyncio.gather(*(drain() for _ in range(workers)))


@mutable
class Host:
    """One running server and its accounts; the same accounts serve all workloads."""

    server: Homeserver
    clients: list[Client] = field(factory=list)
    at_rest: float = 0.0
    peak: float = 0.0

    @property
    def name(self) -> str:
        """Give the Matrix server name."""
        return self.server.place.server_name

    @property
    def port(self) -> int:
        """Give the port of the client API."""
        return self.server.place.client_port

    @property
    def pid(self) -> int:
        """Give the process id."""
        return self.server.program.pid

    async def users(self, count: int) -> Sequence[Client]:
        """Give the first `count` accounts, making those that are missing."""
        missing = range(len(self.clients), count)
        made: dict[int, Client] = {}

        async def register(number: int) -> None:
            made[number] = await Client.register(self.port, f"user{number}")

        await in_parallel(register, missing)
        self.clients += [made[number] for number in missing]
        return self.clients[:count]

    async def restart(self) -> None:
        """Stop the server cleanly and start it again, its caches empty."""
        await self.stop()
        await self.server.start(asyncio.sleep)

    async def stop(self) -> None:
        """Stop the server cleanly."""
        self.note_peak()
        for client in self.clients:
            client.connection.close()
        await self.server.program.stop(asyncio.sleep)

    def note_peak(self) -> None:
        """Remember the highest memory so far, across restarts."""
        if self.server.program.is_running:
            self.peak = max(self.peak, peak_mb(self.pid))

    def resident(self) -> float:
        """Give the memory now, in MB."""
        return resident_mb(self.pid)


@frozen
class Hall:
    """Where the servers of one column are started: folder, certificate authority, database server."""

    column: Column
    directory: Path
    authority: TestAuthority
    postgres: PostgresServer | None

    async def open(self, label: str) -> Host:
        """Start a server of this column's kind."""
        name = f"{self.column.value}-{label}"
        client, federation = free_ports(2)
        leaf = self.authority.issue(name)
        database = self.postgres.create_database(name) if self.postgres else None
        place = Place(
            self.directory / name,
            client,
            federation,
            federation,
            leaf,
            self.authority,
            database,
            hurried=False,
        )
        host = Host(self._server(place))
        await host.server.start(asyncio.sleep)
        return host

    def _server(self, place: Place) -> Homeserver:
        """Prepare the process."""
        if self.column is not Column.SYNAPSE:
            return PlaitServer.make(place)
        python = find_synapse_python()
        if python is None:
            raise ProgramFailed(f"Synapse is not installed: set {SYNAPSE_PYTHON} to a Python that has it")
        return SynapseServer.make(place, python)
