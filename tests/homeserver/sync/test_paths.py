"""The fast path (the ring) and the slow path (the database) give byte-equal deltas, for any history."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from homeserver.sync.filters import DEFAULT_FILTER, compile_filter
from homeserver.sync.session import STATE, STATE_AFTER, Options
from homeserver.sync.suppliers import AccountDatum, Receipt
from protocol.identifiers import UserID
from storage.engines import open_database
from storage.feed import Kind, NewEntry
from tests.homeserver.sync.world import NOW, Room, World
from tests.storage.helpers import REACTOR, postgres_server

USERS = ("@alice:here.example", "@bob:here.example", "@carol:else.example")
LAZY = compile_filter('{"room":{"state":{"lazy_load_members":true},"timeline":{"limit":3}}}')
TYPED = compile_filter('{"room":{"timeline":{"types":["m.room.message"],"limit":2}}}')

STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["say", "say", "say", "name", "join", "leave", "kick", "invite", "fork", "redact", "receipt",
             "data", "device", "resolve", "past", "keys"]
        ),
        st.integers(0, 1),
        st.integers(0, 2),
    ),
    max_size=14,
)  # fmt: skip


async def take(world: World, room: Room, step: str, who: str) -> None:
    """Take one step of a random history."""
    nid = await world.nids.user(UserID(who))
    match step:
        case "say":
            await room.say(who, f"at {room.depth}")
        case "name":
            await room.send(who, "m.room.name", {"name": f"n{room.depth}"}, "")
        case "join" | "leave":
            await room.member(who, who, step)
        case "kick":
            await room.member(USERS[2], who, "leave")
        case "invite":
            await room.member(USERS[2], who, "invite")
        case "fork":
            await room.send(who, "m.room.message", {"body": "fork"}, fork=True)
        case "resolve":
            target = {("m.room.topic", ""): room.sent[-1].nid}
            await room.send(who, "m.room.topic", {"topic": "x"}, "", fork=True, resolved=target)
        case "redact":
            await room.redact(who, room.sent[-1])
        case "past":
            await room.redact_in_past(room.sent[-1])
        case "keys":
            await world.commit([NewEntry(Kind.DEVICE_KEYS, user_nid=nid)])
        case "receipt":
            ref = world.next_nid * 10
            receipt = Receipt(ref, room.sent[-1].event.event_id, "m.read", UserID(who), None, NOW)
            others = [r for r in world.supply.receipts_by_room.get(room.nid, []) if r.user_id != who]
            world.supply.receipts_by_room[room.nid] = [*others, receipt]
            await world.commit([NewEntry(Kind.RECEIPT, 0, room.nid, nid, ref)])
            await world.commit([NewEntry(Kind.DELIVERED, 0, room.nid, nid, ref)])
        case "data":
            world.supply.data.setdefault(nid, []).append((world.next_nid, AccountDatum(room.nid, "t", b"{}")))
            await world.commit([NewEntry(Kind.ACCOUNT_DATA, 0, room.nid, nid, world.next_nid)])
        case _:
            await world.commit([NewEntry(Kind.DEVICE_LIST, user_nid=nid)])


class PathTests(TestCase):
    """Both paths, on SQLite."""

    async def open(self) -> Any:
        """Open a fresh database."""
        return await open_database(f"sqlite:///{self.mktemp()}", REACTOR)

    async def test_ring_and_database_give_equal_bytes(self) -> None:
        """For any history and any token, ring and database give byte-equal deltas."""
        histories: list[tuple[list[tuple[str, int, int]], list[tuple[str, int, int]]]] = []

        @settings(max_examples=12, suppress_health_check=list(HealthCheck), deadline=None, database=None)
        @given(STEPS, STEPS)
        def collect(before: Any, after: Any) -> None:
            histories.append((before, after))

        collect()
        for before, after in histories:
            await self._compare(before, after)

    async def _compare(self, before: Any, after: Any) -> None:
        """Play a history, with tokens taken in its midst, and compare the paths."""
        database = await self.open()
        try:
            world = await World.open(database)
            fast, slow = world.session_feed(), world.session_feed()
            slow.use_ring = False
            rooms = [await world.room(USERS[0]), await world.room(USERS[0], visibility="joined")]
            for step, room, who in before:
                await take(world, rooms[room], step, USERS[who])
            tokens = {}
            for user in USERS[:2]:
                session = await world.session(user)
                tokens[user] = (await fast.delta(session, None, now=world.now)).next_batch
                await slow.delta(session, None, now=world.now)
            for step, room, who in after:
                await take(world, rooms[room], step, USERS[who])
            for wanted in (DEFAULT_FILTER, LAZY, TYPED):
                for name in (STATE, STATE_AFTER):
                    options = Options(wanted, state_name=name)
                    for user, token in tokens.items():
                        session = await world.session(user)
                        got = [
                            (await each.delta(session, token, options, now=world.now)).to_json()
                            for each in (fast, slow, fast)
                        ]
                        self.assertEqual(got[0], got[1], (before, after))
                        self.assertEqual(got[2], got[1], (before, after))
        finally:
            await database.close()


class PostgresPathTests(PathTests):
    """Both paths, on PostgreSQL."""

    async def open(self) -> Any:
        """Open a fresh database."""
        server = postgres_server()
        url = server.create_database()
        self.addCleanup(server.drop_database, url)
        return await open_database(url, REACTOR)
