"""Where the next event of a room goes: the head as a value, and the state beside it.

A `Place` is small and immutable; each event makes the next one. A `HeadState` is a bounded cache of the
state events that authorization needs, all at one root of the room's trie.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from attrs import frozen

from homeserver.events.room_state import RoomState
from homeserver.events.stored import StoredEvent
from protocol.events import Event
from protocol.identifiers import EventID, RoomID, StateKey
from protocol.room_versions import RoomVersion
from storage.feed import HeadMark

MAX_STATE_EVENTS = 64
"""State events kept for each room; beyond it those kept longest go first."""


@frozen(eq=False)
class Place:
    """A room's head: what the next event is built on."""

    room_id: RoomID
    room_nid: int
    version: RoomVersion
    mark: HeadMark
    prev_events: tuple[EventID, ...]
    """Event IDs of the forward extremities, in the order of `mark.extremities`."""
    root: bytes
    """The resolved state, a root of the room's trie."""

    def after(self, stored: StoredEvent, root: bytes, used: int) -> Place:
        """Give the head after an event that names the last `used` extremities as its parents."""
        mark = self.mark
        kept = mark.extremities[:-used] if used else mark.extremities
        kept_ids = self.prev_events[:-used] if used else self.prev_events
        return Place(
            self.room_id,
            self.room_nid,
            self.version,
            HeadMark(mark.seq + 1, max(mark.depth, stored.depth), (*kept, stored.nid)),
            (*kept_ids, stored.event.event_id),
            root,
        )

    def moved(self, mark: HeadMark, prev_events: tuple[EventID, ...], root: bytes) -> Place:
        """Give the room's head somewhere else."""
        return Place(self.room_id, self.room_nid, self.version, mark, prev_events, root)


class HeadState:
    """State events of one room at one root, loaded when first asked for; absent keys are remembered too."""

    __slots__ = ("_changes", "_events", "_reader", "_room_nid", "root")

    def __init__(
        self,
        reader: RoomState,
        room_nid: int,
        root: bytes,
        events: dict[StateKey, StoredEvent | None] | None = None,
    ) -> None:
        """Start with the `events` that are known to be the state at `root`."""
        self._reader = reader
        self._room_nid = room_nid
        self.root = root
        self._events = events if events is not None else {}
        self._changes = 0

    def __len__(self) -> int:
        """Count the keys that are loaded."""
        return len(self._events)

    def known(self, keys: Iterable[StateKey]) -> dict[StateKey, StoredEvent] | None:
        """Give the state under `keys` without waiting; None if some of it must be loaded first."""
        events = self._events
        found: dict[StateKey, StoredEvent] = {}
        try:
            for key in keys:
                event = events[key]
                if event is not None:
                    found[key] = event
        except KeyError:
            return None
        return found

    async def get(self, keys: Iterable[StateKey]) -> dict[StateKey, StoredEvent]:
        """Give the state under `keys`; keys without state are absent."""
        wanted = frozenset(keys)
        found = {key: self._events[key] for key in wanted if key in self._events}
        missing = [key for key in wanted if key not in found]
        if missing:
            changes = self._changes
            loaded = await self._reader.events(self._room_nid, self.root, missing)
            read = {key: loaded.get(key) for key in missing}
            if changes == self._changes:
                self._remember(read)
            found |= read
        return {key: event for key, event in found.items() if event is not None}

    def after(self, stored: StoredEvent, root: bytes) -> HeadState:
        """Give the state after a state event; this one stays as it is."""
        events = dict(self._events)
        events.pop(stored.event.key, None)
        events[stored.event.key] = stored
        _bound(events)
        return HeadState(self._reader, self._room_nid, root, events)

    def without(self, keys: Iterable[StateKey], root: bytes) -> HeadState:
        """Give the state at another root that differs under `keys` alone."""
        events = dict(self._events)
        for key in keys:
            events.pop(key, None)
        return HeadState(self._reader, self._room_nid, root, events)

    def forget(self) -> None:
        """Forget what is loaded, and what is being loaded: an event of the room is something else now."""
        self._events.clear()
        self._changes += 1

    def snapshot(self) -> Mapping[StateKey, StoredEvent | None]:
        """Give a copy of what is loaded, for use on another thread."""
        return dict(self._events)

    def _remember(self, loaded: Mapping[StateKey, StoredEvent | None]) -> None:
        self._events.update(loaded)
        _bound(self._events)


def _bound(events: dict[StateKey, StoredEvent | None]) -> None:
    """Let those go that were kept longest."""
    while len(events) > MAX_STATE_EVENTS:
        del events[next(iter(events))]


def events_of(state: Mapping[StateKey, StoredEvent]) -> dict[StateKey, Event]:
    """Give the bare events, as the authorization rules want them."""
    return {key: stored.event for key, stored in state.items()}
