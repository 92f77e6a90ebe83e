"""Tests of the session feed: what is beside the events of rooms."""

from __future__ import annotations

import json
from typing import Any

from attrs import evolve

from homeserver.sync.suppliers import AccountDatum, Receipt
from homeserver.sync.tokens import SyncToken
from protocol.errors import UnknownPos
from protocol.identifiers import EventID, UserID
from storage.feed import Kind, NewEntry
from tests.homeserver.sync.feed_case import ALICE, BOB, CAROL, FeedCase
from tests.homeserver.sync.world import NOW


class BesideTests(FeedCase):
    """What is beside the rooms' events."""

    async def test_private_receipts_are_the_owners_alone(self) -> None:
        """Receipts are told to all, private ones to their owner alone."""
        room = await self.world.room(ALICE)
        await room.member(BOB, BOB, "join")
        tokens = {user: (await self.sync(user))[1] for user in (ALICE, BOB)}
        bob = await self.world.session(BOB)
        target = room.sent[-1].event.event_id
        self.world.supply.receipts_by_room[room.nid] = [
            Receipt(1, target, "m.read", UserID(BOB), None, NOW),
            Receipt(2, target, "m.read.private", UserID(BOB), "main", NOW),
        ]
        await self.world.commit([NewEntry(Kind.RECEIPT, 0, room.nid, bob.user_nid, ref) for ref in (1, 2)])
        seen = {}
        for user, token in tokens.items():
            answer, _ = await self.sync(user, token)
            content = answer["rooms"]["join"][room.room_id]["ephemeral"]["events"][0]["content"][target]
            seen[user] = sorted(content)
        self.assertEqual(seen, {ALICE: ["m.read"], BOB: ["m.read", "m.read.private"]})

    async def test_delivery_is_told_to_the_sender_alone(self) -> None:
        """A mark that moved is told to whom its entry is for, from the ring and from the database."""
        room = await self.world.room(ALICE)
        await room.member(BOB, BOB, "join")
        tokens = {user: (await self.sync(user))[1] for user in (ALICE, BOB)}
        alice = await self.world.session(ALICE)
        target = room.sent[-1].event.event_id
        self.world.supply.receipts_by_room[room.nid] = [Receipt(7, target, "", UserID(BOB), None, NOW)]
        await self.world.commit([NewEntry(Kind.DELIVERED, 0, room.nid, alice.user_nid, 7)])
        for ring in (True, False):
            self.feed.use_ring = ring
            answer, _ = await self.sync(ALICE, tokens[ALICE])
            events = answer["rooms"]["join"][room.room_id]["ephemeral"]["events"]
            self.assertEqual(
                events, [{"type": "org.plait.delivered", "content": {target: {BOB: {"ts": NOW}}}}]
            )
            self.assertNotIn("rooms", (await self.sync(BOB, tokens[BOB]))[0])
            nothing = {"room": {"ephemeral": {"not_types": ["org.plait.*"]}}}
            answer, _ = await self.sync(ALICE, tokens[ALICE], filter=nothing)
            self.assertNotIn("org.plait", str(answer))

    async def test_typing_is_told_when_it_changes(self) -> None:
        """Typing is told when it changed; a token of another ring gets what holds now."""
        room = await self.world.room(ALICE)
        _, token = await self.sync(ALICE)
        supply = self.world.supply
        supply.position, supply.typing_rooms[room.nid] = 3, (3, (UserID(BOB),))
        answer, token = await self.sync(ALICE, token)
        event = answer["rooms"]["join"][room.room_id]["ephemeral"]["events"][0]
        self.assertEqual(event, {"type": "m.typing", "content": {"user_ids": [BOB]}})
        answer, token = await self.sync(ALICE, token)
        self.assertNotIn("rooms", answer)
        supply.ring, supply.position = "r2", 0
        answer, _ = await self.sync(ALICE, token)
        self.assertIn("rooms", answer)

    async def test_to_device_messages_come_in_hundreds_and_go_when_acknowledged(self) -> None:
        """At most 100 messages an answer, in order; they go when the token that has them comes back."""
        alice = await self.world.session(ALICE)
        key = (alice.user_nid, alice.device_id)
        self.world.supply.messages[key] = [(n, b'{"n":%d}' % n) for n in range(1, 151)]
        answer, token = await self.sync(ALICE)
        self.assertEqual([e["n"] for e in answer["to_device"]["events"]], list(range(1, 101)))
        repeated, _ = await self.sync(ALICE)
        self.assertEqual(repeated["to_device"], answer["to_device"])
        answer, token = await self.sync(ALICE, token)
        self.assertEqual([e["n"] for e in answer["to_device"]["events"]], list(range(101, 151)))
        self.assertEqual(len(self.world.supply.messages[key]), 50)
        answer, _ = await self.sync(ALICE, token)
        self.assertNotIn("to_device", answer)
        self.assertEqual(self.world.supply.messages[key], [])

    async def test_account_data_is_told_when_it_changes(self) -> None:
        """Account data comes whole at first, then what changed, by room and global."""
        room = await self.world.room(ALICE)
        alice = await self.world.session(ALICE)
        self.world.supply.data[alice.user_nid] = [
            (1, AccountDatum(None, "m.direct", b"{}")),
            (2, AccountDatum(room.nid, "m.tag", b'{"tags":{}}')),
        ]
        answer, token = await self.sync(ALICE)
        self.assertEqual([e["type"] for e in answer["account_data"]["events"]], ["m.direct"])
        tags = answer["rooms"]["join"][room.room_id]["account_data"]["events"]
        self.assertEqual([e["type"] for e in tags], ["m.tag"])
        await self.world.commit([NewEntry(Kind.ACCOUNT_DATA, 0, room.nid, alice.user_nid, 2)])
        answer, _ = await self.sync(ALICE, token)
        self.assertNotIn("account_data", answer)
        self.assertIn(room.room_id, answer["rooms"]["join"])

    async def test_device_lists_name_who_shares_a_room(self) -> None:
        """Changed are those who share a room, left those who share none any more."""
        room = await self.world.room(ALICE)
        await room.member(BOB, BOB, "join")
        _, token = await self.sync(ALICE)
        bob, carol = await self.world.session(BOB), await self.world.session(CAROL)
        await self.world.commit(
            [NewEntry(Kind.DEVICE_LIST, user_nid=nid) for nid in (bob.user_nid, carol.user_nid)]
        )
        answer, token = await self.sync(ALICE, token)
        self.assertEqual(answer["device_lists"], {"changed": [BOB], "left": []})
        await room.member(CAROL, CAROL, "join")
        await room.member(BOB, BOB, "leave")
        answer, token = await self.sync(ALICE, token)
        self.assertEqual(answer["device_lists"], {"changed": [CAROL], "left": [BOB]})
        await room.member(ALICE, ALICE, "leave")
        answer, _ = await self.sync(ALICE, token)
        self.assertEqual(answer["device_lists"], {"changed": [], "left": [CAROL]})

    async def test_device_lists_alone(self) -> None:
        """Without the rest of a delta the same is told, over any stretch, and nothing as empty lists."""
        room = await self.world.room(ALICE)
        await room.member(BOB, BOB, "join")
        _, start = await self.sync(ALICE)
        alice, bob = await self.world.session(ALICE), await self.world.session(BOB)

        async def lists(since: SyncToken) -> Any:
            return json.loads(await self.feed.device_lists(alice, since, now=NOW))

        self.assertEqual(await lists(start), {"changed": [], "left": []})
        await self.world.commit([NewEntry(Kind.DEVICE_LIST, user_nid=bob.user_nid)])
        await room.member(CAROL, CAROL, "join")
        await room.say(ALICE, "x")
        for ring in (True, False):
            self.feed.use_ring = ring
            self.assertEqual(await lists(start), {"changed": [BOB, CAROL], "left": []})
        _, end = await self.sync(ALICE, start)
        self.assertEqual(await lists(end), {"changed": [], "left": []})
        with self.assertRaises(UnknownPos):
            await lists(evolve(end, pos=end.pos + 1))

    async def test_tokens_of_another_epoch_or_the_future_are_refused(self) -> None:
        """A token of another epoch, or beyond the feed, is refused (security: D9)."""
        _, token = await self.sync(ALICE)
        for wrong in (token.moved(token.pos + 1), type(token)(2, 0, 0, token.place)):
            with self.assertRaises(UnknownPos):
                await self.sync(ALICE, wrong)

    async def test_other_shapes_of_events(self) -> None:
        """`event_fields` keeps the fields named; `event_format: federation` gives the PDU."""
        room = await self.world.room(ALICE)
        said = await room.say(ALICE, "x")
        fields = {"event_fields": ["content.body"], "room": {"timeline": {"limit": 1}}}
        answer, _ = await self.sync(ALICE, filter=fields)
        event = answer["rooms"]["join"][room.room_id]["timeline"]["events"][0]
        self.assertEqual(
            event,
            {"event_id": said.event.event_id, "type": "m.room.message", "content": {"body": "x"}},
        )
        answer, _ = await self.sync(ALICE, filter={"event_format": "federation"})
        event = answer["rooms"]["join"][room.room_id]["timeline"]["events"][-1]
        self.assertIn("signatures", event)
        self.assertEqual(EventID(said.event.event_id)[0], "$")
