"""The case that tests of history share, on SQLite and on PostgreSQL."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import TestCase

from homeserver.history.messages import PageRequest
from homeserver.history.wiring import make_history
from homeserver.sync.filters import ALL_EVENTS
from homeserver.sync.tokens import parse_history_token
from homeserver.sync.wiring import Core
from storage.engines import open_database
from tests.homeserver.sync.world import World
from tests.storage.helpers import REACTOR, postgres_server

ALICE, BOB, CAROL = "@alice:here.example", "@bob:here.example", "@carol:else.example"


class HistoryCase(TestCase):
    """A world and the services of history over it."""

    async def open(self) -> Any:
        """Open a fresh database."""
        return await open_database(f"sqlite:///{self.mktemp()}", REACTOR)

    async def setUp(self) -> None:
        """Build the services."""
        self.database = await self.open()
        self.addCleanup(self.database.close)
        self.world = world = await World.open(self.database)
        self.feed = world.session_feed()
        core = Core(world.database, world.feed, world.nids, world.nodes)
        supply: Any = world.supply
        self.backfill = None
        self.history = make_history(core, world.readers, supply)

    async def asker(self, user: str, room: Any) -> Any:
        """Give an asker."""
        return await self.history.askers.of(await self.world.session(user), room.room_id, self.world.now)

    async def page(self, user: str, room: Any, start: Any = None, **options: Any) -> Any:
        """Give a page of messages, backwards unless told otherwise."""
        given = {"stop": None, "backwards": True, "limit": 10, "wanted": ALL_EVENTS} | options
        token = parse_history_token(start) if isinstance(start, str) else start
        page = await self.history.messages.page(await self.asker(user, room), PageRequest(token, **given))
        return json.loads(page.to_json())

    async def pages(self, user: str, room: Any, **options: Any) -> list[list[str]]:
        """Read page after page to the end, and give the event IDs of each."""
        found, token, seen = [], None, set()
        while True:
            answer = await self.page(user, room, token, **options)
            found.append([event["event_id"] for event in answer["chunk"]])
            token = answer.get("end")
            if token is None:
                return found
            self.assertNotIn(token, seen, "a token never loops")
            seen.add(token)


class OnPostgres:
    """The same on PostgreSQL."""

    async def open(self) -> Any:
        """Open a fresh database."""
        server = postgres_server()
        url = server.create_database()
        self.addCleanup(server.drop_database, url)  # type: ignore[attr-defined]
        return await open_database(url, REACTOR)
