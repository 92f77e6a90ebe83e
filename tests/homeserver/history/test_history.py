"""Tests of reading history over a real database."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import TestCase

from homeserver.history.messages import PageRequest
from homeserver.history.relations import RelationsRequest
from homeserver.history.wiring import make_history
from homeserver.sync.filters import ALL_EVENTS, compile_event_filter
from homeserver.sync.tokens import FeedToken, parse_history_token
from homeserver.sync.wiring import Core
from protocol.errors import Forbidden, MatrixError, NotFound
from protocol.identifiers import EventID, RoomID, UserID
from storage.engines import open_database
from storage.events import Status
from tests.homeserver.sync.world import World, event_ids
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


class VisibilityTests(HistoryCase):
    """Who sees what, by every read."""

    async def test_every_visibility_by_every_membership(self) -> None:
        """Visibility and membership decide alike for pages, single events and context (security: C2)."""
        expected = {
            "world_readable": {"never": True, "left before": True, "joined later": True, "invited": True},
            "shared": {"never": False, "left before": False, "joined later": True, "invited": True},
            "invited": {"never": False, "left before": False, "joined later": False, "invited": True},
            "joined": {"never": False, "left before": False, "joined later": False, "invited": False},
        }
        for visibility, by_user in expected.items():
            room = await self.world.room(ALICE, visibility=visibility)
            users = {name: f"@{name.replace(' ', '')}:here.example" for name in by_user}
            await room.member(users["left before"], users["left before"], "join")
            await room.member(users["left before"], users["left before"], "leave")
            await room.member(ALICE, users["invited"], "invite")
            said = await room.say(ALICE, "x")
            for name in ("joined later", "invited"):
                await room.member(users[name], users[name], "join")
            for name, may in by_user.items():
                self.assertEqual(await self._reads(users[name], room, said), [may] * 3, (visibility, name))

    async def _reads(self, user: str, room: Any, said: Any) -> list[bool]:
        """Tell for each kind of read whether it gives the event."""
        event_id = said.event.event_id
        seen = []

        async def page() -> bool:
            found = await self.pages(user, room)
            return event_id in [each for page in found for each in page]

        async def single() -> bool:
            return bool(await self.history.events.event(await self.asker(user, room), event_id))

        async def context() -> bool:
            asker = await self.asker(user, room)
            return bool(await self.history.events.context(asker, event_id, 3, ALL_EVENTS))

        for read in (page, single, context):
            try:
                seen.append(await read())
            except MatrixError:
                seen.append(False)
        return seen

    async def test_a_kicked_user_reads_up_to_the_kick(self) -> None:
        """After a kick, pages, state, members and context end with it (security: C1)."""
        room = await self.world.room(ALICE)
        await room.member(BOB, BOB, "join")
        await room.send(ALICE, "m.room.name", {"name": "then"}, "")
        kick = await room.member(ALICE, BOB, "leave")
        secret = await room.send(ALICE, "m.room.name", {"name": "secret"}, "")
        await room.member(CAROL, CAROL, "join")
        last = await room.say(ALICE, "secret")
        flat = [each for page in await self.pages(BOB, room) for each in page]
        self.assertEqual(flat, event_ids(room.sent[: room.sent.index(kick) + 1])[::-1])
        forwards = [each for page in await self.pages(BOB, room, backwards=False) for each in page]
        self.assertEqual(forwards, flat[::-1])
        asker = await self.asker(BOB, room)
        for gone in (secret, last):
            with self.assertRaises(NotFound):
                await self.history.events.event(asker, gone.event.event_id)
        name = await self.history.states.one(asker, "m.room.name", "", whole=False)
        self.assertEqual(json.loads(name), {"name": "then"})
        for at in (None, FeedToken(1, self.world.feed.position), parse_history_token("t999_999")):
            members = await self.history.states.members(asker, at, None, None)
            self.assertEqual({json.loads(each)["state_key"] for each in members}, {ALICE, BOB})
        context = await self.history.events.context(asker, kick.event.event_id, 10, ALL_EVENTS)
        self.assertNotIn(b"secret", context)
        self.assertNotIn(CAROL.encode(), context)

    async def test_strangers_and_unknown_rooms_look_alike(self) -> None:
        """A stranger, one only invited, and who asks for an unknown room get the same 403 (security: C2)."""
        room = await self.world.room(ALICE)
        await room.member(ALICE, BOB, "invite")
        errors = []
        for user, room_id in ((CAROL, room.room_id), (BOB, room.room_id), (CAROL, RoomID("!no:where"))):
            with self.assertRaises(Forbidden) as caught:
                await self.history.askers.of(await self.world.session(user), room_id, 0)
            errors.append(caught.exception.error)
        self.assertEqual(len(set(errors)), 1)


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


class StateTests(HistoryCase):
    """State, members, and events by time."""

    async def test_state_and_members(self) -> None:
        """State comes whole or one by one, members by membership and at a token."""
        room = await self.world.room(ALICE)
        before = FeedToken(1, self.world.feed.position)
        place = parse_history_token(f"t{room.depth + 1}_0")
        await room.member(BOB, BOB, "join", displayname="Bob", avatar_url=5)
        await room.member(ALICE, CAROL, "invite")
        asker = await self.asker(ALICE, room)
        states = self.history.states
        self.assertEqual(len(await states.everything(asker)), 6)

        async def members(*given: Any) -> set[str]:
            return {json.loads(each)["state_key"] for each in await states.members(asker, *given)}

        self.assertEqual(await members(None, "join", None), {ALICE, BOB})
        self.assertEqual(await members(None, None, "join"), {CAROL})
        self.assertEqual(await members(None, "join", "join"), {ALICE, BOB, CAROL})
        for at in (before, place):
            self.assertEqual(await members(at, None, None), {ALICE})
        joined = json.loads(await states.joined(asker))["joined"]
        self.assertEqual(joined, {ALICE: {}, BOB: {"display_name": "Bob"}})
        with self.assertRaises(NotFound):
            await states.one(asker, "m.room.topic", "", whole=True)

    async def test_the_event_nearest_to_a_time(self) -> None:
        """The event nearest to a time is found in either direction."""
        room = await self.world.room(ALICE)
        said = [await room.say(ALICE, str(n)) for n in range(3)]
        asker = await self.asker(ALICE, room)
        ts = said[1].event.origin_server_ts
        for at, later, expected in ((ts, True, 1), (ts + 1, True, 2), (ts - 1, False, 0), (ts, False, 1)):
            event = await self.history.events.nearest(asker, at, later=later)
            self.assertEqual(event.event_id, said[expected].event.event_id)
        with self.assertRaises(NotFound):
            await self.history.events.nearest(asker, 2**50, later=True)

    async def test_context_has_both_sides_and_the_state(self) -> None:
        """Context has what lies on both sides, tokens that go on from there, and the state."""
        room = await self.world.room(ALICE)
        said = [await room.say(ALICE, str(n)) for n in range(9)]
        asker = await self.asker(ALICE, room)
        raw = await self.history.events.context(asker, EventID(said[4].event.event_id), 4, ALL_EVENTS)
        answer = json.loads(raw)
        self.assertEqual([e["event_id"] for e in answer["events_before"]], event_ids([said[3], said[2]]))
        self.assertEqual([e["event_id"] for e in answer["events_after"]], event_ids(said[5:7]))
        self.assertEqual(len(answer["state"]), 4)
        earlier = await self.page(ALICE, room, answer["start"], limit=2)
        self.assertEqual([e["event_id"] for e in earlier["chunk"]], event_ids([said[1], said[0]]))
        later = await self.page(ALICE, room, answer["end"], limit=2, backwards=False)
        self.assertEqual([e["event_id"] for e in later["chunk"]], event_ids(said[7:9]))


class OnPostgres:
    """The same on PostgreSQL."""

    async def open(self) -> Any:
        """Open a fresh database."""
        server = postgres_server()
        url = server.create_database()
        self.addCleanup(server.drop_database, url)  # type: ignore[attr-defined]
        return await open_database(url, REACTOR)


class PostgresMessagesTests(OnPostgres, MessagesTests):
    """Pages of messages on PostgreSQL."""


class PostgresVisibilityTests(OnPostgres, VisibilityTests):
    """Visibility on PostgreSQL."""


class PostgresRelationTests(OnPostgres, RelationTests):
    """Relations on PostgreSQL."""


class PostgresStateTests(OnPostgres, StateTests):
    """State on PostgreSQL."""
