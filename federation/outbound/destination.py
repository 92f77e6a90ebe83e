"""One destination: a transaction at a time, in order, until it is confirmed.

    live    events come from the feed and wait in memory; there is nothing to keep in the database,
            since the shard's position stands before the oldest of them
    behind  the destination failed, or too much waits: its own position is kept, memory is let go,
            and what it missed is read back in plans until it has caught up

A transaction is repeated with the same ID and body until it is confirmed or refused for good. A refusal
halves the next one, so that a single bad event or EDU is found and left out.

Source: server-server-api.md, "Transactions".
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Protocol

from attrs import define, field, frozen
from twisted.logger import Logger

from federation.backoff import Backoff
from federation.failures import NoAnswer, Refused, Unreachable
from federation.outbound.catch_up import CatchUp, PendingPdu
from federation.outbound.edus import EduBatch, EduSource
from federation.outbound.patience import Patience
from federation.outbound.transaction import MAX_EDUS, MAX_PDUS, OutgoingTransaction, transaction_body
from homeserver.background import run_in_background
from homeserver.clock import Clock
from protocol.canonical_json import JsonObject
from protocol.errors import MatrixError
from protocol.identifiers import ServerName
from storage.destinations import DestinationStore
from storage.outbound_edus import OutboundEduStore

MAX_LIVE = 1_000
"""Events that wait in memory; beyond it the destination is behind."""
FULL = MAX_PDUS + MAX_EDUS
FAULT_PAUSE = 30.0
"""Seconds before going on after a fault of ours, such as the database being away."""
_TOO_LARGE = 413
_REFUSALS = frozenset({400, _TOO_LARGE})

log = Logger()


class TransactionClient(Protocol):
    """Sends a transaction (`federation.client.Transactions`)."""

    async def send(self, server: ServerName, txn_id: str, body: bytes) -> JsonObject:
        """Send it once; raises MatrixError."""
        ...


@frozen
class Records:
    """What is kept of destinations."""

    destinations: DestinationStore
    edus: OutboundEduStore
    catch_up: CatchUp


@frozen
class Sending:
    """What all destinations share."""

    own_name: ServerName
    client: TransactionClient
    backoff: Backoff
    records: Records
    sources: Sequence[EduSource]
    clock: Clock
    new_txn_id: Callable[[], str]


class _Outcome(Enum):
    CONFIRMED = 1
    REFUSED = 2
    FAILED = 3


@frozen
class _Load:
    """What one transaction carries: events, and the EDU batches with the sources they came from."""

    pdus: Sequence[PendingPdu]
    edus: Sequence[tuple[EduSource, EduBatch]]

    @property
    def size(self) -> int:
        """Give the number of events and EDUs."""
        return len(self.pdus) + sum(len(batch.edus) for _, batch in self.edus)


@define(eq=False)
class Destination:
    """The queue of one server."""

    server: ServerName
    sending: Sending
    dispatched: Callable[[], int]
    """Tells the feed position up to which every live destination was given its events."""
    on_idle: Callable[[Destination], None]
    _waiting: deque[PendingPdu] = field(factory=deque, init=False)
    _behind: int | None = field(default=None, init=False)
    _plan_reached: int | None = field(default=None, init=False)
    """Where the destination stands once all of `_waiting` arrived; None: at the last of them."""
    _plan_whole: bool = field(default=False, init=False)
    _unsaved: int | None = field(default=None, init=False)
    _limit: int = field(default=FULL, init=False)
    _running: bool = field(default=False, init=False)
    _again: bool = field(default=False, init=False)
    _stopped: bool = field(default=False, init=False)
    _patience: Patience = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Begin without a grudge."""
        self._patience = Patience(self.sending.clock)

    @property
    def holds(self) -> int | None:
        """Give the feed position its shard must not pass, or None if it does not matter."""
        if self._unsaved is not None:
            return self._unsaved
        if self._behind is None and self._waiting:
            return self._waiting[0].pos - 1
        return None

    def add(self, pdu: PendingPdu) -> None:
        """Queue an event of the feed."""
        if self._behind is None:
            self._waiting.append(pdu)
            if len(self._waiting) > MAX_LIVE:
                self._let_go()
        self.poke()

    def begin_behind(self, position: int) -> None:
        """Start, or go on, from a position: all after it is read back."""
        if self._behind is None or position < self._behind:
            self._behind = position
            self._unsaved = position
            self._waiting.clear()
            self._plan_reached, self._plan_whole = None, False
        self.poke()

    def poke(self) -> None:
        """See whether there is something to send."""
        self._again = True
        if self._stopped:
            return
        if not self._running:
            self._running = True
            run_in_background(self._run(), f"sending to {self.server}")

    def recovered(self) -> None:
        """End the pause: the destination lives."""
        self._patience.hear()
        self.poke()

    def stop(self) -> None:
        """Send no more."""
        self._stopped = True
        self._patience.end()

    async def _run(self) -> None:
        """Send until nothing is left."""
        try:
            while self._again and not self._stopped:
                self._again = False
                await self._drain()
        finally:
            self._running = False
            if not self._again or self._stopped:
                self.on_idle(self)

    async def _drain(self) -> None:
        """Send transaction after transaction; faults of ours only delay."""
        while not self._stopped:
            try:
                await self._wait_until_due()
                if self._stopped or not await self._send_next():
                    return
            except Exception:
                log.failure("sending to {server} went wrong", server=self.server)
                await self._pause(FAULT_PAUSE)

    async def _wait_until_due(self) -> None:
        """Wait while the destination is to be left in peace, holding nothing in memory meanwhile."""
        while not self._stopped:
            self._patience.listen()
            wait = await self.sending.backoff.retry_at(self.server) - self.sending.clock.now_ms()
            if wait <= 0 or self._stopped:
                return
            await self._fall_behind()
            await self._pause(wait / 1000)

    async def _send_next(self) -> bool:
        """Send one transaction; False if there is nothing to send."""
        if not self._waiting and self._behind is not None and not await self._refill():
            return True
        await self._save()
        load = await self._gather()
        if load.size == 0:
            return self._behind is not None
        txn = self._transaction(load)
        outcome = await self._attempt(txn, load.size)
        while outcome is _Outcome.FAILED and not self._stopped:
            await self._hold_grudge()
            await self._wait_until_due()
            outcome = await self._attempt(txn, load.size)
        await self._settle(load, outcome)
        return True

    async def _refill(self) -> bool:
        """Read back what is owed next; False if there is more to look through. May find itself live again."""
        assert self._behind is not None
        after, upto = self._behind, self.dispatched()
        plan = await self.sending.records.catch_up.plan(self.server, after, upto)
        if self._behind != after or self._stopped:
            return False
        if plan.pdus:
            self._waiting.extend(plan.pdus)
            self._plan_reached, self._plan_whole = plan.reached, plan.whole
            return True
        if plan.reached >= self.dispatched():
            self._behind, self._unsaved = None, None
            await self.sending.records.destinations.set_position(self.server, None)
            return True
        self._behind = self._unsaved = plan.reached
        return False

    async def _gather(self) -> _Load:
        """Take what goes into the next transaction, within the limits."""
        pdus = [pdu for _, pdu in zip(range(min(MAX_PDUS, self._limit)), self._waiting, strict=False)]
        room = MAX_EDUS if self._limit >= FULL else (0 if pdus else self._limit)
        batches: list[tuple[EduSource, EduBatch]] = []
        for source in self.sending.sources if room else ():
            batch = await source.take(self.server, room)
            if batch.edus:
                batches.append((source, batch))
                room -= len(batch.edus)
            if room <= 0:
                break
        return _Load(pdus, batches)

    def _transaction(self, load: _Load) -> OutgoingTransaction:
        edus = [edu for _, batch in load.edus for edu in batch.edus]
        pdus = [pdu.event.raw for pdu in load.pdus]
        now = self.sending.clock.now_ms()
        body = transaction_body(self.sending.own_name, now, pdus, edus)
        return OutgoingTransaction(self.sending.new_txn_id(), body)

    async def _attempt(self, txn: OutgoingTransaction, size: int) -> _Outcome:
        """Send a transaction once; set a grudge unless the back-off has taken note of a failure.

        A proxy before the server may bound what it takes: smaller ones will pass, and nothing is left out.
        """
        try:
            await self.sending.client.send(self.server, txn.txn_id, txn.body)
        except Refused as refused:
            if refused.http_status in _REFUSALS and refused.remote_errcode:
                return _Outcome.REFUSED
            if refused.http_status == _TOO_LARGE and size > 1:
                return _Outcome.REFUSED
            if refused.http_status < 500:
                self._patience.offend(refused.remote.get("retry_after_ms"))
            return _Outcome.FAILED
        except (Unreachable, NoAnswer):
            return _Outcome.FAILED
        except MatrixError as error:
            log.info("cannot send to {server}: {error}", server=self.server, error=error.error)
            self._patience.offend(None)
            return _Outcome.FAILED
        self._patience.forgive()
        return _Outcome.CONFIRMED

    async def _hold_grudge(self) -> None:
        """Wait out a grudge, whatever is heard of the server meanwhile."""
        if self._patience.grudge:
            await self._fall_behind()
            await self._pause(self._patience.grudge, firm=True)

    async def _settle(self, load: _Load, outcome: _Outcome) -> None:
        """Draw the consequences of a transaction."""
        if outcome is _Outcome.FAILED:
            return
        if outcome is _Outcome.REFUSED and load.size > 1:
            self._limit = load.size // 2
            for source, batch in load.edus:
                source.returned(self.server, batch.receipt)
            return
        if outcome is _Outcome.REFUSED:
            named = [pdu.event.event_id for pdu in load.pdus]
            log.warn("{server} refuses {what}; left out", server=self.server, what=named or "an EDU")
        else:
            self._limit = min(FULL, self._limit * 2)
        for source, batch in load.edus:
            await source.delivered(self.server, batch.receipt)
        await self._move_on(len(load.pdus))

    async def _move_on(self, count: int) -> None:
        """Forget the first events; move the position of a destination that is behind."""
        moved = [self._waiting.popleft() for _ in range(min(count, len(self._waiting)))]
        last = moved[-1].pos if moved else 0
        if self._behind is None:
            if any(pdu.is_extra for pdu in moved):
                await self.sending.records.edus.drop_extras(self.server, last)
            return
        if not last:
            return
        if not self._waiting and self._plan_reached is not None:
            last, self._plan_reached = self._plan_reached, None
        elif self._plan_whole:
            return
        self._behind = self._unsaved = last
        await self._save()
        await self.sending.records.edus.drop_extras(self.server, last)

    async def _fall_behind(self) -> None:
        """Keep the position in the database, and let go of all but the transaction under way."""
        for source in self.sending.sources:
            await source.gave_up(self.server)
        if self._behind is None:
            self._let_go()
        await self._save()

    def _let_go(self) -> None:
        """Be behind from now on, holding no more than may be under way."""
        first = self._waiting[0].pos - 1 if self._waiting else self.dispatched()
        self._behind = self._unsaved = first
        while len(self._waiting) > MAX_PDUS:
            self._waiting.pop()
        self._plan_reached, self._plan_whole = None, False

    async def _save(self) -> None:
        """Write the position if it changed, unless another queue may write it by now."""
        while self._unsaved is not None and not self._stopped:
            position = self._unsaved
            await self.sending.records.destinations.set_position(self.server, position)
            if self._unsaved == position:
                self._unsaved = None

    async def _pause(self, seconds: float, *, firm: bool = False) -> None:
        """Wait, unless sending has stopped."""
        if not self._stopped:
            await self._patience.wait(seconds, firm=firm)
