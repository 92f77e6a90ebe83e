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
from homeserver.events.heads import RoomHead
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
from protocol.identifiers import EventID, RoomID, ServerName
from protocol.limits import MAX_EDUS, MAX_PDUS
from protocol.room_versions import RoomVersion
from storage import staging
from storage.database import Database
from storage.staging import Bounds, ToStage

STAGED_BOUNDS = Bounds(origin=16 * 1024 * 1024, room=4 * 1024 * 1024)
BUSY = 3
"""A room with more waiting takes PDUs by way of staging, so that its transaction need not wait."""

RETRY_AFTER_MS = 60_000

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
        origin, txn_id = transaction.origin, transaction.txn_id
        answered = await self.database.read(staging.answer, origin, txn_id)
        if answered is not None:
            return answered
        results: Results = {}
        to_stage: list[ToStage] = []
        for room_id, raw in _by_room(transaction.pdus).items():
            await self._take_room(origin, room_id, raw, (results, to_stage))
        if to_stage:
            await self._stage(origin, to_stage, now)
        await self.edus.take(origin, transaction.edus, now)
        answer = dumps({"pdus": results})
        await self.database.write(staging.put_answer, origin, txn_id, now, answer)
        return answer

    async def _stage(self, origin: ServerName, pdus: Sequence[ToStage], now: int) -> None:
        if not await self.database.write(staging.stage, origin, now, pdus, STAGED_BOUNDS):
            raise LimitExceeded(RETRY_AFTER_MS, f"Too much of {origin} waits here")
        for room_nid in {pdu.room_nid for pdu in pdus}:
            self.staged.work_on(room_nid)

    async def _take_room(
        self,
        origin: ServerName,
        room_id: RoomID,
        raw: Sequence[JsonObject],
        into: tuple[Results, list[ToStage]],
    ) -> None:
        """Handle what a transaction has for one room."""
        results, to_stage = into
        room = await self.access.nids.known_room(room_id)
        if room is None:
            return
        head = await self.access.find(room_id)
        if head is not None and not await self.access.allows(origin, head):
            for event_id in _parsed(raw, room.version):
                results[event_id] = {"error": f"{origin} is denied by the access control list of the room"}
            return
        events = await self._checked(raw, room, results)
        if head is None:
            await self._withdraw(room, events, results)
            return
        for event, outcome in zip(events, await self._place(head, events), strict=True):
            results[event.event_id] = {}
            if outcome.status is Status.REJECTED:
                results[event.event_id] = {"error": outcome.reason or "The event was rejected before"}
            elif outcome.status is None and not outcome.missing:
                results[event.event_id] = {"error": outcome.reason}
            elif outcome.status is None:
                to_stage.append(ToStage(room.nid, event.event_id, event.raw))

    async def _checked(self, raw: Sequence[JsonObject], room: Room, results: Results) -> list[Event]:
        """Give the events that pass the checks, and answer for those that do not."""
        events = await self.checker.check_room(raw, room.version, room.room_id)
        passed = {event.event_id for event in events}
        for event_id in _parsed(raw, room.version) if len(passed) < len(raw) else ():
            if event_id not in passed:
                results[event_id] = {"error": "The event does not bear the signatures it needs"}
        return events

    async def _place(self, head: RoomHead, events: Sequence[Event]) -> Sequence[Outcome]:
        """Place what can be placed at once; a busy room leaves all for later."""
        later = Outcome(None, missing=frozenset({EventID("")}))
        if self.received.queues.waiting(head.room_nid) > BUSY:
            return [later] * len(events)
        try:
            return await self.received.place(head.room_nid, events)
        except Unavailable:
            return [later] * len(events)
        except NotFound:
            return [Outcome(None, reason="This server is not in the room")] * len(events)

    async def _withdraw(self, room: Room, events: Sequence[Event], results: Results) -> None:
        """In a room this server is not in, let others take their invites back; the rest is dropped."""
        for event in events:
            withdrawn = await self.outside.withdraw(room, event)
            results[event.event_id] = {} if withdrawn else {"error": "This server is not in the room"}


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
