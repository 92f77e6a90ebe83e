"""Tests of the numbers of users in memory."""

from __future__ import annotations

from homeserver.events import nids as nids_module
from homeserver.events.nids import Block, Nids
from protocol.identifiers import UserID
from storage.migrate import migrate
from storage.nids import RECEIPT_NUMBERS
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

    async def test_more_numbers_than_a_block(self) -> None:
        """Whoever needs very many numbers at once gets them, all different."""
        await migrate(self.database)
        block = Block(self.database, RECEIPT_NUMBERS, 10)
        await block.ready(1)
        taken = [block.take()]
        for count in (15, 45, 5):
            await block.ready(count)
            taken += [block.take() for _ in range(count)]
        self.assertEqual(len(set(taken)), 66)
