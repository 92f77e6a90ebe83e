"""Tests of pages of messages."""

from __future__ import annotations

import json
from typing import Any

from homeserver.history.messages import PageRequest
from homeserver.history.wiring import make_history
from homeserver.sync.filters import compile_event_filter
from homeserver.sync.tokens import parse_history_token
from homeserver.sync.wiring import Core, make_readers
from protocol.errors import NotFound
from protocol.identifiers import UserID
from storage.events import Status
from storage.trie_nodes import NodeCache
from tests.homeserver.history.history_case import ALICE, BOB, HistoryCase, OnPostgres
from tests.homeserver.sync.world import event_ids
from tests.storage.helpers import CountingDatabase


class MessagesTests(HistoryCase):
    """Pages of messages."""

    async def test_pages_in_both_directions_cover_all(self) -> None:
        """Pages cover the whole history once, in either direction, and the last has no end."""
        room = await self.world.room(ALICE)
        for n in range(23):
            await room.say(ALICE, str(n))
        all_ids = event_ids(room.sent)
        for backwards in (True, False):
            found = await self.pages(ALICE, room, backwards=backwards, limit=7)
            flat = [event_id for page in found for event_id in page]
            self.assertEqual(flat, all_ids[::-1] if backwards else all_ids)
            self.assertEqual([len(page) for page in found], [7, 7, 7, 6])

    async def test_the_gap_of_a_sync_is_filled(self) -> None:
        """`prev_batch` of a limited timeline leads to what lies before it, up to the older token."""
        room = await self.world.room(ALICE)
        session = await self.world.session(ALICE)
        since = (await self.feed.delta(session, None, now=1)).next_batch
        said = [await room.say(ALICE, str(n)) for n in range(15)]
        delta = await self.feed.delta(session, since, now=1)
        joined = json.loads(delta.to_json())["rooms"]["join"][room.room_id]
        stop = parse_history_token(str(since))
        answer = await self.page(ALICE, room, joined["timeline"]["prev_batch"], stop=stop)
        self.assertEqual([e["event_id"] for e in answer["chunk"]], event_ids(said[:5])[::-1])
        self.assertNotIn("end", answer)
        answer = await self.page(ALICE, room, str(since), backwards=False, limit=3)
        self.assertEqual([e["event_id"] for e in answer["chunk"]], event_ids(said[:3]))

    async def test_a_page_full_of_hidden_events_goes_on(self) -> None:
        """All visible events behind 3,000 hidden ones are reached with a small limit (security: C3)."""
        room = await self.world.room(ALICE)
        first = await room.say(ALICE, "first")
        alice = await self.world.session(ALICE)
        self.world.supply.ignored_by[alice.user_nid] = frozenset({UserID(BOB)})
        await room.member(BOB, BOB, "join")
        row = (await room.say(BOB, "noise")).nid
        columns = "room_nid, event_id, status, depth, type, sender_nid, ts, root_before, pdu, event_nid"
        await self.database.write(
            lambda tx: tx.many(
                f"INSERT INTO events ({columns}) SELECT room_nid, event_id || ?, 0, depth, type, sender_nid,"
                " ts, root_before, pdu, event_nid + 100000 + ? FROM events WHERE event_nid = ?",
                [(str(n), n, row) for n in range(3000)],
            )
        )
        found = await self.pages(ALICE, room, limit=3)
        flat = [event_id for page in found for event_id in page]
        self.assertIn(first.event.event_id, flat)
        self.assertEqual(len(flat), len(set(flat)))
        self.assertEqual(len(flat), 6)
        self.assertLess(len(found), 10)

    async def test_rejected_events_are_never_shown(self) -> None:
        """Rejected and soft-failed events are in no page and found by no ID (security: F20)."""
        room = await self.world.room(ALICE)
        bad = await room.send(ALICE, "m.room.message", {"body": "bad"}, status=Status.SOFT_FAILED)
        flat = [event_id for page in await self.pages(ALICE, room) for event_id in page]
        self.assertNotIn(bad.event.event_id, flat)
        with self.assertRaises(NotFound):
            await self.history.events.event(await self.asker(ALICE, room), bad.event.event_id)

    async def test_filters_and_lazy_members(self) -> None:
        """A filter leaves out events; lazy loading gives the members who speak."""
        room = await self.world.room(ALICE)
        await room.member(BOB, BOB, "join")
        said = await room.say(ALICE, "x")
        wanted = compile_event_filter('{"types":["m.room.message"],"lazy_load_members":true}')
        answer = await self.page(ALICE, room, wanted=wanted)
        self.assertEqual([e["event_id"] for e in answer["chunk"]], [said.event.event_id])
        self.assertEqual([e["state_key"] for e in answer["state"]], [ALICE])
        self.assertEqual(answer["chunk"][0]["room_id"], room.room_id)

    async def test_a_filter_that_leaves_the_room_out(self) -> None:
        """Where the filter leaves the room out there is nothing, and nothing more."""
        room = await self.world.room(ALICE)
        said = await room.say(ALICE, "x")
        for given in ({"rooms": []}, {"not_rooms": [room.room_id]}, {"rooms": ["!other:here.example"]}):
            wanted = compile_event_filter(json.dumps(given))
            answer = await self.page(ALICE, room, wanted=wanted)
            self.assertEqual((answer["chunk"], answer.get("end")), ([], None))
            asker = await self.asker(ALICE, room)
            context = json.loads(await self.history.events.context(asker, said.event.event_id, 10, wanted))
            self.assertEqual((context["events_before"], context["state"]), ([], []))
            self.assertEqual(context["event"]["event_id"], said.event.event_id)
        wanted = compile_event_filter(json.dumps({"rooms": [room.room_id]}))
        self.assertEqual(len((await self.page(ALICE, room, wanted=wanted))["chunk"]), 5)

    async def test_a_page_is_one_hop_to_the_database(self) -> None:
        """With cold caches too, and all that can stand beside an event; warm ones give the same bytes."""
        room = await self.world.room(ALICE)
        root = await room.say(ALICE, "x")
        for name in ("once", "again"):
            await room.member(BOB, BOB, "join", displayname=name)
        relation = {"rel_type": "m.thread", "event_id": root.event.event_id}
        reply = await room.say(BOB, "y", **{"m.relates_to": relation})
        edit = {"rel_type": "m.replace", "event_id": reply.event.event_id}
        await room.say(BOB, "* z", **{"m.relates_to": edit, "m.new_content": {"body": "z"}})
        await room.redact(ALICE, await room.say(BOB, "oh"))
        database = CountingDatabase(self.database)
        core = Core(database, self.world.feed, self.world.nids, NodeCache(100_000))
        supply: Any = self.world.supply
        self.history = make_history(core, make_readers(core), supply)
        asker = await self.asker(BOB, room)
        request = PageRequest(None, None, True, 20)
        answers, hops = set(), []
        for _ in range(2):
            before = database.reads
            answers.add((await self.history.messages.page(asker, request)).to_json())
            hops.append(database.reads - before)
        self.assertEqual((hops, len(answers)), ([1, 1], 1))
        answer = answers.pop()
        for part in (b'"m.thread":', b'"m.replace":', b'"redacted_because":', b'"replaces_state":'):
            self.assertIn(part, answer)

    async def test_missing_history_is_fetched_once(self) -> None:
        """Where a gap lies on the way, other servers are asked, and what came is in the page."""
        room = await self.world.room(ALICE)
        said = await room.say(ALICE, "x")
        asked: list[tuple[int, int]] = []

        class Fetching:
            """Finds nothing."""

            async def fill(self, room_nid: int, depth: int) -> bool:
                """Note what is asked."""
                asked.append((room_nid, depth))
                return False

        await self.database.write(
            lambda tx: tx.execute(
                "INSERT INTO gaps (room_nid, missing_id, child_nid, depth) VALUES (?, ?, ?, ?)",
                (room.nid, "$missing", said.nid, 1),
            )
        )
        core = Core(self.database, self.world.feed, self.world.nids, self.world.nodes)
        supply: Any = self.world.supply
        self.history = make_history(core, self.world.readers, supply, Fetching())
        await self.page(ALICE, room, limit=2)
        self.assertEqual(asked, [])
        await self.page(ALICE, room)
        self.assertEqual(asked, [(room.nid, 1)])


class PostgresMessagesTests(OnPostgres, MessagesTests):
    """Pages of messages on PostgreSQL."""
