"""Tests of account data that several workers change at the same time."""

from __future__ import annotations

from twisted.internet.defer import Deferred, gatherResults

from homeserver.accounts.account_data import AccountData
from homeserver.accounts.push_rules import DefaultRules, UserPushRules
from homeserver.accounts.tags import Tags
from protocol.push_defaults import RuleKind
from protocol.push_rules import parse_rule
from storage.migrate import migrate
from tests.homeserver.events.helpers import ALICE, start_worker
from tests.storage.helpers import PostgresCase, SqliteCase


class EditsTests(SqliteCase):
    """Two workers over one database."""

    async def data(self) -> list[AccountData]:
        """Start the workers."""
        await migrate(self.database)
        workers = [await start_worker(self.database, name) for name in ("one", "two")]
        self.room = (await workers[0].room()).room
        self.user_nid = await workers[0].nids.user(ALICE)
        rules = DefaultRules()
        return [AccountData(self.database, each.persister, each.nids, rules) for each in workers]

    async def test_tags(self) -> None:
        """Tags that two devices set by different workers are all there."""
        tags = [Tags(each) for each in await self.data()]
        setting = [
            tags[n % 2].put(self.user_nid, self.room.room_id, f"u.{n}", {"order": n}) for n in range(10)
        ]
        await gatherResults(map(Deferred.fromCoroutine, setting))
        self.assertEqual(len(await tags[0].get(self.user_nid, self.room.room_id)), 10)

    async def test_push_rules(self) -> None:
        """Rules that two devices add by different workers are all there."""
        users = [UserPushRules(each) for each in await self.data()]
        made = [parse_rule(RuleKind.ROOM, f"!{n}:plait.test", {"actions": []}) for n in range(10)]
        adding = [
            users[n % 2].edit(ALICE, self.user_nid, lambda rules, rule=rule: rules.put(RuleKind.ROOM, rule))
            for n, rule in enumerate(made)
        ]
        await gatherResults(map(Deferred.fromCoroutine, adding))
        self.assertEqual(len((await users[0].get(ALICE, self.user_nid)).own[RuleKind.ROOM]), 10)


class PostgresEditsTests(PostgresCase):
    """The same on PostgreSQL."""

    data = EditsTests.data
    test_tags = EditsTests.test_tags
    test_push_rules = EditsTests.test_push_rules
