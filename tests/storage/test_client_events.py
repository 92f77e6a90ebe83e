"""Tests of events as clients read them, in bulk across rooms, on both engines."""

from __future__ import annotations

from collections.abc import Sequence

from storage import client_events, events
from storage.database import Database, Transaction
from storage.migrate import migrate
from storage.statements import SQLITE_MAX_VARIABLES
from tests.storage.helpers import PostgresCase, SqliteCase

_INSERT = (
    "INSERT INTO events"
    " (room_nid, event_nid, event_id, status, root_before, pdu, depth, type, sender_nid, ts)"
    " VALUES (?, ?, ?, ?, ?, ?, 1, 'm', 1, 1)"
)
PDU = '{"body":"caf\u00e9 \\" \U0001f600"}'


def put(tx: Transaction, names: Sequence[tuple[int, int]]) -> None:
    """Write events; every third one is rejected."""
    rows = [(room, nid, f"${nid}", 2 * (nid % 3 == 0), bytes([nid]), PDU.encode()) for room, nid in names]
    tx.many(_INSERT, rows)


class ClientEventsContract:
    """What every engine does."""

    database: Database

    async def test_by_name(self) -> None:
        """Whatever their number and rooms, events are found by room and number, and nothing else is."""
        await migrate(self.database)
        names = [(room, room * 10 + n) for room in range(1, 13) for n in range(5)]
        await self.database.write(put, names)
        for rooms in (0, 1, 2, 12):
            wanted = names[: rooms * 5]
            strangers = [(room, 999) for room, _ in wanted] + [(room + 1, nid) for room, nid in wanted]
            rows = await self.database.read(client_events.by_nids, [*wanted, *wanted, *strangers])
            found = {(row.room_nid, row.event_nid): row for row in rows}
            self.assertEqual(set(found), set(wanted))  # type: ignore[attr-defined]
            for (_, nid), row in found.items():
                pdu = row.pdu if isinstance(row.pdu, str) else row.pdu.decode()
                self.assertEqual((row.event_id, row.root_before, pdu), (f"${nid}", bytes([nid]), PDU))  # type: ignore[attr-defined]


class SqliteTests(ClientEventsContract, SqliteCase):
    """On SQLite."""

    async def test_the_whole_state_of_a_large_room(self) -> None:
        """More events of a room than SQLite takes arguments, as it is commonly built, are read."""
        nids = range(SQLITE_MAX_VARIABLES + 1)
        ids = [f"${nid}" for nid in nids]

        def read(tx: Transaction) -> None:
            self.assertEqual(len(client_events.by_nids(tx, [(1, nid) for nid in nids])), 3)
            self.assertEqual({row.event_nid for row in events.by_nid(tx, 1, nids)}, {0, 1, 2})
            self.assertEqual({row.event_nid for row in events.by_id(tx, 1, ids)}, {0, 1, 2})
            self.assertEqual({row[0] for row in events.texts(tx, 1, nids)}, {"$0", "$1", "$2"})
            self.assertEqual(events.nids(tx, 1, ids), {"$0": 0, "$1": 1, "$2": 2})
            self.assertEqual(events.ids(tx, 1, nids), {0: "$0", 1: "$1", 2: "$2"})

        await migrate(self.database)
        await self.database.write(put, [(1, nid) for nid in range(3)])
        await self.database.read(read)


class PostgresTests(ClientEventsContract, PostgresCase):
    """On PostgreSQL."""
