"""Tests of who may see what of a room."""

from __future__ import annotations

import json
from typing import Any

from homeserver.sync.filters import ALL_EVENTS
from homeserver.sync.tokens import FeedToken, parse_history_token
from protocol.errors import Forbidden, MatrixError, NotFound
from protocol.identifiers import RoomID
from tests.homeserver.history.history_case import ALICE, BOB, CAROL, HistoryCase, OnPostgres
from tests.homeserver.sync.world import event_ids


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


class PostgresVisibilityTests(OnPostgres, VisibilityTests):
    """Visibility on PostgreSQL."""
