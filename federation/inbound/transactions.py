"""Transactions of other servers: each PDU judged alone, placed at once or staged before the answer.

The same transaction again gets the same answer, also while the first is under way. A room this server is
not in, an ACL, a bad signature or a rejected event cost the one PDU, never its neighbours.

Source: server-server-api.md, "Transactions", "PDUs", "Server Access Control Lists"; security F2, F9, F18.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import define, field, frozen
from twisted.logger import Logger

from federation.inbound.edus import Edus
from federation.inbound.staged import StagedPdus
from federation.pdus import PduChecker
from federation.resident.access import RoomAccess
from homeserver.events.nids import Room
from homeserver.events.outside import OutsideMemberships
from homeserver.events.received import Outcome
from homeserver.events.receiving import ReceivedEvents
from homeserver.events.stored import Status
from homeserver.single_flight import SingleFlight
from protocol.canonical_json import JsonObject, dumps
from protocol.checks import parse_pdu
from protocol.errors import BadJson, LimitExceeded, MatrixError, NotFound, Unavailable
from protocol.events import Event
from protocol.identifiers import EventID, RoomID, ServerName, server_of
from protocol.limits import MAX_EDUS, MAX_PDUS
from protocol.room_versions import RoomVersion
from storage import staging
from storage.database import Database
from storage.database import Transaction as DatabaseTransaction
from storage.rows import Rows
from storage.staging import ToStage

BUSY = 3
"""A room with more waiting takes PDUs by way of staging, so that its transaction need not wait."""

RETRY_AFTER_MS = 60_000
NO_PDUS = dumps({"pdus": {}})
"""The answer to a transaction of EDUs."""

log = Logger()

Results = dict[str, JsonObject]
"""What is answered for each PDU: nothing, or an `error`."""


@frozen
class Transaction:
    """A transaction as it came; `origin` is proved, the body is not."""

    origin: ServerName
    txn_id: str
    pdus: Sequence[object]
    edus: Sequence[object]

    @classmethod
    def of(cls, origin: ServerName, txn_id: str, body: Mapping[str, object]) -> Transaction:
        """Read the body; raises BadJson if it is no transaction, or has too much in it."""
        pdus, edus = body.get("pdus", []), body.get("edus", [])
        if not isinstance(pdus, list) or not isinstance(edus, list):
            raise BadJson("pdus and edus must be lists")
        if len(pdus) > MAX_PDUS or len(edus) > MAX_EDUS:
            raise BadJson(f"A transaction has at most {MAX_PDUS} PDUs and {MAX_EDUS} EDUs")
        return cls(origin, txn_id, pdus, edus)


@frozen
class _Admitted:
    """Events of one room that passed the checks and may be placed."""

    room: Room
    events: Sequence[Event]


@define(eq=False)
class _Delivery:
    """An ordinary transaction, whose answer is kept in the commit of its events; see `received.Delivery`."""

    transaction: Transaction
    now: int
    results: Results
    """What is answered for the PDUs that did not pass the checks."""
    answer_body: bytes = field(default=b"", init=False)

    def is_old(self, tx: DatabaseTransaction, room_nid: int, event_ids: Sequence[EventID]) -> bool:
        """Tell whether it was answered before, or anything in the room knows of its events."""
        transaction = self.transaction
        return staging.is_old(tx, transaction.origin, transaction.txn_id, room_nid, event_ids)

    def answer(self, outcomes: Sequence[Outcome]) -> Rows | None:
        """Give the row that keeps its answer; None if something is to be staged first."""
        results = dict(self.results)
        for outcome in outcomes:
            if outcome.stored is None:
                return None
            results[outcome.stored.event.event_id] = _result(outcome)
        self.answer_body = dumps({"pdus": results})
        transaction = self.transaction
        return staging.answer_rows(transaction.origin, transaction.txn_id, self.now, self.answer_body)


@define(eq=False)
class InboundTransactions:
    """Takes transactions in."""

    database: Database
    access: RoomAccess
    checker: PduChecker
    received: ReceivedEvents
    outside: OutsideMemberships
    staged: StagedPdus
    edus: Edus
    _flights: SingleFlight[tuple[ServerName, str], bytes] = field(factory=SingleFlight, init=False)

    async def take(self, transaction: Transaction, now: int) -> bytes:
        """Handle a transaction once, and give the JSON of its answer.

        Raises LimitExceeded if the server has too much here that is yet to be placed.
        """
        name = (transaction.origin, transaction.txn_id)
        return await self._flights.run(name, lambda: self._take(transaction, now))

    async def _take(self, transaction: Transaction, now: int) -> bytes:
        """Handle a transaction that is not under way.

        The ordinary one, events of one room and nothing else, is answered by the commit of its events, which
        also finds out whether it is a repetition. EDUs are handled before an answer is kept, or a crash
        between the two would lose them; so each can be taken twice, and EDUs alone need no record: their
        answer is always the same.
        """
        origin = transaction.origin
        if not transaction.pdus:
            await self.edus.take(origin, transaction.edus, now)
            return NO_PDUS
        results: Results = {}
        by_room = _by_room(transaction.pdus)
        is_ordinary = len(by_room) == 1 and not transaction.edus
        if not is_ordinary and (answered := await self._answered(transaction)) is not None:
            return answered
        to_stage: list[ToStage] = []
        for room_id, raw in by_room.items():
            admitted = await self._admit(origin, room_id, raw, results)
            if is_ordinary:
                delivery = _Delivery(transaction, now, results)
                if admitted is not None and await self._place_news(admitted, delivery):
                    return delivery.answer_body
                if (answered := await self._answered(transaction)) is not None:
                    return answered
            if admitted is not None:
                to_stage += await self._place(admitted, results)
        if to_stage and not await self.staged.stage(origin, to_stage, now):
            raise LimitExceeded(RETRY_AFTER_MS, f"Too much of {origin} waits here")
        await self.edus.take(origin, transaction.edus, now)
        answer = dumps({"pdus": results})
        await self.database.write(staging.put_answer, origin, transaction.txn_id, now, answer)
        return answer

    async def _answered(self, transaction: Transaction) -> bytes | None:
        return await self.database.read(staging.answer, transaction.origin, transaction.txn_id)

    async def _admit(
        self, origin: ServerName, room_id: RoomID, raw: Sequence[JsonObject], results: Results
    ) -> _Admitted | None:
        """Give what may be placed of what a transaction has for one room; the rest is dealt with."""
        room = await self.access.nids.known_room(room_id)
        if room is None:
            return None
        head = await self.access.find(room_id)
        if head is not None and not await self.access.allows(origin, head):
            results |= dict.fromkeys(_parsed(raw, room.version), _denied(origin))
            return None
        events = await self._checked(raw, room, results)
        if head is None:
            await self._withdraw(room, events, results)
            return None
        others = {server_of(event.sender) for event in events} - {origin}
        shut_out = {server for server in others if not await self.access.allows(server, head)}
        if shut_out:  # a friend hands their events in
            denied = [event for event in events if server_of(event.sender) in shut_out]
            results |= {event.event_id: _denied(server_of(event.sender)) for event in denied}
            events = [event for event in events if server_of(event.sender) not in shut_out]
        return _Admitted(room, events)

    async def _place_news(self, admitted: _Admitted, delivery: _Delivery) -> bool:
        """Place events with the answer to their transaction, if they are news and the room is not busy."""
        if not admitted.events or self.received.queues.waiting(admitted.room.nid) > BUSY:
            return False
        try:
            return await self.received.place_news(admitted.room.nid, admitted.events, delivery)
        except (Unavailable, NotFound):
            return False

    async def _place(self, admitted: _Admitted, results: Results) -> list[ToStage]:
        """Place what can be placed at once, and give what is to be staged."""
        to_stage: list[ToStage] = []
        room, events = admitted.room, admitted.events
        for event, outcome in zip(events, await self._outcomes(room, events), strict=True):
            results[event.event_id] = _result(outcome)
            if outcome.status is None and outcome.missing:
                to_stage.append(ToStage(room.nid, event.event_id, event.raw))
        return to_stage

    async def _checked(self, raw: Sequence[JsonObject], room: Room, results: Results) -> list[Event]:
        """Give the events that pass the checks, and answer for those that do not."""
        events = await self.checker.check_room(raw, room.version, room.room_id)
        passed = {event.event_id for event in events}
        for event_id in _parsed(raw, room.version) if len(passed) < len(raw) else ():
            if event_id not in passed:
                results[event_id] = {"error": "The event does not bear the signatures it needs"}
        return events

    async def _outcomes(self, room: Room, events: Sequence[Event]) -> Sequence[Outcome]:
        """Place what can be placed at once; a busy room leaves all for later."""
        later = Outcome(None, missing=frozenset({EventID("")}))
        if self.received.queues.waiting(room.nid) > BUSY:
            return [later] * len(events)
        try:
            return await self.received.place(room.nid, events)
        except Unavailable:
            return [later] * len(events)
        except NotFound:
            return [Outcome(None, reason="This server is not in the room")] * len(events)

    async def _withdraw(self, room: Room, events: Sequence[Event], results: Results) -> None:
        """In a room this server is not in, let others take their invites back; the rest is dropped."""
        for event in events:
            withdrawn = await self.outside.withdraw(room, event)
            results[event.event_id] = {} if withdrawn else {"error": "This server is not in the room"}


def _denied(server: ServerName) -> JsonObject:
    return {"error": f"{server} is denied by the access control list of the room"}


def _result(outcome: Outcome) -> JsonObject:
    """Give what is answered for a PDU."""
    if outcome.status is Status.REJECTED:
        return {"error": outcome.reason or "The event was rejected before"}
    if outcome.status is None and not outcome.missing:
        return {"error": outcome.reason}
    return {}


def _by_room(pdus: Sequence[object]) -> dict[RoomID, list[JsonObject]]:
    """Sort PDUs by room, in order; what names none is dropped."""
    found: dict[RoomID, list[JsonObject]] = {}
    for pdu in pdus:
        if isinstance(pdu, dict) and isinstance(pdu.get("room_id"), str):
            found.setdefault(RoomID(pdu["room_id"]), []).append(pdu)
    return found


def _parsed(raw: Sequence[JsonObject], version: RoomVersion) -> dict[EventID, JsonObject]:
    """Give PDUs of the right format by their event IDs; others cannot even be named, and are dropped."""
    found: dict[EventID, JsonObject] = {}
    for pdu in raw:
        try:
            found.setdefault(parse_pdu(pdu, version).event_id, pdu)
        except MatrixError as error:
            log.debug("a PDU of bad format is dropped: {error}", error=error.error)
    return found
