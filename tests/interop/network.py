"""Networks of homeservers for tests: started once, shared by the tests that want the same one.

A node is a server behind its own proxy, so that a test can cut it off from the others. With
`PLAIT_TEST_CONTROL=1` every Plait is replaced by a Synapse: a control run, which shows that the tests
demand no more than what Matrix servers do.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Coroutine, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

from attrs import field, frozen, mutable
from twisted.internet import defer, reactor, task
from twisted.trial.unittest import SkipTest

from tests.interop.certificates import TestAuthority
from tests.interop.client import Api, User, make_agent
from tests.interop.places import Place
from tests.interop.ports import free_ports, is_listening
from tests.interop.processes import (
    PROJECT,
    SYNAPSE_PYTHON,
    Homeserver,
    PlaitServer,
    SynapseServer,
    find_synapse_python,
)
from tests.interop.programs import Command, Program, Sleep, wait_until
from tests.storage.helpers import postgres_server

T = TypeVar("T")
CONTROL = "PLAIT_TEST_CONTROL"
KEEP = "PLAIT_TEST_KEEP"


class Kind(Enum):
    """Which homeserver a node runs."""

    PLAIT = "plait"
    SYNAPSE = "synapse"


@frozen
class Node:
    """One homeserver of a network, behind its proxy."""

    server: Homeserver
    proxy: Program
    api: Api

    @property
    def name(self) -> str:
        """Give the Matrix server name."""
        return self.server.place.server_name

    async def user(self, name: str) -> User:
        """Register an account whose name no other test uses: `name` with a number after it."""
        return await self.api.register(f"{name}-{time.monotonic_ns()}")

    async def start(self) -> None:
        """Start the proxy and the server."""
        self.proxy.start()
        await self.proxy.wait_ready(lambda: is_listening(self.server.place.public_port), sleep)
        await self.server.start(sleep)

    async def cut(self) -> None:
        """Let no server reach this one."""
        await self._signal_proxy(signal.SIGUSR1, listening=False)

    async def heal(self) -> None:
        """Let servers reach this one again."""
        await self._signal_proxy(signal.SIGUSR2, listening=True)

    async def _signal_proxy(self, number: signal.Signals, *, listening: bool) -> None:
        """Tell the proxy, and wait until it obeyed."""
        self.proxy.send(number)
        port = self.server.place.public_port
        await wait_until(lambda: is_listening(port) is listening, "the proxy to obey", sleep, 10)


@frozen
class Network:
    """Servers that federate with each other alone."""

    nodes: tuple[Node, ...]

    async def stop(self, sleep: Sleep) -> None:
        """End all its processes."""
        for node in self.nodes:
            await node.proxy.stop(sleep)
            await node.server.program.stop(sleep)


@mutable
class Networks:
    """The networks of one test run: at most one is up at a time."""

    _directory: Path = field(factory=lambda: Path(tempfile.gettempdir(), f"plait-test-{os.getpid()}"))
    _wanted: tuple[tuple[Kind, ...], bool] | None = None
    _network: Network | None = None
    _count: int = 0
    _agent: Any = field(factory=lambda: make_agent(reactor))

    async def get(self, kinds: tuple[Kind, ...], *, postgres: bool) -> Network:
        """Give a running network of these kinds, all on PostgreSQL or all on SQLite."""
        if os.environ.get(CONTROL):
            kinds = (Kind.SYNAPSE,) * len(kinds)
        python = _synapse_python_or_skip() if Kind.SYNAPSE in kinds else ""
        if self._network is None or self._wanted != (kinds, postgres):
            databases = [postgres_server().create_database() if postgres else None for _ in kinds]
            await self._stop_network(sleep)
            atexit.unregister(self._stop_at_exit)
            atexit.register(self._stop_at_exit)
            self._network = await self._start(kinds, databases, python)
            self._wanted = (kinds, postgres)
        return self._network

    async def _start(self, kinds: tuple[Kind, ...], databases: Sequence[str | None], python: str) -> Network:
        """Start one node after the other."""
        authority = TestAuthority.make(self._directory / "authority")
        nodes: list[Node] = []
        for kind, database in zip(kinds, databases, strict=True):
            self._count += 1
            label = f"{kind.value}{self._count}"
            directory, leaf = self._directory / label, authority.issue(label)
            client, federation, public = free_ports(3)
            place = Place(directory, client, federation, public, leaf, authority, database)
            server: Homeserver = (
                SynapseServer.make(place, python) if kind is Kind.SYNAPSE else PlaitServer.make(place)
            )
            nodes.append(Node(server, _proxy(place), Api(self._agent, place.client_url)))
            self._network = Network(tuple(nodes))
            await nodes[-1].start()
        return Network(tuple(nodes))

    async def _stop_network(self, sleep: Sleep) -> None:
        """End the network that is up."""
        if self._network is not None:
            await self._network.stop(sleep)
            self._network = self._wanted = None

    def _stop_at_exit(self) -> None:
        """End everything, and remove the folder unless it is to be kept."""
        _run_blocking(self._stop_network(_blocking_sleep))
        if not os.environ.get(KEEP):
            shutil.rmtree(self._directory, ignore_errors=True)


NETWORKS = Networks()


def sleep(seconds: float) -> defer.Deferred[None]:
    """Let the reactor turn for some seconds."""
    return task.deferLater(reactor, seconds)


def _proxy(place: Place) -> Program:
    """Prepare the proxy of a place."""
    ports = [str(place.public_port), str(place.federation_port)]
    argv = [sys.executable, "-m", "tests.interop.proxy", *ports]
    return Program(Command(argv, PROJECT, place.directory / "proxy.log"))


def _synapse_python_or_skip() -> str:
    """Give the Python that has Synapse, or skip the test."""
    python = find_synapse_python()
    if python is None:
        raise SkipTest(f"Synapse is not installed: set {SYNAPSE_PYTHON} to a Python that has it")
    return python


async def _blocking_sleep(seconds: float) -> None:
    """Sleep where no event loop runs."""
    time.sleep(seconds)


def _run_blocking(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that waits for nothing but `_blocking_sleep`."""
    try:
        work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    raise RuntimeError("the coroutine waited for an event loop")
