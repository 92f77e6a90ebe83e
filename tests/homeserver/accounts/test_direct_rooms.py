"""Tests of keeping private conversations in account data."""

from __future__ import annotations

from twisted.internet.defer import Deferred, gatherResults

from homeserver.accounts.account_data import AccountData, DirectRooms
from homeserver.accounts.push_rules import DefaultRules
from protocol.identifiers import RoomID, UserID
from storage.migrate import migrate
from tests.homeserver.events.helpers import ALICE, BOB, start_worker
from tests.storage.helpers import SqliteCase


class DirectRoomsTests(SqliteCase):
    """What `m.direct` holds."""

    async def test_additions_at_the_same_time_lose_nothing(self) -> None:
        """Conversations begun with many users at once are all there afterwards."""
        await migrate(self.database)
        worker = await start_worker(self.database)
        data = AccountData(self.database, worker.persister, worker.nids, DefaultRules())
        direct = DirectRooms(data, worker.nids)
        others = [UserID(f"@user{number}:plait.test") for number in range(8)]
        adding = [
            Deferred.fromCoroutine(direct.add(ALICE, other, RoomID(f"!{number}:plait.test")))
            for number, other in enumerate(others)
        ]
        await gatherResults(adding)
        self.assertEqual(set(await direct.get(ALICE)), set(others))
        self.assertEqual(await direct.get(BOB), {})
