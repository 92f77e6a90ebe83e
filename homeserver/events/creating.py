"""Make a room: its first events, built on each other in memory and committed as one write.

Either the whole beginning of the room is there, or nothing. Which events those are (presets, aliases,
invites) is decided by the caller.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define, evolve, field, frozen

from homeserver.events.building import (
    Author,
    Sending,
    StateChange,
    auth_events_of,
    build,
    claim_of,
    clock_of,
    member_changes,
    state_keys,
    wanted_keys,
    write_of,
)
from homeserver.events.clocks import AuthClock
from homeserver.events.nids import Room
from homeserver.events.persister import Persister
from homeserver.events.place import Place
from homeserver.events.preparing import Preparation
from homeserver.events.stored import StoredEvent
from homeserver.events.write import Poisoned, Write
from protocol.errors import Unavailable
from protocol.events import EventDraft
from protocol.identifiers import RoomID, StateKey
from protocol.room_versions import RoomVersion
from storage import nids, state_trie
from storage.feed import HeadMark
from storage.heads import HeadUpdate
from storage.state_trie import EMPTY_ROOT, StateRoot
from storage.transactions import TransactionKey
from storage.trie_format import NodeName
from storage.trie_nodes import run_walk

TRIES = 10
"""Moments tried for a room whose ID another worker has taken."""


@frozen(eq=False)
class NewRoom:
    """A room that was made, and its first events in order."""

    room: Room
    events: tuple[StoredEvent, ...]


@define(eq=False)
class _Beginning:
    """A room in the making."""

    place: Place
    author: Author
    now: int
    state: dict[StateKey, StoredEvent] = field(factory=dict)
    clocks: dict[int, AuthClock] = field(factory=dict)
    nodes: dict[NodeName, bytes] = field(factory=dict)
    events: list[StoredEvent] = field(factory=list)
    writes: list[Write] = field(factory=list)

    def add(self, sending: Sending) -> StoredEvent:
        """Build the next event; raises `Forbidden` when the rules refuse it."""
        keys = state_keys(self.place.version, sending.draft)
        state = {key: self.state[key] for key in wanted_keys(keys, sending) if key in self.state}
        auth = auth_events_of(self.place.version, keys, state)
        stored = build(self.place, sending, state, auth, self.now, self.author)
        own = sending.state_key
        change, before = None, None
        if own is not None:
            before = state.get(own)
            change = self._change(own, sending.nid, auth, before)
            self.state[own] = stored
        members = member_changes(sending, stored, before, self.author.server_name)
        write, self.place = write_of(self.place, sending, stored, change, members)
        self.events.append(stored)
        self.writes.append(write)
        return stored

    def _change(
        self, own: StateKey, nid: int, auth: Sequence[StoredEvent], before: StoredEvent | None
    ) -> StateChange:
        walk = state_trie.apply(self.place.room_nid, StateRoot(self.place.root), {own: nid})
        applied = run_walk(walk, lambda names: {name: self.nodes[name] for name in names})
        self.nodes |= applied.nodes
        clock = clock_of(nid, auth, before, self.clocks, ())
        self.clocks[nid] = clock
        return StateChange(applied.root, applied.nodes, clock)


@define(eq=False)
class _Moments:
    """Gives each moment once: two rooms begun alike at one moment would have one ID where it is a hash."""

    _last: int = 0

    def take(self, now: int) -> int:
        """Give `now`, or the first moment after it that was not given out."""
        self._last = max(now, self._last + 1)
        return self._last


@frozen(eq=False)
class NewRooms:
    """Make rooms on this server."""

    _preparation: Preparation
    _persister: Persister
    _author: Author
    _moments: _Moments = field(factory=_Moments)

    async def create(
        self,
        version: RoomVersion,
        drafts: Sequence[EventDraft],
        *,
        now: int,
        txn: TransactionKey | None = None,
    ) -> NewRoom:
        """Make a room of its first events, the create event first.

        The create event's draft names the room, or has no `room_id` where the version makes the ID of that
        event; all others get the room's ID here. Raises `Forbidden` when the rules refuse one of them: then
        there is no room.
        """
        for _ in range(TRIES):
            if version.room_id_is_create_hash:
                now = self._moments.take(now)
            beginning = await self._begin(version, drafts, now)
            place, events = beginning.place, tuple(beginning.events)
            room_id = events[0].event.room_id
            try:
                await self._persister.commit(_joined(beginning, room_id, txn))
            except Poisoned:
                # Another worker may have begun a room alike at the same moment, under the same hash.
                if not version.room_id_is_create_hash or not await self._preparation.nids.known_room(room_id):
                    raise
                continue
            row = nids.RoomRow(place.room_nid, room_id, version.id)
            return NewRoom(self._preparation.nids.remember_room(row), events)
        raise Unavailable("Too many rooms like this one begin at this moment")

    async def _begin(self, version: RoomVersion, drafts: Sequence[EventDraft], now: int) -> _Beginning:
        """Build the first events of a room, on a number of its own."""
        rooms = self._preparation.nids.new_rooms
        await rooms.ready(1)
        place = Place(RoomID(""), rooms.take(), version, HeadMark(0, 0, ()), (), EMPTY_ROOT)
        beginning = _Beginning(place, self._author, now)
        create = beginning.add(await self._preparation.prepare(place.room_nid, drafts[0]))
        for draft in drafts[1:]:
            named = evolve(draft, room_id=create.event.room_id)
            beginning.add(await self._preparation.prepare(place.room_nid, named))
        return beginning


def _joined(beginning: _Beginning, room_id: RoomID, txn: TransactionKey | None) -> Write:
    """Make one write of all; the room has no head yet."""
    place = beginning.place
    writes = beginning.writes
    rows = tuple(rows for write in writes for rows in write.rows)
    return Write(
        (nids.room_rows(place.room_nid, room_id, place.version.id), *rows),
        tuple(entry for write in writes for entry in write.entries),
        HeadUpdate(place.room_nid, None, place.mark, place.root),
        None if txn is None else claim_of(txn, beginning.events[0]),
        sum(write.size for write in writes),
    )
