"""Tests of the push rules that events are judged by."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.threads import blockingCallFromThread

from homeserver.accounts.push_rules import DefaultRules, UserPushRules
from homeserver.accounts.rule_sets import RuleSets
from protocol.canonical_json import decode_own
from protocol.identifiers import UserID
from protocol.push_defaults import RuleKind
from protocol.push_rules import read_push_rules
from storage import feed
from storage.database import Transaction
from tests.homeserver.accounts.helpers import make_world
from tests.storage.helpers import REACTOR, SqliteCase

ALICE, BOB = UserID("@alice:plait.test"), UserID("@bob:plait.test")


class RuleSetsTests(SqliteCase):
    """Compiled rules by user."""

    async def test_only_changed_rules_are_given_and_changes_are_heard_of(self) -> None:
        """From the database once, then from memory until the user edits the rules."""
        world = await make_world(self.database)
        self.addCleanup(world.stop)
        users = {(await world.register(user[1:].partition(":")[0])).user_nid: user for user in (ALICE, BOB)}
        bob = next(nid for nid, user in users.items() if user == BOB)
        rules, edits = RuleSets(), UserPushRules(world.parts.keepsakes.data)
        world.core.feed.add_cache(rules.apply)

        def given(tx: Transaction) -> set[int]:
            return set(rules.of(tx, users))

        def remembered(_tx: Transaction) -> set[int]:
            return set(rules.of(None, users))  # type: ignore[arg-type]  # no query may be made

        self.assertEqual(await self.database.read(given), set())
        self.assertEqual(await self.database.read(remembered), set())
        await edits.edit(BOB, bob, lambda held: held.set_enabled(RuleKind.OVERRIDE, ".m.rule.master", True))
        self.assertEqual(await self.database.read(given), {bob})
        self.assertEqual(await self.database.read(remembered), {bob})
        await edits.edit(BOB, bob, lambda held: held.set_enabled(RuleKind.OVERRIDE, ".m.rule.master", False))
        self.assertEqual(await self.database.read(given), set())

    async def test_rules_of_an_older_snapshot_are_not_kept(self) -> None:
        """What is read in a transaction that began before the rules changed is not taken for what holds."""
        world = await make_world(self.database)
        self.addCleanup(world.stop)
        bob = (await world.register("bob")).user_nid
        rules, edits = RuleSets(), UserPushRules(world.parts.keepsakes.data)
        world.core.feed.add_cache(rules.apply)

        def mute() -> Deferred[None]:
            return Deferred.fromCoroutine(
                edits.edit(BOB, bob, lambda held: held.set_enabled(RuleKind.OVERRIDE, ".m.rule.master", True))
            )

        def late(tx: Transaction) -> set[int]:
            feed.tail(tx)
            blockingCallFromThread(REACTOR, mute)
            return set(rules.of(tx, {bob: BOB}))

        self.assertEqual(await self.database.read(late), set())
        self.assertEqual(await self.database.read(lambda tx: set(rules.of(tx, {bob: BOB}))), {bob})

    async def test_a_new_account_has_the_default_rules(self) -> None:
        """It is known without a query, also when the rules of others are not."""
        world = await make_world(self.database)
        self.addCleanup(world.stop)
        made = {(await world.register(name)).user_nid: UserID(f"@{name}:plait.test") for name in ("a", "b")}
        known = world.parts.keepsakes.rule_sets
        self.assertEqual(known.of(None, made), {})  # type: ignore[arg-type]  # no query may be made

    def test_the_default_rules_are_told_in_full(self) -> None:
        """What a new user sees reads back as the default rules."""
        content = DefaultRules().content(ALICE)
        self.assertTrue(read_push_rules(ALICE, decode_own(content)).are_default)
        self.assertIn(b'"@alice:plait.test"', content)
