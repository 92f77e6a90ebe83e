"""Tests of the group commit, with writes of no particular meaning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, gatherResults

from homeserver.clock import Clock
from homeserver.events.commit_batch import commit_batch
from homeserver.events.persister import Persister
from homeserver.events.write import Committed, HeadMoved, Poisoned, TransactionRepeated, Write
from homeserver.feed.tail import Feed
from protocol.identifiers import EventID
from storage import feed, heads, transactions
from storage.database import Database, DatabaseGone, IntegrityError, Transaction, UnknownOutcome
from storage.feed import HeadMark, Kind, NewEntry
from storage.feed_writers import Writers
from storage.heads import HeadUpdate
from storage.migrate import migrate
from storage.rows import Rows, Statement
from storage.transactions import Claim, TransactionKey
from tests.storage.helpers import REACTOR, PostgresCase, SqliteCase

ROOT = b"r" * 16
PUT = Statement("INSERT INTO users (user_nid, user_id) VALUES (?, ?)")


class Failing:
    """A database whose commits can be made to fail, before or after the deed."""

    def __init__(self, database: Database) -> None:
        """Pass everything on to `database`."""
        self._database = database
        self.dialect = database.dialect
        self.failures: list[tuple[bool, Exception]] = []
        self.full = False
        """Every COMMIT of a group is lost."""
        self.meanwhile: Callable[[Transaction], object] | None = None
        """What another worker does right after each failure."""

    async def read(self, work: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Read."""
        return await self._database.read(work, *args, **kwargs)

    async def write(self, work: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Write, and fail as told: (whether the transaction happens, what is raised)."""
        if self.full and work is commit_batch:
            self.failures.append((False, UnknownOutcome("disk full")))
        if not self.failures:
            return await self._database.write(work, *args, **kwargs)
        happens, error = self.failures.pop(0)

        def undone(tx: Transaction) -> None:
            work(tx, *args, **kwargs)
            raise error

        if happens:
            await self._database.write(work, *args, **kwargs)
            raise error
        try:
            await self._database.write(undone)
        finally:
            if self.meanwhile is not None:
                await self._database.write(self.meanwhile)

    async def close(self) -> None:
        """Close."""
        await self._database.close()


def room_write(room_nid: int, expected: int | None, ref: int, txn: Claim | None = None, **more: Any) -> Write:
    """Move a room's head from `expected` on by an entry that names `ref`."""
    seq = (expected or 0) + 1
    mark = HeadMark(seq, seq, (ref,))
    entry = NewEntry(Kind.EVENT, 0, room_nid, None, ref, ROOT, mark)
    return Write((), (entry,), HeadUpdate(room_nid, expected, mark, ROOT), txn, **more)


def poison(write: Write) -> Write:
    """Add a row that the database refuses."""
    return Write((Rows(PUT, ((None, None),)),), write.entries, write.head, write.txn)


def claim(device: str = "D", txn: str = "t", event_id: str = "$1", user: int = 1) -> Claim:
    """Claim a transaction ID."""
    return Claim(TransactionKey.of(user, device, ("send", "!r"), txn), 1, 1, 1, event_id)


class PersisterTests:
    """What must hold on every engine."""

    database: Database
    assertEqual: Callable[..., None]
    assertIsInstance: Callable[..., None]

    async def begin(self) -> None:
        """Make the tables and wire one writer."""
        await migrate(self.database)
        self.failing = Failing(self.database)
        self.feed = Feed(self.failing, 1 << 20)
        await self.feed.start()
        self.started: list[Callable[[], None]] = []
        self.persister = Persister(
            self.failing, self.feed, Clock(REACTOR), writers=Writers("one"), gather=self.started.append
        )

    async def commit(self, writes: Sequence[Write]) -> list[Committed | Exception]:
        """Commit writes in one batch and give what each one is told."""
        answers = [self.persister.commit(write) for write in writes]
        self.go()
        return [await outcome(answer) for answer in answers]

    def go(self) -> None:
        """Let the persister take what waits, if it is not at it anyhow."""
        while self.started:
            self.started.pop()()

    async def head_seq(self, room_nid: int) -> int | None:
        """Read a room's counter."""
        found = await self.database.read(heads.get, [room_nid])
        return found[room_nid].mark.seq if room_nid in found else None

    async def refs(self) -> list[int | None]:
        """Give what the feed names, in order."""
        return [entry.ref for entry in await self.database.read(feed.between, 0, 1 << 40, 1000)]

    async def test_one_transaction_for_many_rooms(self) -> None:
        """Writes of many rooms share a commit and get positions without holes, in order."""
        await self.begin()
        calls: list[object] = []
        self.feed.add_cache(calls.append)
        done = await self.commit([room_write(nid, None, 100 + nid) for nid in (3, 1, 2)])
        self.assertEqual([answer.pos for answer in done if isinstance(answer, Committed)], [1, 2, 3])
        self.assertEqual(await self.refs(), [103, 101, 102])
        self.assertEqual(len(calls), 1)
        self.assertEqual(self.feed.position, 3)

    async def test_writes_of_one_room_fold_into_one_head(self) -> None:
        """Consecutive writes of a room are one head update and as many entries."""
        await self.begin()
        await self.commit([room_write(1, None, 10), room_write(1, 1, 11), room_write(1, 2, 12)])
        self.assertEqual(await self.head_seq(1), 3)
        self.assertEqual(await self.refs(), [10, 11, 12])

    async def test_rows_beside_entries(self) -> None:
        """What is written beside entries sees those of the whole batch, once."""
        await self.begin()
        seen: list[list[int | None]] = []

        def note(_tx: Transaction, entries: Sequence[NewEntry]) -> Sequence[Rows]:
            seen.append([entry.ref for entry in entries])
            return ()

        self.persister.write_beside(note)
        await self.commit([room_write(1, None, 10), room_write(2, None, 20)])
        self.assertEqual(seen, [[10, 20]])

    async def test_a_lost_head_leaves_the_batch_whole(self) -> None:
        """A room whose head has moved loses all its writes; the other rooms of the batch are committed."""
        await self.begin()
        await self.commit([room_write(1, None, 10), room_write(2, None, 20)])
        first, second, other = await self.commit(
            [room_write(1, 7, 11, claim()), room_write(1, 8, 12), room_write(2, 1, 21)]
        )
        self.assertIsInstance(first, HeadMoved)
        self.assertIsInstance(second, HeadMoved)
        self.assertIsInstance(other, Committed)
        self.assertEqual(await self.refs(), [10, 20, 21])
        used = await self.database.read(transactions.find, claim().key)
        self.assertEqual(used, None, "the transaction ID of a write that left is free again")

    async def test_a_repeated_transaction_names_the_first_event(self) -> None:
        """A transaction ID used before names its event, and what was built on the repeat is turned out."""
        await self.begin()
        await self.commit([room_write(1, None, 10, claim(event_id="$first"))])
        repeat, follower = await self.commit(
            [room_write(1, 1, 11, claim(event_id="$second")), room_write(1, 2, 12)]
        )
        assert isinstance(repeat, TransactionRepeated)
        self.assertEqual(repeat.event_id, EventID("$first"))
        self.assertIsInstance(follower, HeadMoved)
        self.assertEqual(await self.refs(), [10])

    async def test_a_transaction_id_twice_in_one_batch(self) -> None:
        """The second of two writes with one transaction ID gives the first one's answer, now and later."""
        await self.begin()
        for number, head in enumerate((None, HeadUpdate(1, None, HeadMark(1, 1, (9,)), ROOT))):
            key = claim(txn=f"t{number}", event_id=f"${number}")
            both = [Write((), (NewEntry(Kind.ACCOUNT_DATA, ref=number),), head, key) for _ in range(2)]
            first, second = await self.commit(both)
            (later,) = await self.commit([Write((), (NewEntry(Kind.ACCOUNT_DATA, ref=9),), None, key)])
            self.assertIsInstance(first, Committed)
            for repeat in (second, later):
                assert isinstance(repeat, TransactionRepeated), repeat
                self.assertEqual(repeat.event_id, EventID(f"${number}"))
        self.assertEqual(await self.refs(), [0, 1])

    async def test_one_transaction_id_of_two_users_is_two(self) -> None:
        """The same transaction ID of two users or devices stands for two events (security: C16)."""
        await self.begin()
        done = await self.commit(
            [
                room_write(1, None, 10, claim(user=1)),
                room_write(2, None, 20, claim(user=2)),
                room_write(3, None, 30, claim(user=1, device="other")),
            ]
        )
        self.assertEqual([type(answer) for answer in done], [Committed] * 3)

    async def test_a_poison_row_harms_only_its_room(self) -> None:
        """A row the database refuses fails its own write; all other rooms are committed (security: F2)."""
        await self.begin()
        rooms = range(1, 51)
        writes = [room_write(nid, None, nid) for nid in rooms]
        writes[24] = poison(writes[24])
        done = await self.commit(writes)
        self.assertIsInstance(done[24], Poisoned)
        self.assertEqual(sum(isinstance(answer, Committed) for answer in done), 49)
        self.assertEqual(sorted(await self.refs()), [nid for nid in rooms if nid != 25])
        self.assertEqual(await self.head_seq(25), None)

    async def test_what_follows_a_poison_row_in_its_room_is_built_anew(self) -> None:
        """Before the poison in one room is committed, after it is turned out to be built anew."""
        await self.begin()
        before, bad, after = await self.commit(
            [room_write(1, None, 10), poison(room_write(1, 1, 11)), room_write(1, 2, 12)]
        )
        self.assertIsInstance(before, Committed)
        self.assertIsInstance(bad, Poisoned)
        self.assertIsInstance(after, HeadMoved)
        self.assertEqual(await self.head_seq(1), 1)

    async def test_what_follows_a_poison_row_is_not_tried(self) -> None:
        """It was built on what is not there, also where another worker has moved the counter to fit."""
        await self.begin()
        await self.commit([room_write(1, None, 10)])
        theirs = HeadUpdate(1, 1, HeadMark(2, 2, (77,)), ROOT)
        self.failing.failures = [(False, IntegrityError("poison"))] * 2
        self.failing.meanwhile = lambda tx: heads.compare_and_set(tx, [theirs])
        bad, after = await self.commit([room_write(1, 1, 11), room_write(1, 2, 12)])
        self.assertIsInstance(bad, Poisoned)
        self.assertIsInstance(after, HeadMoved)
        self.assertEqual(await self.refs(), [10])

    async def test_failures_are_told_first(self) -> None:
        """Who hears of a success knows what has failed beside it; failures are told in their order."""
        await self.begin()
        told: list[str] = []

        def begun(name: str, write: Write) -> Deferred[None]:
            return self.persister.commit(write).addBoth(lambda _answer: told.append(name))

        answers = [begun("stays", room_write(1, None, 10)), begun("fails", room_write(1, 7, 11))]
        self.go()
        answers.append(begun("waits", room_write(1, 8, 12)))
        await gatherResults(answers)
        self.assertEqual(told, ["fails", "waits", "stays"])
        told.clear()
        answers = [
            begun("stays", room_write(2, None, 20)),
            begun("poison", poison(room_write(2, 1, 21))),
            begun("follows", room_write(2, 2, 22)),
        ]
        self.go()
        answers.append(begun("waits", room_write(2, 3, 23)))
        await gatherResults(answers)
        self.assertEqual(told, ["poison", "follows", "waits", "stays"])

    async def test_a_waiting_write_is_turned_out_with_what_it_was_built_on(self) -> None:
        """A write that waits for the next batch falls with the one before it, even if the counter fits."""
        await self.begin()
        await self.commit([room_write(1, None, 10)])
        lost = self.persister.commit(room_write(1, 5, 11))
        self.go()
        follower = self.persister.commit(room_write(1, 1, 12))
        self.assertIsInstance(await outcome(lost), HeadMoved)
        self.assertIsInstance(await outcome(follower), HeadMoved)
        self.assertEqual(await self.refs(), [10])

    async def test_a_database_that_is_gone_is_told(self) -> None:
        """A batch that cannot reach the database fails, and so does what waits on it; then all goes on."""
        await self.begin()
        self.failing.failures = [(False, DatabaseGone("away"))]
        gone, follower = await self.commit([room_write(1, None, 10), room_write(1, 1, 11)])
        self.assertIsInstance(gone, DatabaseGone)
        self.assertIsInstance(follower, DatabaseGone)
        (again,) = await self.commit([room_write(1, None, 12)])
        self.assertIsInstance(again, Committed)


async def outcome(answer: Deferred[Committed]) -> Committed | Exception:
    """Give the answer or the failure."""
    try:
        return await answer
    except Exception as error:
        return error


class SqlitePersisterTests(PersisterTests, SqliteCase):
    """On SQLite."""


class PostgresPersisterTests(PersisterTests, PostgresCase):
    """On PostgreSQL, where nobody may hear what became of a COMMIT."""

    async def test_a_cut_commit_that_happened_is_not_repeated(self) -> None:
        """When the connection breaks at COMMIT and the batch is there, it is answered and not doubled."""
        await self.begin()
        self.failing.failures = [(True, UnknownOutcome("cut")), (False, DatabaseGone("still away"))]
        (done,) = await self.commit([room_write(1, None, 10, claim())])
        self.assertIsInstance(done, Committed)
        self.assertEqual(await self.refs(), [10])
        self.assertEqual(self.feed.position, 1)

    async def test_a_cut_commit_that_did_not_happen_is_repeated(self) -> None:
        """When the connection breaks at COMMIT and the batch is not there, it is committed again."""
        await self.begin()
        self.failing.failures = [(False, UnknownOutcome("cut"))]
        (done,) = await self.commit([room_write(1, None, 10, claim())])
        self.assertIsInstance(done, Committed)
        self.assertEqual(await self.refs(), [10])
        self.assertEqual(await self.head_seq(1), 1)

    async def test_commits_that_never_come_through_are_told(self) -> None:
        """When each COMMIT is lost, callers are not left waiting."""
        await self.begin()
        self.failing.full = True
        lost = self.persister.commit(room_write(1, None, 10, claim()))
        self.go()
        self.assertIsInstance(await outcome(lost), DatabaseGone)
        self.failing.full = False
        (again,) = await self.commit([room_write(1, None, 11, claim())])
        self.assertIsInstance(again, Committed)
        self.assertEqual(await self.refs(), [11])

    async def test_a_twin_is_not_taken_for_what_was_cut(self) -> None:
        """What another worker has written alike, in the place of a COMMIT that did not happen, is not it."""
        await self.begin()
        entry = NewEntry(Kind.PROFILE, user_nid=7)
        self.failing.failures = [(False, UnknownOutcome("cut"))]
        self.failing.meanwhile = lambda tx: feed.append(tx, [entry], "two")
        (done,) = await self.commit([Write((), (entry,))])
        assert isinstance(done, Committed)
        self.assertEqual(done.pos, 2)
        self.assertEqual(await self.refs(), [None, None])

    async def test_a_server_that_took_over_is_believed_by_its_rows(self) -> None:
        """A transaction that the server has not heard of is judged by its rows, and so is a committed one."""
        await self.begin()
        entry = NewEntry(Kind.PROFILE, user_nid=7)
        own = await self.database.write(feed.append, [entry], "one")
        for place, rows, answer in (
            (own, [entry], True),
            (own._replace(transaction=str(1 << 60)), [NewEntry(Kind.PROFILE, user_nid=8)], False),
            (own, [NewEntry(Kind.PROFILE, user_nid=8)], False),
        ):
            self.assertEqual(await self.database.write(feed.is_committed, place, rows), answer)
