"""Tests of relations, threads and aggregations."""

from __future__ import annotations

import json
from typing import Any

from homeserver.history.relations import RelationsRequest
from homeserver.sync.tokens import parse_history_token
from protocol.identifiers import UserID
from tests.homeserver.history.history_case import ALICE, BOB, HistoryCase, OnPostgres
from tests.homeserver.sync.world import event_ids


class RelationTests(HistoryCase):
    """Relations, threads and aggregations."""

    async def _thread(self) -> tuple[Any, Any, list[Any]]:
        """Make a room with a thread and an edit."""
        room = await self.world.room(ALICE)
        await room.member(BOB, BOB, "join")
        root = await room.say(ALICE, "root")
        link = {"m.relates_to": {"rel_type": "m.thread", "event_id": root.event.event_id}}
        replies = [await room.say(BOB, str(n), **link) for n in range(3)]
        return room, root, replies

    async def test_edits_threads_and_references_are_bundled(self) -> None:
        """An event comes with its latest valid edit, its thread and its references, without reactions."""
        room, root, replies = await self._thread()
        root_id = root.event.event_id
        for sender, body in ((ALICE, "one"), (ALICE, "two"), (BOB, "not his")):
            relation = {"rel_type": "m.replace", "event_id": root_id}
            await room.say(sender, body, **{"m.relates_to": relation, "m.new_content": {"body": body}})
        await room.say(
            ALICE, "no content", **{"m.relates_to": {"rel_type": "m.replace", "event_id": root_id}}
        )
        ref = await room.send(BOB, "x", {"m.relates_to": {"rel_type": "m.reference", "event_id": root_id}})
        await room.send(
            BOB, "m.reaction", {"m.relates_to": {"rel_type": "m.annotation", "event_id": root_id, "key": "+"}}
        )
        event = json.loads(await self.history.events.event(await self.asker(ALICE, room), root_id))
        relations = event["unsigned"]["m.relations"]
        self.assertEqual(set(relations), {"m.replace", "m.thread", "m.reference"})
        self.assertEqual(relations["m.replace"]["content"]["body"], "two")
        thread = relations["m.thread"]
        self.assertEqual((thread["count"], thread["current_user_participated"]), (3, True))
        self.assertEqual(thread["latest_event"]["event_id"], replies[-1].event.event_id)
        self.assertEqual(relations["m.reference"], {"chunk": [{"event_id": ref.event.event_id}]})

    async def test_ignored_and_redacted_children_do_not_count(self) -> None:
        """Children of ignored users and redacted ones are in no aggregation."""
        room, root, replies = await self._thread()
        await room.redact(BOB, replies[-1])
        event = json.loads(
            await self.history.events.event(await self.asker(ALICE, room), root.event.event_id)
        )
        self.assertEqual(event["unsigned"]["m.relations"]["m.thread"]["count"], 2)
        alice = await self.world.session(ALICE)
        self.world.supply.ignored_by[alice.user_nid] = frozenset({UserID(BOB)})
        event = json.loads(
            await self.history.events.event(await self.asker(ALICE, room), root.event.event_id)
        )
        self.assertNotIn("m.relations", event["unsigned"])

    async def test_what_one_may_not_see_is_in_no_aggregation(self) -> None:
        """One who left gets neither the latest event nor the count of what came after (security: C11)."""
        room, root, replies = await self._thread()
        await room.member(BOB, BOB, "leave")
        link = {"m.relates_to": {"rel_type": "m.thread", "event_id": root.event.event_id}}
        await room.say(ALICE, "secret", **link)
        event = json.loads(await self.history.events.event(await self.asker(BOB, room), root.event.event_id))
        thread = event["unsigned"]["m.relations"]["m.thread"]
        self.assertEqual(thread["count"], 3)
        self.assertEqual(thread["latest_event"]["event_id"], replies[-1].event.event_id)

    async def test_children_come_in_pages(self) -> None:
        """Relations come in pages, by relation and type, and recursively."""
        room, root, replies = await self._thread()
        reaction = await room.send(
            ALICE,
            "m.reaction",
            {"m.relates_to": {"rel_type": "m.annotation", "event_id": replies[0].event.event_id, "key": "+"}},
        )
        asker = await self.asker(ALICE, room)

        async def ask(limit: int = 10, start: Any = None, **options: Any) -> Any:
            given: dict[str, Any] = {
                "rel_type": None,
                "event_type": None,
                "recurse": False,
                "backwards": True,
            }
            request = RelationsRequest(
                root.event.event_id, start=start, stop=None, limit=limit, **(given | options)
            )
            return json.loads(await self.history.relations.children(asker, request))

        newest = event_ids(replies)[::-1]
        answer = await ask()
        self.assertEqual([e["event_id"] for e in answer["chunk"]], newest)
        self.assertNotIn("next_batch", answer)
        first = await ask(limit=2)
        second = await ask(limit=2, start=parse_history_token(first["next_batch"]))
        found = [e["event_id"] for answer in (first, second) for e in answer["chunk"]]
        self.assertEqual(found, newest)
        self.assertEqual((await ask(rel_type="m.replace"))["chunk"], [])
        self.assertEqual((await ask(rel_type="m.thread", event_type="x"))["chunk"], [])
        deep = await ask(recurse=True)
        self.assertEqual([e["event_id"] for e in deep["chunk"]], [reaction.event.event_id, *newest])
        self.assertEqual(deep["recursion_depth"], 3)
        forwards = await ask(backwards=False)
        self.assertEqual([e["event_id"] for e in forwards["chunk"]], newest[::-1])

    async def test_threads_come_by_latest_activity(self) -> None:
        """Threads come by their latest event; on demand those taken part in; ignored roots are empty."""
        room, root, _ = await self._thread()
        other = await room.say(BOB, "other")
        link = {"m.relates_to": {"rel_type": "m.thread", "event_id": other.event.event_id}}
        await room.say(BOB, "in other", **link)
        asker = await self.asker(ALICE, room)
        threads = self.history.relations.threads
        first = json.loads(await threads(asker, None, 1, participated=False))
        self.assertEqual([e["event_id"] for e in first["chunk"]], [other.event.event_id])
        token: Any = parse_history_token(first["next_batch"])
        second = json.loads(await threads(asker, token, 1, participated=False))
        self.assertEqual([e["event_id"] for e in second["chunk"]], [root.event.event_id])
        self.assertNotIn("next_batch", second)
        mine = json.loads(await threads(asker, None, 5, participated=True))
        self.assertEqual([e["event_id"] for e in mine["chunk"]], [root.event.event_id])
        self.world.supply.ignored_by[asker.session.user_nid] = frozenset({UserID(BOB)})
        asker = await self.asker(ALICE, room)
        hidden = json.loads(await threads(asker, None, 5, participated=False))
        self.assertEqual(hidden["chunk"][0]["content"], {})


class PostgresRelationTests(OnPostgres, RelationTests):
    """Relations on PostgreSQL."""
