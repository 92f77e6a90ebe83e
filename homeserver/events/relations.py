"""What an event's content says about other events: its relation, and the thread that follows from it.

Source: client-server-api/_index.md, "Forming relationships between events"; modules/threading.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import frozen

from protocol.limits import MAX_ID_BYTES

THREAD = "m.thread"


@frozen
class Relation:
    """The relation in `m.relates_to`; both are None when there is none of the common form."""

    rel_type: str | None = None
    relates_to: str | None = None

    @property
    def is_thread(self) -> bool:
        """Tell whether the event is a direct part of a thread, whose root it names."""
        return self.rel_type == THREAD


NO_RELATION = Relation()


def relation_of(content: Mapping[str, Any]) -> Relation:
    """Read `m.relates_to`; anything malformed is no relation."""
    relates = content.get("m.relates_to")
    if not isinstance(relates, Mapping):
        return NO_RELATION
    rel_type, event_id = relates.get("rel_type"), relates.get("event_id")
    if not isinstance(rel_type, str) or not isinstance(event_id, str):
        return NO_RELATION
    if len(rel_type) > MAX_ID_BYTES or len(event_id) > MAX_ID_BYTES:
        return NO_RELATION
    return Relation(rel_type, event_id)
