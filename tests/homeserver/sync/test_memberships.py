"""Tests of the rooms of users in memory, read while they change."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from homeserver.sync.memberships import UserRooms
from storage.memberships import Membership
from tests.homeserver.sync.feed_case import ALICE, BOB, FeedCase
from tests.storage.helpers import LateDatabase


class UserRoomsTests(FeedCase):
    """`UserRooms`."""

    async def test_a_join_is_not_lost_between_two_that_ask(self) -> None:
        """Who joins while two sessions look the rooms up is joined for both, and from then on."""
        room = await self.world.room(ALICE)
        user_nid = await self.world.nids.user(BOB)
        asked: list[Deferred[Any]] = []

        async def join_and_ask() -> None:
            await room.member(ALICE, BOB, "invite")
            await room.member(BOB, BOB, "join")
            asked.append(Deferred.fromCoroutine(rooms.of(user_nid)))

        slow: Any = LateDatabase(self.world.database, join_and_ask)
        rooms = UserRooms(slow, self.world.feed)
        self.world.feed.add_cache(rooms.apply)
        for found in (await rooms.of(user_nid), await asked[0], await rooms.of(user_nid)):
            self.assertEqual(found[room.nid].membership, Membership.JOIN)
