"""Tests of state, members, context and events by time."""

from __future__ import annotations

import json
from typing import Any

from homeserver.sync.filters import ALL_EVENTS
from homeserver.sync.tokens import FeedToken, parse_history_token
from protocol.errors import NotFound
from protocol.identifiers import EventID
from tests.homeserver.history.history_case import ALICE, BOB, CAROL, HistoryCase, OnPostgres
from tests.homeserver.sync.world import event_ids


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


class PostgresStateTests(OnPostgres, StateTests):
    """State on PostgreSQL."""
