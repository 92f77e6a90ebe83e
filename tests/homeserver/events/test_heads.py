"""Tests of heads that are forgotten, or move on, while they are brought forward."""

from __future__ import annotations

from typing import Any

from homeserver.events.heads import Heads
from storage.migrate import migrate
from tests.homeserver.events.helpers import BUDGET, NOW, SERVER, message, start_worker
from tests.storage.helpers import LateDatabase, SqliteCase


class HeadsTests(SqliteCase):
    """`Heads` of a worker that follows another."""

    async def test_a_head_that_is_forgotten_as_it_is_brought_forward_is_loaded(self) -> None:
        """Whoever asks gets the newest head, though the one at hand went away and the room went on."""
        await migrate(self.database)
        writer, follower = [await start_worker(self.database, name) for name in ("one", "two")]
        room = (await writer.room()).room
        database: Any = LateDatabase(self.database)
        heads = Heads(database, follower.nids, follower.state, SERVER, BUDGET)
        follower.feed.add_cache(heads.apply)
        await follower.feed.catch_up()
        await heads.get(room.nid)

        async def go_on() -> None:
            await writer.events.send(message(room.room_id, "next"), now=NOW)
            await follower.feed.catch_up()

        async def forget_and_go_on() -> None:
            heads.forget(room.nid)
            await go_on()

        await go_on()
        database.happens = forget_and_go_on
        head = await heads.get(room.nid)
        self.assertEqual(head.seq, (await writer.heads.get(room.nid)).seq)
