"""Gather what an event's draft needs before it can be built without waiting.

Numbers for the names in it, the event it redacts, the thread of the event it relates to. For an ordinary
message all of it is in memory.
"""

from __future__ import annotations

from attrs import frozen

from homeserver.events.building import Sending
from homeserver.events.event_store import Events
from homeserver.events.nids import Nids
from homeserver.events.relations import NO_RELATION, Relation, relation_of
from homeserver.events.stored import StoredEvent
from protocol.events import EventDraft
from protocol.identifiers import EventID, parse_user_id
from storage.transactions import TransactionKey


@frozen(eq=False)
class Preparation:
    """Make `Sending`s of drafts."""

    nids: Nids
    stored: Events

    async def prepare(self, room_nid: int, draft: EventDraft, txn: TransactionKey | None = None) -> Sending:
        """Gather what `draft` needs; raises `InvalidParam` for a member event about no user."""
        sender_nid = self.nids.known_user(draft.sender)
        if sender_nid is None:
            sender_nid = await self.nids.user(draft.sender)
        if not self.nids.events.has(1):
            await self.nids.events.ready(1)
        sending = Sending(draft, self.nids.next_event(), sender_nid, txn)
        if draft.state_key is not None:
            if draft.type == "m.room.member":
                sending.member_nid = await self.nids.user(parse_user_id(draft.state_key))
        elif "m.relates_to" in draft.content:
            sending.relation = relation_of(draft.content)
            sending.thread = await self._thread(room_nid, sending.relation)
        if draft.redacts is not None:
            sending.redacted = (await self.stored.by_id(room_nid, (draft.redacts,))).get(draft.redacts)
        return sending

    async def _thread(self, room_nid: int, relation: Relation) -> str | None:
        """Give the thread an event belongs to: the one it names, or that of the event it relates to."""
        if relation is NO_RELATION or relation.relates_to is None:
            return None
        if relation.is_thread:
            return relation.relates_to
        parent_id = EventID(relation.relates_to)
        parent: StoredEvent | None = (await self.stored.by_id(room_nid, (parent_id,))).get(parent_id)
        return None if parent is None else parent.thread
