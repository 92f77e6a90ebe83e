"""Tests of carrying over what users have set for a room that was replaced."""

from __future__ import annotations

from typing import Any

from protocol.identifiers import RoomID, UserID
from protocol.push_defaults import RuleKind
from protocol.push_rules import parse_rule
from tests.homeserver.accounts.helpers import make_world
from tests.storage.helpers import PostgresCase, SqliteCase

ALICE, BOB = UserID("@alice:plait.test"), UserID("@bob:plait.test")
OLD, NEW = RoomID("!old:plait.test"), RoomID("!new:plait.test")


class RoomSettingsContract:
    """A user with two rooms."""

    database: Any
    assertEqual: Any
    addCleanup: Any

    async def test_carry(self) -> None:
        """Tags, push rules and private conversations are carried over once; what is set already stays."""
        world = await make_world(self.database)
        self.addCleanup(world.stop)
        kept = world.parts.keepsakes
        nid = (await world.register()).user_nid
        for number, room_id in ((901, OLD), (902, NEW)):
            await self.database.write(
                lambda tx, *row: tx.execute(
                    "INSERT INTO rooms (room_nid, room_id, version) VALUES (?, ?, '11')", row
                ),
                number,
                room_id,
            )
        await kept.settings.carry(ALICE, OLD, NEW)
        self.assertEqual((await kept.tags.get(nid, NEW), await kept.direct.get(ALICE)), ({}, {}))
        await kept.tags.put(nid, OLD, "m.favourite", {"order": 0.5})
        await kept.tags.put(nid, OLD, "u.tea", {})
        await kept.direct.add(ALICE, BOB, OLD)
        rule = parse_rule(RuleKind.ROOM, OLD, {"actions": []})
        await kept.push_rules.edit(ALICE, nid, lambda rules: rules.put(RuleKind.ROOM, rule))
        for _ in range(2):
            await kept.settings.carry(ALICE, OLD, NEW)
            self.assertEqual(await kept.tags.get(nid, NEW), {"m.favourite": {"order": 0.5}, "u.tea": {}})
            self.assertEqual(await kept.direct.get(ALICE), {BOB: [OLD, NEW]})
            rules = await kept.push_rules.get(ALICE, nid)
            self.assertEqual([each.rule_id for each in rules.own[RuleKind.ROOM]], [NEW, OLD])
        await kept.tags.delete(nid, NEW, "u.tea")
        await kept.settings.carry(ALICE, OLD, NEW)
        self.assertEqual(list(await kept.tags.get(nid, NEW)), ["m.favourite"])


class SqliteRoomSettingsTests(RoomSettingsContract, SqliteCase):
    """On SQLite."""


class PostgresRoomSettingsTests(RoomSettingsContract, PostgresCase):
    """On PostgreSQL."""
