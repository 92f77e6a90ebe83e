"""Annotations, as reactions are: the same one by the same user a second time is refused.

Source: client-server-api/modules/event_annotations.md, "Avoiding duplicate annotations".
"""

from __future__ import annotations

from typing import Final

import orjson
from attrs import frozen

from homeserver.events.nids import Nids
from homeserver.events.relations import relation_of
from protocol.errors import DuplicateAnnotation
from protocol.events import EventDraft
from storage import relations, transactions
from storage.database import Database, Transaction
from storage.relations import Kinship
from storage.transactions import TransactionKey

ANNOTATION: Final = "m.annotation"
MAX_OWN: Final = 200
"""Annotations of one user on one event that are looked at."""


def annotated_by(draft: EventDraft) -> str | None:
    """Give the event that an event annotates, None if it annotates none."""
    relation = relation_of(draft.content)
    return relation.relates_to if relation.rel_type == ANNOTATION and draft.room_id is not None else None


@frozen(eq=False)
class Annotations:
    """Knows who has annotated what."""

    database: Database
    nids: Nids

    async def check(self, draft: EventDraft, annotated: str, txn: TransactionKey) -> None:
        """Raise DuplicateAnnotation for one that is there already; a repeated request is none."""
        assert draft.room_id is not None
        room_nid = await self.nids.room(draft.room_id)
        if room_nid is None:
            return
        sender_nid = await self.nids.user(draft.sender)
        kinship = Kinship(room_nid, annotated, ANNOTATION, sender_nid, draft.type)
        key = draft.content["m.relates_to"].get("key")
        if await self.database.read(_is_there, kinship, key, txn):
            raise DuplicateAnnotation("You have annotated this event in just this way already")


def _is_there(tx: Transaction, kinship: Kinship, key: object, txn: TransactionKey) -> bool:
    if transactions.find(tx, txn) is not None:
        return False
    pdus = map(orjson.loads, relations.own_children(tx, kinship, MAX_OWN))
    return any(pdu["content"]["m.relates_to"].get("key") == key for pdu in pdus)
