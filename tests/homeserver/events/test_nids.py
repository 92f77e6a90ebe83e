"""Tests of the numbers of users in memory."""

from __future__ import annotations

from homeserver.events import nids as nids_module
from homeserver.events.nids import Nids
from protocol.identifiers import UserID
from storage.migrate import migrate
from tests.storage.helpers import SqliteCase

OLD, *NEW = [UserID(f"@user{number}:here.example") for number in range(4)]


class NidsTests(SqliteCase):
    """`Nids`."""

    async def test_users_who_are_forgotten_for_those_looked_up_beside_them(self) -> None:
        """All numbers are given, however few users are kept in memory."""
        self.patch(nids_module, "MAX_USERS", 2)
        await migrate(self.database)
        nids = Nids(self.database)
        old = await nids.user(OLD)
        made = await nids.users([OLD, *NEW])
        self.assertEqual(len(set(made.values())), 4)
        self.assertEqual(made[OLD], old)
        for asked in ([OLD, *NEW], [*NEW, OLD], [NEW[1], OLD, NEW[0], NEW[2]]):
            self.assertEqual(await nids.users(asked), made)
            self.assertEqual(await nids.known_users(asked), made)
