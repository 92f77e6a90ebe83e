"""Tests of a COMMIT that is cut on the wire between a worker and PostgreSQL."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from twisted.internet.defer import Deferred, gatherResults

from homeserver.events.stored import StoredEvent
from storage.engines import open_database
from storage.migrate import migrate
from tests.homeserver.events.cutting import Cut, CuttingProxy
from tests.homeserver.events.helpers import NOW, message, start_worker
from tests.homeserver.events.test_several_writers import read_room
from tests.storage.helpers import REACTOR, PostgresCase


class CutCommitTests(PostgresCase):
    """Neither lost nor doubled."""

    async def test_a_cut_commit_is_neither_lost_nor_doubled(self) -> None:
        """Whether the COMMIT has reached the server or not, every acknowledged event is there once."""
        await migrate(self.database)
        folder = Path(tempfile.mkdtemp(prefix="plait-cut-"))
        self.addCleanup(shutil.rmtree, folder)
        proxy = CuttingProxy(self.server.socket)
        port = await proxy.listen(folder)
        database = await open_database(
            self.url.replace(str(self.server.socket), str(folder)), REACTOR, pool_size=2
        )
        worker = await start_worker(database)
        rooms = [(await worker.room()).room for _ in range(4)]
        sent: list[StoredEvent] = []
        for n, cut in enumerate((Cut.AFTER, Cut.BEFORE, Cut.AFTER, Cut.NOT)):
            proxy.cut = cut
            sends = [
                Deferred.fromCoroutine(worker.events.send(message(room.room_id, f"{n}.{i}"), now=NOW))
                for i in range(5)
                for room in rooms
            ]
            sent += await gatherResults(sends)
        self.assertEqual(proxy.cuts, 3)
        for room in rooms:
            entries, rows = await self.database.read(read_room, room.nid)
            ids = [rows[entry.ref or 0].event_id for entry in entries]
            mine = [event.event.event_id for event in sent if event.room_nid == room.nid]
            self.assertEqual(ids[5:], mine)
            self.assertEqual(len(rows), 25)
        await database.close()
        await port.stopListening()
