"""Readers of one live event, each set apart by something, are told what the database says."""

from __future__ import annotations

import gc
from typing import Any

from homeserver.sync.filters import DEFAULT_FILTER, compile_filter
from homeserver.sync.room_part import RoomPart
from homeserver.sync.session import Options
from homeserver.sync.suppliers import Receipt, UnreadCount
from protocol.identifiers import UserID
from storage.feed import Kind, NewEntry
from tests.homeserver.sync.feed_case import ALICE, BOB, FeedCase
from tests.homeserver.sync.world import NOW, Room

READERS = tuple(f"@r{n}:here.example" for n in range(4))
FILTERS = (
    DEFAULT_FILTER,
    compile_filter('{"room":{"timeline":{"limit":1}}}'),
    compile_filter('{"room":{"timeline":{"types":["m.room.name"]}}}'),
    compile_filter('{"room":{"state":{"lazy_load_members":true}}}'),
    compile_filter('{"room":{"rooms":["!none:here.example"]}}'),
)


class LiveTests(FeedCase):
    """Live deltas, beside those read from the database."""

    async def setUp(self) -> None:
        """Make a room of many readers, each of whom has synced."""
        await super().setUp()
        self.slow = self.world.session_feed()
        self.slow.use_ring = False
        self.room: Room = await self.world.room(ALICE)
        self.users = (ALICE, BOB, *READERS)
        for user in self.users[1:]:
            await self.room.member(user, user, "join")
        self.tokens: dict[tuple[str, int], Any] = {}
        await self.sync_all()

    async def sync_all(self) -> None:
        """Let every reader have all there is, under every filter."""
        for number, wanted in enumerate(FILTERS):
            for user in self.users:
                session = await self.world.session(user)
                for feed in (self.feed, self.slow):
                    first = await feed.delta(session, None, Options(wanted), now=self.world.now)
                self.tokens[user, number] = first.next_batch

    async def compare(self) -> None:
        """See that all readers are told the same over both paths, under every filter, twice."""
        for number, wanted in enumerate(FILTERS):
            for user in (*self.users, *self.users):
                session, since = await self.world.session(user), self.tokens[user, number]
                fast, slow = [
                    await feed.delta(session, since, Options(wanted), now=self.world.now, keep_messages=True)
                    for feed in (self.feed, self.slow)
                ]
                self.assertEqual(fast.to_json(), slow.to_json(), (user, number))
                self.assertEqual(fast.is_empty, slow.is_empty)

    async def test_nothing_new(self) -> None:
        """A delta of nothing is the same over both paths, what waits for a device included."""
        bob = await self.world.session(BOB)
        self.world.supply.messages[bob.user_nid, bob.device_id] = [(1, b'{"type":"x"}')]
        await self.compare()

    async def test_counts_differ_by_reader(self) -> None:
        """Each reader of the same event has their own counts, also those by thread."""
        await self.room.say(ALICE, "hello")
        counts = (UnreadCount(1), UnreadCount(1), UnreadCount(2, 1), UnreadCount(1, 0, {"$t": (3, 1)}))
        for reader, count in zip(READERS, counts, strict=True):
            nid = (await self.world.session(reader)).user_nid
            self.world.supply.counts_by[nid, self.room.nid] = count
        await self.compare()

    async def test_what_was_made_for_readers_goes_with_the_next_event(self) -> None:
        """Of what readers with different counts were told of an event, nothing stays after the next."""
        for count, reader in enumerate(READERS, 1):
            nid = (await self.world.session(reader)).user_nid
            self.world.supply.counts_by[nid, self.room.nid] = UnreadCount(count)
        for text in ("passing words", "later words"):
            await self.room.say(ALICE, text)
            await self.compare()
            await self.sync_all()
        gc.collect()
        kept = [part for part in gc.get_objects() if type(part) is RoomPart and b"passing words" in part.body]
        self.assertEqual([part.body for part in kept], [])

    async def test_ignored_senders_stay_silent(self) -> None:
        """A reader who ignores the sender is told nothing of what all others share."""
        nid = (await self.world.session(READERS[0])).user_nid
        await self.compare()
        self.world.supply.ignored_by[nid] = frozenset({UserID(BOB)})
        await self.room.say(BOB, "buy")
        await self.compare()
        session = await self.world.session(READERS[0])
        delta = await self.feed.delta(session, self.tokens[READERS[0], 0], now=self.world.now)
        self.assertNotIn(b"buy", delta.to_json())

    async def test_other_news_come_with_the_event(self) -> None:
        """Receipts, changed devices and forks among the events are told to all whom they concern."""
        said = await self.room.say(ALICE, "hello")
        await self.compare()
        bob = (await self.world.session(BOB)).user_nid
        receipt = Receipt(7, said.event.event_id, "m.read", UserID(BOB), None, NOW)
        self.world.supply.receipts_by_room[self.room.nid] = [receipt]
        await self.world.commit([NewEntry(Kind.RECEIPT, 0, self.room.nid, bob, 7)])
        await self.room.say(ALICE, "you have seen it")
        await self.compare()
        await self.sync_all()
        await self.world.commit([NewEntry(Kind.DEVICE_LIST, user_nid=bob)])
        await self.compare()
        await self.sync_all()
        await self.room.send(ALICE, "m.room.message", {"body": "fork"}, fork=True)
        await self.compare()
        await self.sync_all()
        await self.room.send(ALICE, "m.room.member", {"body": "no member event"})
        await self.compare()

    async def test_the_sender_learns_the_transaction_after_the_rest(self) -> None:
        """The sending device is told its transaction ID, though others were told the event before."""
        token, sender = self.tokens[ALICE, 0], await self.world.session(ALICE)
        await self.room.send(ALICE, "m.room.message", {"body": "x"}, txn=(sender, "t1"))
        for user in (BOB, ALICE):
            delta = await self.feed.delta(await self.world.session(user), token, now=self.world.now)
            self.assertEqual(b'"transaction_id":"t1"' in delta.to_json(), user == ALICE)

    async def test_those_who_left_hear_no_more(self) -> None:
        """A reader who left before, after or amid the events is told up to then."""
        await self.room.member(READERS[0], READERS[0], "leave")
        await self.room.say(ALICE, "one")
        await self.room.member(READERS[1], READERS[1], "leave")
        await self.room.say(ALICE, "two")
        await self.room.member(READERS[2], READERS[2], "leave")
        await self.compare()
        await self.sync_all()
        await self.room.say(ALICE, "three")
        await self.compare()

    async def test_several_rooms_and_more_events_than_fit(self) -> None:
        """Timelines that are cut, state events, and rooms that only some readers share, are the same."""
        other = await self.world.room(BOB)
        await other.member(READERS[0], READERS[0], "join")
        for number in range(12):
            await self.room.say(ALICE, f"m{number}")
            await other.say(BOB, f"n{number}")
            if number in (1, 7, 11):
                await self.compare()
        await self.room.send(ALICE, "m.room.name", {"name": "news"}, "")
        await self.compare()

    async def test_a_redaction_reaches_those_who_come_later(self) -> None:
        """Who comes after a redaction is told the event without its content."""
        said = await self.room.say(ALICE, "secret")
        await self.compare()
        await self.room.redact(ALICE, said)
        await self.compare()

    async def test_typing_is_told_beside_the_event(self) -> None:
        """Who types is told together with an event that others were told alone."""
        await self.room.say(ALICE, "hello")
        await self.compare()
        self.world.supply.position = 1
        self.world.supply.typing_rooms[self.room.nid] = (1, (UserID(BOB),))
        await self.compare()
