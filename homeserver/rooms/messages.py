"""Sending what a user says or sets: messages, state, redactions.

Source: client-server-api/_index.md, "Sending events to a room" and "Redactions".
"""

from __future__ import annotations

from attrs import Factory, frozen

from homeserver.events.stored import StoredEvent
from homeserver.rooms.aliases import Aliases
from homeserver.rooms.annotations import Annotations, annotated_by
from homeserver.rooms.ports import RoomEvents
from homeserver.turns import Turns
from protocol.errors import BadJson, Forbidden
from protocol.events import EventDraft
from protocol.identifiers import UserID, parse_event_id
from storage.transactions import TransactionKey


@frozen(eq=False)
class Messages:
    """Events of local users."""

    events: RoomEvents
    aliases: Aliases
    annotations: Annotations
    _turns: Turns[tuple[UserID, str]] = Factory(Turns)

    async def send(self, draft: EventDraft, txn: TransactionKey, now: int) -> StoredEvent:
        """Send a message event; a redaction sent this way is one.

        Raises:
            Forbidden: the rules refuse it.
            BadJson: the content is none for its type.
            DuplicateAnnotation: the sender has annotated the event so already.
        """
        if draft.type == "m.room.redaction":
            draft = _redaction(draft)
        if draft.type == "m.room.create":
            raise Forbidden("m.room.create cannot be sent")
        annotated = annotated_by(draft)
        if annotated is None:
            return await self.events.send(draft, txn=txn, now=now)
        return await self._annotate(draft, annotated, txn, now)

    async def _annotate(
        self, draft: EventDraft, annotated: str, txn: TransactionKey, now: int
    ) -> StoredEvent:
        """Send an annotation that is not there yet, one at a time of a user and an event."""
        key = (draft.sender, annotated)
        await self._turns.take(key)
        try:
            await self.annotations.check(draft, annotated, txn)
            return await self.events.send(draft, txn=txn, now=now)
        finally:
            self._turns.give(key)

    async def set_state(self, draft: EventDraft, now: int) -> StoredEvent:
        """Set state of a room; memberships have their own endpoints but may be set here as well.

        Raises:
            BadAlias: a canonical alias does not point at the room.
            Forbidden: the rules refuse it.
        """
        if draft.room_id is None or draft.type == "m.room.create":
            raise Forbidden("m.room.create cannot be sent")
        if draft.type == "m.room.canonical_alias":
            await self.aliases.check_canonical(draft.room_id, draft.content)
        if draft.type == "m.room.member" and not isinstance(draft.content.get("membership"), str):
            raise BadJson("membership: must be a string")
        return await self.events.send(draft, now=now)


def _redaction(draft: EventDraft) -> EventDraft:
    """Take what is to be redacted out of the content, where every room version takes it from a client."""
    target = draft.redacts or parse_event_id(draft.content.get("redacts"))
    content = {key: value for key, value in draft.content.items() if key != "redacts"}
    return EventDraft(draft.room_id, draft.type, draft.sender, content, redacts=target)
