"""A room as it will be when received events are in it: what is made, over what is there.

One attempt to place some events. Nothing of a draft is seen outside before its write is committed; a lost
attempt is thrown away whole.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from typing import TypeVar

from attrs import define, field

from homeserver.events.building import PUT_NODES, ROW_OVERHEAD
from homeserver.events.clocks import AuthClock
from homeserver.events.ground import Ground, over
from homeserver.events.nids import Room
from homeserver.events.place import HeadState, Place
from homeserver.events.stored import Status, StoredEvent
from homeserver.events.write import Write
from protocol.events import Event
from protocol.identifiers import EventID, StateKey
from storage import events, gaps, state_trie
from storage.database import Transaction
from storage.events import ClockRow
from storage.feed import HeadMark, Kind, NewEntry
from storage.heads import HeadUpdate
from storage.rows import Rows
from storage.state_trie import Difference, StateRoot
from storage.transactions import Claim
from storage.trie_format import NodeName
from storage.trie_nodes import node_rows
from storage.trie_walks import Walk

T = TypeVar("T")


@define(eq=False)
class Draft:
    """A room in the making. `extremities` are the forward extremities, by nid, oldest first."""

    ground: Ground
    room: Room
    seq: int
    depth: int
    root: bytes
    extremities: dict[int, EventID]
    expected: int
    """The `head_seq` it is built on."""
    nodes: dict[NodeName, bytes] = field(factory=dict)
    clocks: dict[int, AuthClock] = field(factory=dict)
    rows: list[Rows] = field(factory=list)
    entries: list[NewEntry] = field(factory=list)
    size: int = 0
    claim: Claim | None = None
    """The client's transaction ID of an event that is placed here."""
    redactions: dict[EventID, list[int]] = field(factory=dict)
    """Nids of redactions that aim at events yet to come, by target."""
    gaps: set[EventID] = field(factory=set)
    """Events yet to come that are parents of events here."""
    head_state: HeadState | None = None
    """State at the room's head that is at hand."""
    _news: set[EventID] = field(factory=set)
    """Events that are taken to be unheard of here, until the commit finds out."""
    _by_id: dict[EventID, StoredEvent] = field(factory=dict)
    _by_nid: dict[int, StoredEvent] = field(factory=dict)
    _absent: set[EventID] = field(factory=set)

    @classmethod
    def on(cls, ground: Ground, room: Room, place: Place, head_state: HeadState | None = None) -> Draft:
        """Begin on a room's head."""
        mark = place.mark
        ids = dict(zip(mark.extremities, place.prev_events, strict=True))
        return cls(ground, room, mark.seq, mark.depth, place.root, ids, mark.seq, head_state=head_state)

    @property
    def mark(self) -> HeadMark:
        """Give where the room stands now."""
        return HeadMark(self.seq, self.depth, tuple(self.extremities))

    def presume_news(self, event_ids: Iterable[EventID]) -> None:
        """Take it that nothing here knows of these events; whoever commits must ask (`storage.staging`)."""
        self._news.update(event_ids)
        self._absent.update(event_ids)

    async def look_up(self, event_ids: Sequence[EventID]) -> None:
        """Read what is known of events before they come: redactions of them, and events that need them."""
        unsure = [each for each in event_ids if each not in self._news]
        if not unsure:
            return
        aimed, named = await self.ground.read(_known_of, self.room.nid, unsure)
        for target, nid in aimed:
            self.redactions.setdefault(EventID(target), []).append(nid)
        self.gaps.update(map(EventID, named))

    async def by_id(self, event_ids: Collection[EventID]) -> dict[EventID, StoredEvent]:
        """Give those events that the room has or will have."""
        missing = [each for each in event_ids if each not in self._by_id and each not in self._absent]
        if missing:
            loaded = await self.ground.by_id(missing)
            self.remember(loaded.values())
            self._absent.update(each for each in missing if each not in loaded)
        return {each: self._by_id[each] for each in event_ids if each in self._by_id}

    async def by_nid(self, event_nids: Collection[int]) -> dict[int, StoredEvent]:
        """Give those events that the room has or will have."""
        missing = [nid for nid in event_nids if nid not in self._by_nid]
        if missing:
            self.remember((await self.ground.by_nid(missing)).values())
        return {nid: self._by_nid[nid] for nid in event_nids if nid in self._by_nid}

    def remember(self, stored: Iterable[StoredEvent]) -> None:
        """Keep events at hand."""
        for each in stored:
            self._by_id[each.event.event_id] = each
            self._by_nid[each.nid] = each
            self._absent.discard(each.event.event_id)

    async def run(self, walk: Walk[T]) -> T:
        """Run a walk over the room's tries, those made here included."""
        return await self.ground.walk(over(walk, self.nodes))

    async def find(self, root: bytes, keys: Iterable[StateKey]) -> dict[StateKey, int]:
        """Give the event nids of a state under `keys`; keys without state are absent."""
        return await self.run(state_trie.find(StateRoot(root), keys))

    async def state(self, root: bytes, keys: Iterable[StateKey]) -> dict[StateKey, StoredEvent]:
        """Give the events of a state under `keys`; keys without state are absent."""
        if self.head_state is not None and root == self.head_state.root:
            return await self.head_state.get(keys)
        nids = await self.find(root, keys)
        found = await self.by_nid(set(nids.values()))
        return {key: found[nid] for key, nid in nids.items()}

    async def bare_state(self, root: bytes, keys: Iterable[StateKey]) -> dict[StateKey, Event]:
        """Give the same as bare events."""
        return {key: stored.event for key, stored in (await self.state(root, keys)).items()}

    async def diff(self, one: bytes, other: bytes) -> Difference:
        """Give what differs between two states."""
        return await self.run(state_trie.diff(StateRoot(one), StateRoot(other)))

    async def apply(self, root: bytes, changes: Mapping[StateKey, int | None]) -> bytes:
        """Make a changed state."""
        if not changes:
            return root
        applied = await self.run(state_trie.apply(self.room.nid, StateRoot(root), changes))
        self.nodes |= applied.nodes
        return applied.root

    async def root_after(self, stored: StoredEvent) -> bytes:
        """Give the state after an event whose state before it is known."""
        assert stored.root_before is not None
        if not stored.event.is_state or stored.status is Status.REJECTED:
            return stored.root_before
        return await self.apply(stored.root_before, {stored.event.key: stored.nid})

    async def clock_rows(self, nids: Iterable[int]) -> list[ClockRow]:
        """Read the auth clocks of events that were not made here."""
        missing = [nid for nid in nids if nid not in self.clocks]
        return await self.ground.read(events.clocks, self.room.nid, missing) if missing else []

    def add(self, stored: StoredEvent, rows: Sequence[Rows]) -> None:
        """Take an event in, with all its rows; it may have been here as an outlier."""
        if stored.nid in self._by_nid:
            self.change(stored.nid)
        self.remember((stored,))
        self.rows += rows
        self.size += len(stored.event.raw) + ROW_OVERHEAD

    def change(self, event_nid: int) -> None:
        """Tell all who remember an event of this room that it is something else now.

        The head's number moves, so that nothing is committed on what the event was.
        """
        self.seq += 1
        self.entries.append(NewEntry(Kind.CHANGED, 0, self.room.nid, None, event_nid, self.root, self.mark))

    def covered_by(self, event_ids: Set[EventID]) -> None:
        """Take out forward extremities that are forward no more."""
        self.extremities = {
            nid: event_id for nid, event_id in self.extremities.items() if event_id not in event_ids
        }

    def write(self) -> Write | None:
        """Give all of it as one write; None if there is nothing to write.

        A draft that does not move the head still names it, for the room's lock: nodes are stored under it.
        """
        if not self.rows:
            return None
        nodes = Rows(PUT_NODES, tuple(node_rows(self.room.nid, self.nodes)))
        head = HeadUpdate(self.room.nid, self.expected, self.mark, self.root)
        return Write((nodes, *self.rows), tuple(self.entries), head, self.claim, self.size)


def _known_of(
    tx: Transaction, room_nid: int, event_ids: Sequence[EventID]
) -> tuple[list[tuple[str, int]], set[str]]:
    return events.redactions_of(tx, room_nid, event_ids), gaps.named(tx, room_nid, event_ids)
