"""A room with three members and what passes in it: typing, receipts, presence."""

from __future__ import annotations

from protocol.identifiers import UserID
from tests.homeserver.ephemeral.helpers import Place, start_place
from tests.storage.helpers import SqliteCase

CAROL = UserID("@carol:plait.test")


class PassingCase(SqliteCase):
    """A room with three members."""

    place: Place

    async def setUp(self) -> None:
        """Start the services."""
        await super().setUp()
        self.place = await start_place(self.database)
        self.ring = self.place.passing.ring
