"""One group commit, as it runs on a database thread: few statements for many writes.

In this order, which is also the order of locks: (1) transaction IDs are claimed, and writes that must not be
made after all are taken back; (2) rooms are locked in ascending order by the compare-and-set of their heads;
(3) wide rows are written, each statement once for all writes; (4) the feed's entries get their positions. A
room that loses (1) or (2) leaves the batch whole.
Pure but for the transaction: nothing here touches what the reactor changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set

from attrs import define, evolve, field, frozen

from homeserver.events.write import Build, HeadMoved, TakenBack, TransactionRepeated, Write
from protocol.identifiers import EventID
from storage import feed, heads, transactions
from storage.database import Transaction
from storage.feed import Appended, NewEntry
from storage.heads import HeadRow, HeadUpdate
from storage.rows import Rows, run_all
from storage.transactions import TransactionKey

Outcome = Write | Exception
"""What became of a piece: the write that is in the batch, or why it is not."""

MoreRows = Callable[[Transaction, Sequence[NewEntry]], Sequence[Rows]]
"""Gives rows that go in with entries; called on a database thread when their own rows are written."""


def no_more_rows(_tx: Transaction, _entries: Sequence[NewEntry]) -> Sequence[Rows]:
    """Give none."""
    return ()


@frozen(eq=False)
class Batch:
    """What is to be committed in one transaction; `builds` are for rooms that no write here touches."""

    writes: tuple[Write, ...]
    builds: tuple[tuple[int, Build], ...]
    """(room nid, build)."""
    more_rows: MoreRows = no_more_rows


@frozen(eq=False)
class Result:
    """What became of each piece of a batch, in order."""

    writes: list[Outcome]
    builds: list[list[Outcome]]
    entries: list[NewEntry]
    place: Appended | None
    """Where `entries` were written; None if there are none."""


@define(eq=False)
class Attempt:
    """Where the thread leaves the result before COMMIT, so that it is known if the outcome is not."""

    result: Result | None = field(default=None)


def commit_batch(tx: Transaction, batch: Batch, writer: str | None, attempt: Attempt) -> Result:
    """Write `batch`; raises what the database raises, and then nothing of it is written."""
    outcomes: list[Outcome] = list(batch.writes)
    taken = _claim(tx, batch, outcomes)
    _take_back(tx, batch, outcomes)
    locked = _lock_builds(tx, batch)
    _move_heads(tx, batch, outcomes)
    _answer_twins(batch, outcomes)
    _withdraw(tx, batch, outcomes, taken)
    built = [_run_build(tx, room_nid, build, locked, taken) for room_nid, build in batch.builds]
    kept = [outcome for outcome in outcomes if isinstance(outcome, Write)]
    kept += [outcome for each in built for outcome in each if isinstance(outcome, Write)]
    run_all(tx, (rows for write in kept for rows in write.rows))
    entries = [entry for write in kept for entry in write.entries]
    run_all(tx, batch.more_rows(tx, entries))
    place = feed.append(tx, entries, writer) if entries else None
    attempt.result = Result(outcomes, built, entries, place)
    return attempt.result


def _claim(tx: Transaction, batch: Batch, outcomes: list[Outcome]) -> Set[TransactionKey]:
    """Claim all transaction IDs; writes whose ID is used leave, and so does whatever is built on them."""
    claims = [write.txn for write in batch.writes if write.txn is not None]
    claims += [claim for _, build in batch.builds for claim in build.claims]
    if not claims:
        return frozenset()
    taken = transactions.claim(tx, claims)
    free = set(taken)
    for index, write in enumerate(batch.writes):
        if write.txn is None:
            continue
        if write.txn.key in free:
            free.remove(write.txn.key)
        elif write.txn.key in taken:
            outcomes[index] = HeadMoved()  # unless its twin in this batch stays: `_answer_twins`
        else:
            outcomes[index] = repeated(tx, write.txn.key)
    return taken


def _take_back(tx: Transaction, batch: Batch, outcomes: list[Outcome]) -> None:
    """Turn out the writes that were not to be made if something is so, and it is."""
    for index, write in enumerate(batch.writes):
        if write.unless is not None and isinstance(outcomes[index], Write) and write.unless(tx):
            outcomes[index] = TakenBack()


def repeated(tx: Transaction, key: TransactionKey) -> TransactionRepeated:
    """Say what the first request with this key has led to."""
    used = transactions.find(tx, key)
    known = used is not None and used.event_id is not None
    return TransactionRepeated(EventID(used.event_id) if known else None)  # type: ignore[union-attr, arg-type]


def _lock_builds(tx: Transaction, batch: Batch) -> dict[int, HeadRow]:
    """Lock the rooms of builds, and with them, to keep the order, those of all writes."""
    if not batch.builds:
        return {}
    rooms = {room_nid for room_nid, _ in batch.builds}
    rooms |= {write.head.room_nid for write in batch.writes if write.head is not None}
    return heads.lock(tx, rooms)


def _move_heads(tx: Transaction, batch: Batch, outcomes: list[Outcome]) -> None:
    """Fold the writes of each room into one head, set all heads at once, and turn losers out.

    What follows a write that has left is built on nothing, even if its `head_seq` happens to match.
    """
    folded: dict[int, HeadUpdate] = {}
    broken: set[int] = set()
    for index, write in enumerate(batch.writes):
        head = write.head
        if head is None:
            continue
        earlier = folded.get(head.room_nid)
        stands = isinstance(outcomes[index], Write) and head.room_nid not in broken
        if stands and (earlier is None or earlier.mark.seq == head.expected):
            folded[head.room_nid] = head if earlier is None else evolve(head, expected=earlier.expected)
        else:
            broken.add(head.room_nid)
            outcomes[index] = HeadMoved() if isinstance(outcomes[index], Write) else outcomes[index]
    lost = folded.keys() - (heads.compare_and_set(tx, folded.values()) if folded else set())
    for index, write in enumerate(batch.writes):
        if write.head is not None and write.head.room_nid in lost and isinstance(outcomes[index], Write):
            outcomes[index] = HeadMoved()


def _answer_twins(batch: Batch, outcomes: list[Outcome]) -> None:
    """Answer a write whose transaction ID is that of another in the batch with what the other leads to."""
    kept = {
        write.txn.key: write.txn
        for write, outcome in zip(batch.writes, outcomes, strict=True)
        if write.txn is not None and isinstance(outcome, Write)
    }
    for index, write in enumerate(batch.writes):
        if write.txn is not None and write.txn.key in kept and not isinstance(outcomes[index], Write):
            event_id = kept[write.txn.key].event_id
            outcomes[index] = TransactionRepeated(None if event_id is None else EventID(event_id))


def _withdraw(tx: Transaction, batch: Batch, outcomes: Sequence[Outcome], taken: Set[TransactionKey]) -> None:
    """Give back the transaction IDs of writes that left because their room lost."""
    lost = [
        write.txn.key
        for write, outcome in zip(batch.writes, outcomes, strict=True)
        if write.txn is not None and isinstance(outcome, HeadMoved) and write.txn.key in taken
    ]
    if lost:
        transactions.withdraw(tx, lost)


def _run_build(
    tx: Transaction,
    room_nid: int,
    build: Build,
    locked: dict[int, HeadRow],
    taken: Set[TransactionKey],
) -> list[Outcome]:
    """Build the writes of one locked room, set its head and give back the IDs that led to no event."""
    outcomes = list(build.build(tx, locked.get(room_nid), taken))
    written = [outcome for outcome in outcomes if isinstance(outcome, Write)]
    heads_written = [write.head for write in written if write.head is not None]
    if heads_written:
        folded = evolve(heads_written[-1], expected=heads_written[0].expected)
        won = heads.compare_and_set(tx, (folded,))
        assert won, "a locked head cannot move"
    completed = [write.txn for write in written if write.txn is not None]
    if completed:
        run_all(tx, (transactions.completed_rows(completed),))
    used = {claim.key for claim in completed}
    unused = [claim.key for claim in build.claims if claim.key in taken and claim.key not in used]
    if unused:
        transactions.withdraw(tx, unused)
    return outcomes
