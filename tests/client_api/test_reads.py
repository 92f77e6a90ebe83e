"""Tests of the endpoints that read: sync, history, relations, state; through the route table."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote, urlencode

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from client_api.history import HistoryReads
from client_api.relations import RelationReads
from client_api.room_state import RoomStateReads
from client_api.sync import Sync
from homeserver.accounts.requester import Requester
from homeserver.clock import Clock
from homeserver.history.wiring import make_history
from homeserver.http.calls import Call, Json, Query
from homeserver.http.routing import RouteTable
from homeserver.sync.filters import Filters
from homeserver.sync.long_poll import LongPoll
from homeserver.sync.waiting import Waiters
from homeserver.sync.wiring import Core
from protocol.errors import (
    BadJson,
    Forbidden,
    InvalidParam,
    MatrixError,
    MissingParam,
    NotFound,
    UnknownToken,
    UserLocked,
)
from protocol.identifiers import DeviceID, UserID
from storage.engines import open_database
from storage.feed import Kind, NewEntry
from tests.homeserver.sync.world import World
from tests.storage.helpers import REACTOR

ALICE, BOB = "@alice:here.example", "@bob:here.example"


class Heard:
    """Notes signs of life."""

    def __init__(self) -> None:
        """Start with none."""
        self.seen: list[tuple[str, str]] = []

    def heard(self, user_id: str, device: str, presence: str = "online") -> None:
        """Note one."""
        self.seen.append((user_id, presence))


class Tokens:
    """Takes every token, until told otherwise."""

    def __init__(self) -> None:
        """Start by refusing none."""
        self.refusal: MatrixError | None = None
        self.locked = False

    async def requester(self, token: str, *, ip: str, user_agent: str, now: int) -> Requester:
        """Give somebody, or refuse the token."""
        if self.refusal is not None:
            raise self.refusal
        return Requester(UserID(ALICE), 1, DeviceID("DEV"), 1, locked=self.locked)


class StoredFilters:
    """One stored filter."""

    async def get(self, user_nid: int, filter_id: str) -> bytes | None:
        """Give filter 1."""
        return b'{"room":{"timeline":{"limit":1}}}' if filter_id == "1" else None


class ReadsCase(TestCase):
    """The families over a world."""

    async def setUp(self) -> None:
        """Build the table."""
        self.database = await open_database(f"sqlite:///{self.mktemp()}", REACTOR)
        self.addCleanup(self.database.close)
        self.world = world = await World.open(self.database)
        feed = world.session_feed()
        core = Core(world.database, world.feed, world.nids, world.nodes)
        supply: Any = world.supply
        clock = Clock(reactor)  # type: ignore[arg-type]
        waiters = Waiters(world.database, world.readers.rooms, clock)
        world.feed.add_session_listener(waiters.apply)
        history = make_history(core, world.readers, supply)
        self.heard, self.tokens = Heard(), Tokens()
        sync = Sync(LongPoll(feed, waiters, clock), Filters(), StoredFilters(), self.heard, self.tokens)
        families = (sync, HistoryReads(history), RelationReads(history), RoomStateReads(history))
        self.table = RouteTable(route for family in families for route in family.routes())
        self.room = await world.room(ALICE)

    async def get(self, path: str, user: str = ALICE, **query: Any) -> Any:
        """Call an endpoint and give its JSON."""
        tail = urlencode({name.rstrip("_"): value for name, value in query.items()})
        match = self.table.match("GET", f"/_matrix/client{path}".encode())
        session = await self.world.session(user)
        call: Any = Call(
            "GET", b"", match.params, Query(tail.encode()), None, self.world.now, "",
            Requester(session.user_id, session.user_nid, session.device_id, 1), token="t",
        )  # fmt: skip
        reply = await match.route.handler(call)
        return json.loads(reply.body) if isinstance(reply, Json) else reply

    def path(self, tail: str, version: str = "v3") -> str:
        """Give a path below the room."""
        return f"/{version}/rooms/{quote(self.room.room_id)}{tail}"


class SyncTests(ReadsCase):
    """GET /sync."""

    async def test_filters_by_id_and_inline(self) -> None:
        """A filter is given as JSON or by the ID of a stored one; an unknown ID is 404."""
        for given_filter in ("1", '{"room":{"timeline":{"limit":1}}}'):
            answer = await self.get("/v3/sync", filter=given_filter)
            joined = answer["rooms"]["join"][self.room.room_id]
            self.assertEqual(len(joined["timeline"]["events"]), 1)
        with self.assertRaises(NotFound):
            await self.get("/v3/sync", filter="2")
        with self.assertRaises(BadJson):
            await self.get("/v3/sync", filter="{")
        self.assertEqual(self.heard.seen[0], (ALICE, "online"))

    async def test_a_wait_ends_with_news_and_for_nothing_else(self) -> None:
        """A long poll answers when something concerns the user, not when something else happens."""
        other = await self.world.room(BOB)
        answer = await self.get("/v3/sync")
        waiting = Deferred.fromCoroutine(self.get("/v3/sync", since=answer["next_batch"], timeout=30000))
        await other.say(BOB, "elsewhere")
        await self.settle()
        self.assertFalse(waiting.called)
        said = await self.room.say(ALICE, "news")
        answer = await waiting
        events = answer["rooms"]["join"][self.room.room_id]["timeline"]["events"]
        self.assertEqual([e["event_id"] for e in events], [said.event.event_id])

    async def test_a_wait_ends_with_its_session(self) -> None:
        """Whoever is logged out or locked meanwhile is told that alone; who has a newer token may wait on."""
        for refusal, locked, refused in (
            (UnknownToken("over", soft_logout=False), False, UnknownToken),
            (None, True, UserLocked),
            (UnknownToken("replaced", soft_logout=True), False, None),
        ):
            answer = await self.get("/v3/sync")
            waiting = Deferred.fromCoroutine(self.get("/v3/sync", since=answer["next_batch"], timeout=30000))
            await self.settle()
            self.tokens.refusal, self.tokens.locked = refusal, locked
            alice = (await self.world.session(ALICE)).user_nid
            await self.world.commit([NewEntry(Kind.SESSION, user_nid=alice)])
            await self.settle()
            if refused is None:
                self.assertFalse(waiting.called)
                await self.room.say(ALICE, "news")
                self.assertIn("rooms", await waiting)
            else:
                with self.assertRaises(refused):
                    await waiting
            self.tokens.refusal, self.tokens.locked = None, False

    async def test_an_empty_wait_ends_at_its_timeout(self) -> None:
        """With a timeout of zero, or past it, the answer is empty and has a token."""
        answer = await self.get("/v3/sync")
        answer = await self.get("/v3/sync", since=answer["next_batch"], timeout=5)
        self.assertNotIn("rooms", answer)
        self.assertTrue(answer["next_batch"])

    async def test_a_new_room_wakes_the_newcomer(self) -> None:
        """An invite, or a join made elsewhere, ends the user's wait."""
        other = await self.world.room(BOB)
        answer = await self.get("/v3/sync")
        waiting = Deferred.fromCoroutine(self.get("/v3/sync", since=answer["next_batch"], timeout=30000))
        await self.settle()
        await other.member(BOB, ALICE, "invite")
        answer = await waiting
        self.assertEqual(list(answer["rooms"]["invite"]), [other.room_id])

    async def test_state_after_has_the_name_it_was_asked_by(self) -> None:
        """Clients that ask by the name of MSC4222 find the state by that name, others by the present one."""
        names = {"use_state_after": "state_after"}
        names["org.matrix.msc4222.use_state_after"] = "org.matrix.msc4222.state_after"
        for parameter, member in names.items():
            answer = await self.get("/v3/sync", **{parameter: "true"})
            room = answer["rooms"]["join"][self.room.room_id]
            self.assertEqual([name for name in room if "state" in name], [member])
            self.assertIn("m.room.create", [event["type"] for event in room[member]["events"]])
        both = await self.get("/v3/sync", **dict.fromkeys(names, "true"))
        self.assertIn("state_after", both["rooms"]["join"][self.room.room_id])

    async def test_a_wait_survives_a_fork(self) -> None:
        """A user whose memberships must be read again is still woken."""
        answer = await self.get("/v3/sync")
        waiting = Deferred.fromCoroutine(self.get("/v3/sync", since=answer["next_batch"], timeout=30000))
        await self.settle()
        await self.room.send(ALICE, "m.room.message", {"body": "fork"}, fork=True)
        answer = await waiting
        self.assertIn(self.room.room_id, answer["rooms"]["join"])

    async def test_tokens_filters_and_flags_never_break_it(self) -> None:
        """Any text as token, filter, timeout or flag gives an answer or a Matrix error (security: D9)."""
        found: list[dict[str, str]] = []
        names = st.sampled_from(
            ["since", "filter", "timeout", "full_state", "set_presence", "use_state_after"]
        )
        texts = st.text(max_size=20) | st.sampled_from(
            ["true", "0", "s1_1", "s1_1_0_a.0", '{"room":5}', "{}"]
        )

        @settings(max_examples=60, suppress_health_check=list(HealthCheck), deadline=None, database=None)
        @given(st.dictionaries(names, texts, max_size=3))
        def collect(query: dict[str, str]) -> None:
            found.append(query)

        collect()
        for query in found:
            try:
                await self.get("/v3/sync", **(query | {"timeout": query.get("timeout", "0")[:2]}))
            except MatrixError as error:
                self.assertLess(error.status, 500)

    async def settle(self) -> None:
        """Let the reactor turn a few times."""
        for _ in range(3):
            done: Deferred[None] = Deferred()
            reactor.callLater(0, done.callback, None)  # type: ignore[attr-defined]
            await done


class HistoryTests(ReadsCase):
    """History endpoints."""

    async def test_messages(self) -> None:
        """Messages need a direction and read tokens; strangers get 403."""
        with self.assertRaises(MissingParam):
            await self.get(self.path("/messages"))
        answer = await self.get(self.path("/messages"), dir="b", limit=2)
        self.assertEqual(len(answer["chunk"]), 2)
        rest = await self.get(self.path("/messages"), dir="b", from_=answer["end"])
        self.assertEqual(len(rest["chunk"]), 2)
        for wrong in ({"dir": "x"}, {"dir": "b", "from_": "nonsense"}, {"dir": "b", "limit": "x"}):
            with self.assertRaises(InvalidParam):
                await self.get(self.path("/messages"), **wrong)
        with self.assertRaises(Forbidden):
            await self.get(self.path("/messages"), BOB, dir="b")

    async def test_single_events(self) -> None:
        """An event, its context and the event nearest to a time are found."""
        event = self.room.sent[2].event
        tail = quote(event.event_id)
        self.assertEqual((await self.get(self.path(f"/event/{tail}")))["event_id"], event.event_id)
        for path in (self.path(f"/event/{tail}"), self.path(f"/relations/{tail}", "v1")):
            with self.assertRaises(NotFound):
                await self.get(path, BOB)
        context = await self.get(self.path(f"/context/{tail}"), limit=0)
        self.assertEqual(context["event"]["event_id"], event.event_id)
        answer = await self.get(self.path("/timestamp_to_event", "v1"), ts=event.origin_server_ts, dir="f")
        self.assertEqual(answer["event_id"], event.event_id)

    async def test_relations_and_threads(self) -> None:
        """Relations and threads answer, empty where there are none; unknown parents are 404."""
        tail = quote(self.room.sent[0].event.event_id)
        for more in ("", "/m.thread", "/m.thread/m.room.message"):
            answer = await self.get(self.path(f"/relations/{tail}{more}", "v1"), recurse="true")
            self.assertEqual(answer["chunk"], [])
        self.assertEqual((await self.get(self.path("/threads", "v1")))["chunk"], [])
        with self.assertRaises(NotFound):
            await self.get(self.path("/relations/$no", "v1"))

    async def test_state_and_members(self) -> None:
        """State is read whole or by key, with the key left out or empty; members by membership."""
        self.assertEqual(len(await self.get(self.path("/state"))), 4)
        for tail in ("/state/m.room.create", "/state/m.room.create/"):
            self.assertEqual((await self.get(self.path(tail)))["room_version"], "11")
        event = await self.get(self.path("/state/m.room.create"), format="event")
        self.assertEqual(event["type"], "m.room.create")
        members = await self.get(self.path("/members"), membership="join")
        self.assertEqual(len(members["chunk"]), 1)
        with self.assertRaises(InvalidParam):
            await self.get(self.path("/members"), membership="x")
        joined = await self.get(self.path("/joined_members"))
        self.assertEqual(joined, {"joined": {ALICE: {}}})
        with self.assertRaises(Forbidden):
            await self.get(self.path("/joined_members"), BOB)
