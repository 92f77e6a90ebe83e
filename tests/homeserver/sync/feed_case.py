"""The case that tests of the session feed share: a world on SQLite, and a way to sync."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import TestCase

from homeserver.sync.filters import compile_filter
from homeserver.sync.session import Options
from storage.engines import open_database
from tests.homeserver.sync.world import World
from tests.storage.helpers import REACTOR

ALICE, BOB, CAROL = "@alice:here.example", "@bob:here.example", "@carol:else.example"


class FeedCase(TestCase):
    """A world on SQLite."""

    async def setUp(self) -> None:
        """Open a database and a session feed."""
        self.database = await open_database(f"sqlite:///{self.mktemp()}", REACTOR)
        self.addCleanup(self.database.close)
        self.world = await World.open(self.database)
        self.feed = self.world.session_feed()

    async def sync(
        self, user: str, since: Any = None, device: str = "DEV", **options: Any
    ) -> tuple[Any, Any]:
        """Sync a user; give the answer and the token."""
        if "filter" in options:
            options["filter"] = compile_filter(json.dumps(options["filter"]))
        session = await self.world.session(user, device)
        delta = await self.feed.delta(session, since, Options(**options), now=self.world.now)
        answer = json.loads(delta.to_json())
        self.assertEqual(answer["next_batch"], str(delta.next_batch))
        return answer, delta.next_batch


def timeline(room: Any) -> list[str]:
    """Give the event IDs of a room's timeline."""
    return [event["event_id"] for event in room["timeline"]["events"]]
