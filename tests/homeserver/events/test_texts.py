"""Tests of reading many events as bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from homeserver.events.texts import EVENTS_A_PART, EventTexts
from protocol.canonical_json import decode
from protocol.events import EventDraft
from storage.database import Database
from storage.migrate import migrate
from tests.homeserver.events.helpers import ALICE, NOW, message, start_worker
from tests.storage.helpers import PostgresCase, SqliteCase


class TextTests:
    """`EventTexts`."""

    database: Database
    assertEqual: Callable[..., None]
    assertTrue: Callable[..., None]

    async def test_many_events_come_in_parts(self) -> None:
        """Together they are a JSON list of the events as they travel, however many (security: D7)."""
        await migrate(self.database)
        worker = await start_worker(self.database)
        room = (await worker.room()).room
        texts = EventTexts(self.database, worker.nids)
        drafts = [message(room.room_id, str(number)) for number in range(EVENTS_A_PART + 7)]
        sent = await worker.events.send_many(drafts, now=NOW)
        for some in (sent, sent[:EVENTS_A_PART], sent[:1], []):
            parts = [part async for part in texts.listed(room.nid, [one.nid for one in some])]
            self.assertTrue(all(part.count(b'"room_id"') <= EVENTS_A_PART for part in parts))
            listed: Any = decode(b"".join(parts))
            self.assertEqual(
                sorted(one["content"]["body"] for one in listed),
                sorted(one.event.content["body"] for one in some),
            )
        ids = await texts.ids(room.nid, [one.nid for one in sent])
        self.assertEqual(set(ids), {one.event.event_id for one in sent})
        self.assertEqual([part async for part in texts.listed(room.nid, [10**15])], [b"[]"])

    async def test_what_is_redacted_is_given_so(self) -> None:
        """State too: other servers learn no more than clients do."""
        await migrate(self.database)
        worker = await start_worker(self.database)
        room = (await worker.room()).room
        topic = EventDraft(room.room_id, "m.room.topic", ALICE, {"topic": "secret"}, "")
        said = await worker.events.send(topic, now=NOW)
        redaction = EventDraft(room.room_id, "m.room.redaction", ALICE, {}, redacts=said.event.event_id)
        await worker.events.send(redaction, now=NOW)
        parts = [part async for part in EventTexts(self.database, worker.nids).listed(room.nid, [said.nid])]
        (given,) = decode(b"".join(parts))  # type: ignore[misc]
        self.assertEqual((given["content"], given["hashes"]), ({}, said.event.pdu["hashes"]))


class SqliteTexts(TextTests, SqliteCase):
    """On SQLite."""


class PostgresTexts(TextTests, PostgresCase):
    """On PostgreSQL."""
