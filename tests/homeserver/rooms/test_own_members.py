"""Tests of what rooms are told of a local user."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from homeserver.rooms.own_members import MemberFields
from protocol.identifiers import UserID
from tests.homeserver.accounts.helpers import NOW, make_world
from tests.storage.helpers import SqliteCase


class MemberFieldsTests(SqliteCase):
    """Names and pictures, in memory."""

    async def test_what_is_known_follows_the_profile(self) -> None:
        """A profile is read once, or not at all if its account was made here, and anew after a change."""
        world = await make_world(self.database)
        self.addCleanup(world.stop)
        fields = MemberFields(self.database, world.core.nids)
        world.core.feed.add_cache(fields.apply)
        account = await world.register("alice")
        alice = UserID(account.user_id)
        self.assertEqual(await fields.member_fields(alice), {"displayname": "alice"})
        again = Deferred.fromCoroutine(fields.member_fields(alice))
        self.assertTrue(again.called)
        await world.parts.profiles.set_field(alice, "displayname", "Alice", now=NOW)
        await world.parts.profiles.set_field(alice, "avatar_url", "mxc://plait.test/a", now=NOW)
        self.assertEqual(
            await fields.member_fields(alice), {"displayname": "Alice", "avatar_url": "mxc://plait.test/a"}
        )
        fields.note(99, {"displayname": "new"})
        world.core.nids.remember_user(UserID("@new:plait.test"), 99)
        self.assertEqual(await fields.member_fields(UserID("@new:plait.test")), {"displayname": "new"})
