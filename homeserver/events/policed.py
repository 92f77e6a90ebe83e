"""Events of local users, into rooms that may use a policy server: the door that all services send through.

Where a room uses none, an event goes the fast way (`sending`). Where it uses one, the event is built, signed
by the policy server, and from then on seen by another: it is placed as it is, never built anew.

Source: server-server-api.md, "Policy Servers".
"""

from __future__ import annotations

from collections.abc import Iterable

from attrs import define, field, frozen

from homeserver.events.building import CREATE, POWER_LEVELS, check_redaction
from homeserver.events.event_store import Events
from homeserver.events.heads import RoomHead
from homeserver.events.nids import Nids, Room
from homeserver.events.policy import PolicyServers
from homeserver.events.receiving import ReceivedEvents
from homeserver.events.sending import LocalEvents
from homeserver.events.stored import StoredEvent
from homeserver.events.unplaced import Unplaced
from homeserver.events.write import TransactionRepeated
from homeserver.single_flight import SingleFlight
from protocol.errors import InvalidParam, NotFound
from protocol.events import Event, EventDraft
from protocol.identifiers import EventID, parse_user_id
from protocol.policy import needs_policy
from storage import transactions
from storage.database import Database
from storage.transactions import TransactionKey


@frozen(eq=False)
class SignedEvents:
    """Builds events that a policy server signs, and places them."""

    unplaced: Unplaced
    policies: PolicyServers
    received: ReceivedEvents
    stored: Events

    async def build(self, head: RoomHead, draft: EventDraft, now: int) -> Event:
        """Build an event that others see before it has a place: signed by the policy server, if one is used.

        Raises what `Unplaced.build` does, `Forbidden` for a redaction without the right to it, and what the
        policy server says against it.
        """
        if draft.type == "m.room.member" and draft.state_key is not None:
            parse_user_id(draft.state_key)
        event = await self.unplaced.build(head.room_nid, draft, now)
        if event.redacts is not None:
            found = await self.stored.by_id(head.room_nid, (event.redacts,))
            if event.redacts in found:
                state = await head.state((CREATE, POWER_LEVELS))
                check_redaction(event, found[event.redacts].event, state)
        policy = await self.policies.of(head.room_nid) if needs_policy(event.type, event.state_key) else None
        return event if policy is None else await self.policies.sign(policy, event)

    async def place(
        self, room_nid: int, event: Event, *, now: int, txn: TransactionKey | None = None
    ) -> StoredEvent:
        """Commit an event as it is; see `ReceivedEvents.place_own`."""
        return await self.received.place_own(room_nid, event, now=now, txn=txn)


@define(eq=False)
class PolicedEvents:
    """Sends events of local users into rooms that this server is in."""

    local: LocalEvents
    signed: SignedEvents
    nids: Nids
    database: Database
    _flights: SingleFlight[TransactionKey, StoredEvent] = field(factory=SingleFlight, init=False)

    async def send(self, draft: EventDraft, *, now: int, txn: TransactionKey | None = None) -> StoredEvent:
        """Send one event and give it as it was committed; with a `txn` used before, give the first one.

        Raises what `LocalEvents.send` does, and what the room's policy server says against the event.
        """
        room = await self._room_with_policy(draft)
        if room is None:
            return await self.local.send(draft, now=now, txn=txn)
        if txn is None:
            return await self._send(room, draft, None, now)
        return await self._flights.run(txn, lambda: self._send(room, draft, txn, now))

    async def send_many(self, drafts: Iterable[EventDraft], *, now: int) -> list[StoredEvent]:
        """Send events in order; without a policy server none waits for the commit of the one before.

        Raises the first failure after all have ended.
        """
        listed = list(drafts)
        if listed and await self._room_with_policy(listed[0]) is None:
            return await self.local.send_many(listed, now=now)
        sent: list[StoredEvent] = []
        failure: Exception | None = None
        for draft in listed:
            try:
                sent.append(await self.send(draft, now=now))
            except Exception as error:
                failure = failure or error
        if failure is not None:
            raise failure
        return sent

    async def _room_with_policy(self, draft: EventDraft) -> Room | None:
        """Give the room of a draft if a policy server must sign it."""
        if draft.room_id is None:
            return None
        room = self.nids.room_in_memory(draft.room_id)
        if room is not None and self.signed.policies.has_none(room.nid):
            return None
        if not needs_policy(draft.type, draft.state_key):
            return None
        room = await self.nids.known_room(draft.room_id)
        return None if room is None or await self.signed.policies.of(room.nid) is None else room

    async def _send(self, room: Room, draft: EventDraft, txn: TransactionKey | None, now: int) -> StoredEvent:
        if txn is not None:
            used = await self.database.read(transactions.find, txn)
            if used is not None:
                return await self._answer(room, used.event_id)
        head = await self.signed.unplaced.heads.get(room.nid)
        event = await self.signed.build(head, draft, now)
        try:
            return await self.signed.place(room.nid, event, now=now, txn=txn)
        except TransactionRepeated as repeated:
            return await self._answer(room, repeated.event_id)

    async def _answer(self, room: Room, event_id: str | None) -> StoredEvent:
        """Give the event that an earlier request with the same transaction ID has sent."""
        if event_id is None:
            raise InvalidParam("The transaction ID was used for another request")
        found = await self.signed.stored.by_id(room.nid, (EventID(event_id),))
        if not found:
            raise NotFound("The event of this transaction ID is gone")
        return found[EventID(event_id)]
