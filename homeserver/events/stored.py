"""A stored event: the immutable event together with its placement in the room.

The event never changes; status, state before it, depth and redaction are this server's view of it.
"""

from __future__ import annotations

from attrs import frozen

from protocol.events import Event
from storage.events import Status

__all__ = ["EVENT_OVERHEAD", "Status", "StoredEvent"]

EVENT_OVERHEAD = 1_500
"""Bytes an event takes in memory beside its canonical JSON, roughly (measured with tracemalloc)."""


@frozen
class StoredEvent:
    """An event as this server holds it."""

    event: Event
    nid: int
    room_nid: int
    status: Status
    root_before: bytes | None
    """The state before the event on its branch: a root of the room's trie; None for outliers."""
    depth: int
    """Place in history: the claimed depth, clamped."""
    sender_nid: int
    event_class: int = 0
    """Which default push rule decides on it (`protocol.unread`)."""
    thread: str | None = None
    """Event ID of the root of the thread it belongs to; None: the main timeline."""
    redacted_by: int | None = None
    """Nid of the redaction that applies to it."""

    @property
    def size(self) -> int:
        """Tell the bytes it takes in memory, roughly."""
        return len(self.event.raw) + EVENT_OVERHEAD
