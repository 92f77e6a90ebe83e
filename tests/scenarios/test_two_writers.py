"""Two processes write to one PostgreSQL: one is killed, one COMMIT is cut, one row is poison."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from collections import Counter
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from storage import heads
from storage.migrate import migrate
from tests.homeserver.events.cutting import Cut, CuttingProxy
from tests.homeserver.events.helpers import start_worker
from tests.homeserver.events.test_several_writers import read_room
from tests.storage.helpers import PostgresCase

SENDERS = 8
MESSAGES = 25
KILL_AFTER = 60
CUT_AFTER = 40


class Writer(ProcessProtocol):
    """A worker process, and what it has said was acknowledged."""

    def __init__(self) -> None:
        """Start with nothing heard."""
        self.acknowledged: list[tuple[str, str]] = []
        self.finished = False
        self.errors = b""
        self.ended: Deferred[None] = Deferred()
        self._rest = b""
        self.kill_at = 0
        self.cut_at = 0
        self.proxy: CuttingProxy | None = None

    def outReceived(self, data: bytes) -> None:
        """Take whole lines; a line that the kill has cut off counts for nothing."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if line == b"done":
                self.finished = True
                continue
            room_id, event_id = line.decode().split(" ")
            self.acknowledged.append((room_id, event_id))
        if self.kill_at and len(self.acknowledged) >= self.kill_at:
            self.kill_at = 0
            assert self.transport is not None
            os.kill(self.transport.pid, signal.SIGKILL)
        if self.proxy is not None and self.cut_at and len(self.acknowledged) >= self.cut_at:
            self.cut_at = 0
            self.proxy.cut = Cut.AFTER

    def errReceived(self, data: bytes) -> None:
        """Keep what it complains of."""
        self.errors += data

    def processEnded(self, reason: Failure) -> None:
        """Tell that it has ended, well or badly."""
        self.ended.callback(None)


class TwoWritersTests(PostgresCase):
    """The core is right with several writers."""

    timeout = 120

    async def test_nothing_acknowledged_is_lost_or_doubled(self) -> None:
        """Sixteen senders through two processes: every acknowledged event is there once, in one line."""
        await migrate(self.database)
        worker = await start_worker(self.database, "maker")
        rooms = [(await worker.room()).room for _ in range(5)]
        folder = Path(tempfile.mkdtemp(prefix="plait-two-"))
        self.addCleanup(shutil.rmtree, folder)
        proxy = CuttingProxy(self.server.socket)
        port = await proxy.listen(folder)
        through_proxy = self.url.replace(str(self.server.socket), str(folder))
        busy, quiet_one, poison_one, quiet_two, poison_two = [room.room_id for room in rooms]
        one, two = Writer(), Writer()
        one.proxy, one.cut_at = proxy, CUT_AFTER
        two.kill_at = KILL_AFTER
        self.start(one, through_proxy, "one", busy, quiet_one, poison_one)
        self.start(two, self.url, "two", busy, quiet_two, poison_two)
        await two.ended
        await one.ended
        await port.stopListening()
        self.assertTrue(one.finished, one.errors.decode())
        self.assertFalse(two.finished)
        self.assertEqual(proxy.cuts, 1)
        self.assertEqual(len(one.acknowledged), SENDERS * MESSAGES + MESSAGES + MESSAGES - 1)
        self.assertGreaterEqual(len(two.acknowledged), KILL_AFTER)
        counts: Counter[tuple[str, str]] = Counter()
        for room in rooms:
            entries, rows = await self.database.read(read_room, room.nid)
            counts.update((room.room_id, rows[entry.ref or 0].event_id) for entry in entries)
            head = (await self.database.read(heads.get, [room.nid]))[room.nid]
            self.assertEqual(head.mark.extremities, (entries[-1].ref,))
            self.assertEqual(
                [entry.head.seq for entry in entries if entry.head], [*range(1, len(entries) + 1)]
            )
        for event in one.acknowledged + two.acknowledged:
            self.assertEqual(counts[event], 1)
        self.assertEqual(max(counts.values()), 1)

    def start(self, writer: Writer, url: str, name: str, *rooms: str) -> None:
        """Start a worker process."""
        arguments = [url, name, str(SENDERS), str(MESSAGES), *rooms]
        command = [sys.executable, "-m", "tests.scenarios.writer", *arguments]
        root = str(Path(__file__).parents[2])
        process = reactor.spawnProcess(  # type: ignore[attr-defined]  # the reactor's module hides its type
            writer, sys.executable, command, env=dict(os.environ), path=root
        )
        self.addCleanup(_kill, process)


def _kill(process: object) -> None:
    """See that a process we started is gone."""
    pid = getattr(process, "pid", None)
    if pid is not None:
        os.kill(pid, signal.SIGKILL)
