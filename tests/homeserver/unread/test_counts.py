"""Tests of unread counts: taken from the database, moved by the feed, told by sync."""

from __future__ import annotations

import random
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.threads import blockingCallFromThread
from twisted.trial.unittest import TestCase

from homeserver.unread.counts import UnreadCounter
from homeserver.unread.evaluation import UnreadVerdicts
from homeserver.unread.rules import Facts, MaskCache
from protocol.identifiers import EventID, UserID
from protocol.unread import BY_DEFAULT, HIGHLIGHT, SILENT, Judged, Verdict, classify, mentioned
from storage import feed
from storage.database import IntegrityError, Transaction
from storage.engines import open_database
from storage.feed import Entry, Flag, Kind, NewEntry
from storage.memberships import PUT_MEMBERSHIP, Membership
from storage.receipts import ReceiptRow, receipt_rows
from storage.rows import run_all
from tests.homeserver.sync.world import NOW, SERVER, World
from tests.storage.helpers import REACTOR, LateDatabase, postgres_server

ALICE, BOB, DAVE = "@alice:here.example", "@bob:here.example", "@dave:here.example"
ERIN, FAR = "@erin:here.example", "@far:there.example"
LOOKS = 1_000
"""At the database, until work in the background has ended."""


@frozen
class MentionsAndCake:
    """Rules that notify of mentions and of the word cake alone."""

    key: Hashable = "cake"

    def verdict(self, event: Judged, facts: Facts) -> Verdict:
        """Judge an event."""
        if facts.reader in mentioned(event):
            return HIGHLIGHT
        return Verdict("cake" in str(event.content.get("body")))


class Rules:
    """Dave's rules."""

    def __init__(self) -> None:
        """Start with the default ones."""
        self.custom: dict[str, Any] = {}

    def of(self, tx: Transaction, users: Mapping[int, UserID]) -> Mapping[int, Any]:
        """Give rules that are not the default ones."""
        return {nid: self.custom[user] for nid, user in users.items() if user in self.custom}


class CountTests(TestCase):
    """Counts on SQLite."""

    async def open(self) -> Any:
        """Open a fresh database."""
        return await open_database(f"sqlite:///{self.mktemp()}", REACTOR)

    async def setUp(self) -> None:
        """Make a room of three, with counts in memory."""
        self.database = await self.open()
        self.addCleanup(self.database.close)
        self.world = world = await World.open(self.database)
        self.rules = Rules()
        self.verdicts = UnreadVerdicts(self.rules, MaskCache(), SERVER)
        self.counter = UnreadCounter(self.database, self.verdicts)
        world.more_rows = self.verdicts.rows
        world.feed.add_cache(self.verdicts.apply)
        world.feed.add_cache(self.counter.apply)
        self.room = await world.room(ALICE)
        for user in (BOB, DAVE):
            await self.room.member(user, user, "join")
        self.ref = 0
        self.ignored: dict[str, frozenset[UserID]] = {}

    async def counts(self, user: str) -> tuple[int, int, dict[str, tuple[int, int]]]:
        """Give a user's counts from memory, which must be what a new reading gives."""
        session = await self.world.session(user)
        ignored = self.ignored.get(user, frozenset())
        found = (await self.counter.of(session, [self.room.nid], ignored))[self.room.nid]
        fresh = UnreadCounter(self.database, self.verdicts)
        again = (await fresh.of(session, [self.room.nid], ignored))[self.room.nid]
        self.assertEqual(found, again, user)
        return found.notifications, found.highlights, dict(found.threads)

    async def read(self, user: str, event_id: EventID, thread: str = "", kind: str = "m.read") -> None:
        """Set a receipt."""
        nid = await self.world.nids.user(UserID(user))
        self.ref += 1
        row = ReceiptRow(self.room.nid, nid, kind, thread, self.ref, event_id, NOW)
        entry = NewEntry(Kind.RECEIPT, 0, self.room.nid, nid, self.ref)
        await self.world.commit([entry], lambda tx: run_all(tx, [receipt_rows(row)]))

    async def test_messages_count_until_read_or_answered(self) -> None:
        """Messages count for all but their sender, until a receipt or an own message."""
        self.assertEqual(await self.counts(BOB), (0, 0, {}))
        said = [await self.room.say(ALICE, str(n)) for n in range(3)]
        await self.room.send(ALICE, "m.reaction", {})
        await self.room.say(ALICE, "edit", **{"m.relates_to": {"rel_type": "m.replace", "event_id": "$x"}})
        await self.room.send(ALICE, "m.room.message", {"msgtype": "m.notice", "body": "x"})
        self.assertEqual(await self.counts(BOB), (3, 0, {}))
        self.assertEqual(await self.counts(ALICE), (0, 0, {}))
        await self.read(BOB, said[1].event.event_id)
        self.assertEqual(await self.counts(BOB), (1, 0, {}))
        await self.read(BOB, said[2].event.event_id, kind="m.read.private")
        self.assertEqual(await self.counts(BOB), (0, 0, {}))
        await self.room.say(BOB, "answer")
        self.assertEqual(await self.counts(BOB), (0, 0, {}))
        self.assertEqual((await self.counts(DAVE))[0], 4)

    async def test_mentions_highlight_for_those_mentioned(self) -> None:
        """A mention highlights for the user alone; one of the room for all, if the sender may."""
        await self.counts(BOB)
        await self.room.say(ALICE, "x", **{"m.mentions": {"user_ids": [BOB, 5]}})
        self.assertEqual(await self.counts(BOB), (1, 1, {}))
        self.assertEqual(await self.counts(DAVE), (1, 0, {}))
        await self.room.say(ALICE, "x", **{"m.mentions": {"room": True}})
        self.assertEqual(await self.counts(DAVE), (2, 1, {}))
        await self.room.say(BOB, "x", **{"m.mentions": {"room": True}})
        self.assertEqual(await self.counts(DAVE), (3, 1, {}))
        rows = await self.database.read(lambda tx: tx.all("SELECT count(*) FROM unread_verdicts"))
        self.assertEqual(rows[0][0], 1, "a row for the one exception, none for the room")

    async def test_what_is_read_before_the_feed_tells_of_it_counts_once(self) -> None:
        """An event that stands in the database, but of which the feed tells only later, counts once."""
        deliver = self.world.feed.deliver

        async def late(entries: Sequence[Entry], began: int) -> None:
            self.assertEqual(await self.counts(BOB), (1, 0, {}))
            await deliver(entries, began)

        self.world.feed.deliver = late  # type: ignore[method-assign]
        await self.room.say(ALICE, "x")
        self.assertEqual(await self.counts(BOB), (1, 0, {}))
        self.world.feed.deliver = deliver  # type: ignore[method-assign]
        await self.room.say(ALICE, "y")
        self.assertEqual(await self.counts(BOB), (2, 0, {}))

    async def test_rules_that_change_while_a_first_count_is_read_hold(self) -> None:
        """A count read by rules that are no longer the user's is not kept, even if none is in memory."""
        session = await self.world.session(BOB)

        async def mute() -> None:
            self.rules.custom[BOB] = MentionsAndCake()
            await self.world.commit([NewEntry(Kind.ACCOUNT_DATA, user_nid=session.user_nid)])

        database: Any = LateDatabase(self.database, mute)
        counter = UnreadCounter(database, self.verdicts)
        self.world.feed.add_cache(counter.apply)
        await counter.of(session, [self.room.nid])
        await self.room.say(ALICE, "no news")
        self.assertEqual((await counter.of(session, [self.room.nid]))[self.room.nid].notifications, 0)

    async def test_an_audience_of_an_older_snapshot_is_not_kept(self) -> None:
        """Members read in a transaction that began before a join are not kept."""
        verdicts = UnreadVerdicts(self.rules, MaskCache(), SERVER)
        self.world.feed.add_cache(verdicts.apply)

        def join() -> Deferred[Any]:
            return Deferred.fromCoroutine(self.room.member(ERIN, ERIN, "join"))

        def late(tx: Transaction) -> None:
            feed.tail(tx)
            blockingCallFromThread(REACTOR, join)
            self.assertNotIn(ERIN, verdicts.audience(tx, self.room.nid).users)

        await self.database.read(late)
        audience = await self.database.read(verdicts.audience, self.room.nid)
        self.assertIn(ERIN, audience.users)

    async def test_ignored_users_count_nothing(self) -> None:
        """What ignored users say, mentions too, counts no more, nor what they said before."""
        await self.room.say(ALICE, "before")
        self.assertEqual(await self.counts(BOB), (1, 0, {}))
        self.ignored[BOB] = frozenset({UserID(ALICE), UserID("@nobody:else.example")})
        self.assertEqual(await self.counts(BOB), (0, 0, {}))
        await self.room.say(ALICE, "x")
        await self.room.say(ALICE, "x", **{"m.mentions": {"user_ids": [BOB]}})
        await self.room.send(ALICE, "m.poll", {"m.mentions": {"user_ids": [BOB]}})
        self.assertEqual(await self.counts(BOB), (0, 0, {}))
        await self.room.say(DAVE, "y")
        self.assertEqual(await self.counts(BOB), (1, 0, {}))
        del self.ignored[BOB]
        self.assertEqual(await self.counts(BOB), (5, 2, {}))

    async def test_own_rules_make_masks_and_exceptions(self) -> None:
        """Rules that mute are a mask; what they except from it is a row."""
        self.rules.custom[DAVE] = MentionsAndCake()
        dave = await self.world.session(DAVE)
        await self.world.commit([NewEntry(Kind.ACCOUNT_DATA, 0, None, dave.user_nid, 1)])
        await self.counts(DAVE)
        for body in ("tea", "cake", "milk"):
            await self.room.say(ALICE, body)
        await self.room.say(ALICE, "x", **{"m.mentions": {"user_ids": [DAVE]}})
        self.assertEqual(await self.counts(DAVE), (2, 1, {}))
        self.assertEqual(await self.counts(BOB), (4, 0, {}))
        await self.read(DAVE, self.room.sent[-1].event.event_id)
        self.assertEqual(await self.counts(DAVE), (0, 0, {}))
        for _ in range(LOOKS):  # it is dropped in the background, by another connection on PostgreSQL
            rows = await self.database.read(lambda tx: tx.all("SELECT count(*) FROM unread_verdicts"))
            if rows[0][0] == 0:
                break
        self.assertEqual(rows[0][0], 0, "what was read is dropped")

    async def test_whoever_joins_later_is_judged_by_their_own_rules(self) -> None:
        """The audience in memory follows joins and leaves: it is what a new reading gives."""
        self.rules.custom[ERIN] = MentionsAndCake()
        await self.room.say(ALICE, "before")
        await self.room.member(ERIN, ERIN, "join")
        self.assertEqual(await self.audience_size(), 4)
        await self.room.member(FAR, FAR, "join")
        await self.audience_size()
        await self.counts(ERIN)
        await self.room.say(ALICE, "tea")
        await self.room.say(ALICE, "cake", **{"m.mentions": {"user_ids": [BOB]}})
        self.assertEqual(await self.counts(ERIN), (1, 0, {}))
        self.assertEqual((await self.counts(BOB))[1], 1)
        for user in (ERIN, FAR, BOB):
            await self.room.member(user, user, "leave")
            await self.audience_size()

    async def test_whoever_joins_and_is_mentioned_in_one_commit_is_told(self) -> None:
        """A mention counts for whose join is in the same commit, and the audience is right after it."""
        self.rules.custom[ERIN] = MentionsAndCake()
        for user in (FAR, ERIN):
            await self.room.say(ALICE, "so that the audience is in memory")
            self.world.held = []
            await self.room.member(user, user, "join")
            await self.room.say(ALICE, "welcome", **{"m.mentions": {"user_ids": [ERIN]}})
            await self.world.release()
            await self.audience_size()
        self.assertEqual(await self.counts(ERIN), (1, 1, {}))

    async def test_a_membership_that_is_not_committed_changes_no_audience(self) -> None:
        """Who could not leave, the transaction having failed, is in the audience as before."""
        dave = (await self.world.session(DAVE)).user_nid
        moves = NewEntry(Kind.EVENT, int(Flag.MEMBERSHIP), self.room.nid, dave, 1, payload=self.room.sent[-1])
        self.verdicts = UnreadVerdicts(self.rules, MaskCache(), SERVER)

        def leave_and_fail(tx: Transaction) -> None:
            PUT_MEMBERSHIP.run(tx, [(self.room.nid, dave, int(Membership.LEAVE), 1, 1)])
            self.verdicts.rows(tx, [moves])
            raise IntegrityError("the database refuses something else of the batch")

        with self.assertRaises(IntegrityError):
            await self.database.write(leave_and_fail)
        await self.audience_size()

    async def audience_size(self) -> int:
        """See that the room's audience in memory is that of the database; give the count of members."""
        fresh = UnreadVerdicts(self.rules, MaskCache(), SERVER)
        known, read = [
            await self.database.read(verdicts.audience, self.room.nid) for verdicts in (self.verdicts, fresh)
        ]
        self.assertEqual(known.users, read.users)
        self.assertEqual({*known.rules} & {*known.users.values()}, {*read.rules})
        return int(known.members)

    async def test_threads_count_apart(self) -> None:
        """Threads have counts and markers of their own."""
        root = await self.room.say(ALICE, "root")
        root_id = root.event.event_id
        link = {"m.relates_to": {"rel_type": "m.thread", "event_id": root_id}}
        replies = [await self.room.say(ALICE, "in", **link) for _ in range(2)]
        self.assertEqual(await self.counts(BOB), (1, 0, {root_id: (2, 0)}))
        await self.read(BOB, root_id, "main")
        self.assertEqual(await self.counts(BOB), (0, 0, {root_id: (2, 0)}))
        await self.read(BOB, replies[0].event.event_id, root_id)
        self.assertEqual(await self.counts(BOB), (0, 0, {root_id: (1, 0)}))
        await self.room.say(BOB, "me too", **link)
        self.assertEqual(await self.counts(BOB), (0, 0, {}))

    async def test_memory_and_database_agree_on_any_course(self) -> None:
        """Counts moved by the feed are those a fresh reading gives, whatever happens."""
        dice = random.Random(5)
        self.rules.custom[DAVE] = MentionsAndCake()
        users = (ALICE, BOB, DAVE)
        self.ignored[DAVE] = frozenset({UserID(BOB)})
        for _ in range(40):
            who = dice.choice(users)
            match dice.randrange(6):
                case 0 | 1 | 2:
                    mentions = (
                        {"m.mentions": {"user_ids": [dice.choice(users)]}} if dice.random() < 0.3 else {}
                    )
                    root = dice.choice(self.room.sent).event.event_id
                    link = {"m.relates_to": {"rel_type": "m.thread", "event_id": root}}
                    more = link if dice.random() < 0.3 else {}
                    await self.room.say(who, dice.choice(("tea", "cake")), **mentions, **more)
                case 3:
                    await self.read(
                        who, dice.choice(self.room.sent).event.event_id, dice.choice(("", "main"))
                    )
                case 4:
                    await self.room.redact(ALICE, dice.choice(self.room.sent[6:] or self.room.sent))
                case _:
                    await self.room.send(who, "m.room.message", {"body": "f"}, fork=True)
            for user in users:
                await self.counts(user)


class PostgresCountTests(CountTests):
    """Counts on PostgreSQL."""

    async def open(self) -> Any:
        """Open a fresh database."""
        server = postgres_server()
        url = server.create_database()
        self.addCleanup(server.drop_database, url)
        return await open_database(url, REACTOR)


class ClassTests(TestCase):
    """Classes of events."""

    def test_the_default_mask_says_what_the_default_rules_say(self) -> None:
        """Every class has a default verdict, and nonsense in an event is of some class."""
        for content in ({}, {"m.relates_to": 5}, {"m.mentions": []}, {"m.mentions": {"user_ids": 5}}):

            @frozen
            class Odd:
                """An odd event."""

                content: Any
                type: str = "m.room.message"
                state_key: str | None = None

            self.assertIn(classify(Odd(content)), BY_DEFAULT)
            self.assertEqual(mentioned(Odd(content)), frozenset())
        self.assertEqual(BY_DEFAULT[0], SILENT)  # type: ignore[index]
