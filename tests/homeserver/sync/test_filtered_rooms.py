"""Tests of filters that name rooms, or leave something out, in parts of a sync."""

from __future__ import annotations

from typing import Any

from homeserver.sync.suppliers import AccountDatum, Receipt
from protocol.identifiers import EventID, UserID
from storage.feed import Kind, NewEntry
from tests.homeserver.sync.feed_case import ALICE, BOB, FeedCase, timeline
from tests.homeserver.sync.world import NOW, Room


class FilteredRoomTests(FeedCase):
    """Two rooms, one of which a part of the filter leaves out."""

    async def setUp(self) -> None:
        """Make the rooms."""
        await super().setUp()
        self.one, self.other = await self.world.room(ALICE), await self.world.room(ALICE)

    async def rooms(self, part: str, since: Any = None, **more: Any) -> tuple[Any, Any]:
        """Sync with a part of the filter that leaves the one room out; give it and the other."""
        left_out = {"room": {part: {"not_rooms": [self.one.room_id], **more}}}
        answer, _ = await self.sync(ALICE, since, filter=left_out)
        joined = answer.get("rooms", {}).get("join", {})
        named = {"room": {part: {"rooms": [self.other.room_id], **more}}}
        again, _ = await self.sync(ALICE, since, filter=named)
        self.assertEqual(again.get("rooms", {}).get("join", {}), joined)
        return joined.get(self.one.room_id), joined.get(self.other.room_id)

    async def test_timeline(self) -> None:
        """A timeline of a room that is left out is empty, and its state is told beside it."""
        one, other = await self.rooms("timeline")
        self.assertEqual((len(timeline(one)), len(one["state"]["events"])), (0, 4))
        self.assertEqual((len(timeline(other)), len(other["state"]["events"])), (4, 0))

    async def test_state(self) -> None:
        """State of a room that is left out is not told, its timeline is."""
        for room in (self.one, self.other):
            for n in range(12):
                await room.say(ALICE, str(n))
        one, other = await self.rooms("state", lazy_load_members=True)
        self.assertEqual((len(timeline(one)), one["state"]["events"]), (10, []))
        self.assertEqual((len(timeline(other)), len(other["state"]["events"])), (10, 4))

    async def test_ephemeral(self) -> None:
        """Receipts and typing of a room that is left out are not told, and are no news."""
        _, token = await self.sync(ALICE)
        for room in (self.one, self.other):
            await self.receipt(room)
            self.world.supply.typing_rooms[room.nid] = (5, (UserID(BOB),))
        self.world.supply.position = 5
        one, other = await self.rooms("ephemeral", token)
        self.assertIsNone(one)
        types = [event["type"] for event in other["ephemeral"]["events"]]
        self.assertEqual(types, ["m.receipt", "m.typing"])
        one, other = await self.rooms("ephemeral", token, not_types=["m.typing", "m.rec*"])
        self.assertIsNone(one or other)

    async def test_account_data(self) -> None:
        """Account data of a room that is left out is not told, and is no news."""
        _, token = await self.sync(ALICE)
        alice = await self.world.session(ALICE)
        rooms = (self.one.nid, self.other.nid)
        self.world.supply.data[alice.user_nid] = [(n, AccountDatum(n, "m.tag", b"{}")) for n in rooms]
        await self.world.commit([NewEntry(Kind.ACCOUNT_DATA, 0, n, alice.user_nid, n) for n in rooms])
        one, other = await self.rooms("account_data", token)
        self.assertIsNone(one)
        self.assertEqual(len(other["account_data"]["events"]), 1)
        one, other = await self.rooms("account_data", token, types=["m.other"])
        self.assertIsNone(one or other)

    async def receipt(self, room: Room) -> None:
        """Let Bob have read a room."""
        bob = await self.world.session(BOB)
        target = EventID(room.sent[-1].event.event_id)
        found = Receipt(room.nid, target, "m.read", UserID(BOB), None, NOW)
        self.world.supply.receipts_by_room[room.nid] = [found]
        await self.world.commit([NewEntry(Kind.RECEIPT, 0, room.nid, bob.user_nid, room.nid)])
