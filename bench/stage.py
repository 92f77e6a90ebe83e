"""The stage a workload plays on: one server, a second of its kind when asked for, and the meters."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from attrs import field, frozen, mutable

from bench.accounting import cpu_ms
from bench.client import Client
from bench.figures import Figures
from bench.hosts import Hall, Host, in_parallel

QUIET_SHARE = 0.04
QUIET_PROBE_SECONDS = 0.5
QUIET_PATIENCE_SECONDS = 20.0
DATABASE = "database"


@frozen
class Scale:
    """How much is done: `quick` for a look, full for figures to quote."""

    quick: bool

    def of(self, full: int, quick: int) -> int:
        """Choose a count."""
        return quick if self.quick else full

    @property
    def seconds(self) -> float:
        """Give how long a throughput workload runs."""
        return 3.0 if self.quick else 10.0


@mutable
class Stage:
    """One column's servers while its workloads run."""

    hall: Hall
    scale: Scale
    home: Host
    _away: Host | None = None
    _history_room: str | None = None

    @property
    def hosts(self) -> list[Host]:
        """Give the servers that run."""
        return [self.home, self._away] if self._away else [self.home]

    async def away(self) -> Host:
        """Give the second server, started on first use."""
        if self._away is None:
            self._away = await self.hall.open("away")
        return self._away

    async def history_room(self) -> str:
        """Give a room of many members and messages at home, made on first use."""
        if self._history_room is None:
            members = await self.home.users(self.scale.of(300, 30))
            room_id = await self.full_room(members)
            for mark in range(self.scale.of(1000, 200)):
                await members[0].exchange(members[0].build_send(room_id, mark))
            self._history_room = room_id
        return self._history_room

    async def full_room(self, members: Sequence[Client], **options: object) -> str:
        """Make a room of which all these are members, the first its creator."""
        room_id = await members[0].create_room(**options)
        await in_parallel(lambda member: member.join(room_id), members[1:])
        return room_id

    async def settle(self) -> None:
        """Wait until the servers rest, so that earlier work is not counted with later."""
        deadline = time.monotonic() + QUIET_PATIENCE_SECONDS
        while time.monotonic() < deadline:
            before = self._total_cpu()
            await asyncio.sleep(QUIET_PROBE_SECONDS)
            if self._total_cpu() - before < QUIET_SHARE * QUIET_PROBE_SECONDS * 1000:
                return

    async def meter(self, *, federated: bool = False) -> Meter:
        """Give a started meter, once the database knows its tables and the servers rest."""
        for host in self.hosts:
            database = host.server.place.database
            if self.hall.postgres is not None and database is not None:
                await asyncio.to_thread(self.hall.postgres.analyze, database)
        await self.settle()
        counters: dict[str, Callable[[], float]] = {"server": lambda: cpu_ms(self.home.pid)}
        if federated:
            away = await self.away()
            counters = {"sending": counters["server"], "receiving": lambda: cpu_ms(away.pid)}
        if self.hall.postgres is not None:
            postmaster = self.hall.postgres.program
            counters[DATABASE] = lambda: cpu_ms(postmaster.pid)
        return Meter(self, counters)

    async def close(self) -> None:
        """Stop the servers."""
        for host in self.hosts:
            await host.stop()

    def _total_cpu(self) -> float:
        """Give the CPU time of everything under measurement."""
        pids = [host.pid for host in self.hosts]
        if self.hall.postgres is not None:
            pids.append(self.hall.postgres.program.pid)
        return sum(map(cpu_ms, pids))


@mutable
class Meter:
    """CPU time, wall time and latencies from its making to `finish`."""

    stage: Stage
    counters: dict[str, Callable[[], float]]
    latencies: list[float] = field(factory=list)
    _before: dict[str, float] = field(init=False)
    _started: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Note where the counters stand."""
        self._before = {who: counter() for who, counter in self.counters.items()}
        self._started = time.perf_counter()

    async def timed(self, operation: Awaitable[object]) -> None:
        """Await an operation and note its latency."""
        started = time.perf_counter()
        await operation
        self.latencies.append(time.perf_counter() - started)

    def elapsed(self) -> float:
        """Give the seconds since the start."""
        return time.perf_counter() - self._started

    async def finish(self, unit: str, operations: int | None = None, notes: Sequence[str] = ()) -> Figures:
        """Stop the clock, wait until work left behind is done too, and give the figures."""
        seconds = self.elapsed()
        await self.stage.settle()
        used = {who: counter() - self._before[who] for who, counter in self.counters.items()}
        count = len(self.latencies) if operations is None else operations
        return Figures(unit, count, seconds, self.latencies, used, notes)

    async def drive(self, operations: Sequence[Callable[[int], Awaitable[object]]], most: int) -> None:
        """Let each worker do its operation over and over, for the scale's seconds or `most` in all."""
        end = self._started + self.stage.scale.seconds
        numbers = iter(range(most))

        async def work(operation: Callable[[int], Awaitable[object]]) -> None:
            for number in numbers:
                await self.timed(operation(number))
                if time.perf_counter() > end:
                    return

        await asyncio.gather(*map(work, operations))
