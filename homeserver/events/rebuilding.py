"""The second try of events that lost their room's head: built anew under the room's lock, in order.

`Rebuild` gathers, on the reactor, what has lost and what comes meanwhile; `RoomBuild` builds it on a
database thread, in the transaction that commits it. So every try makes progress, however many workers
write to the room.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence, Set

from attrs import define, field, frozen

from homeserver.clock import Clock
from homeserver.events.building import (
    Author,
    Sending,
    StateChange,
    auth_events_of,
    build,
    clock_of,
    member_changes,
    state_keys,
    wanted_keys,
    write_of,
)
from homeserver.events.clocks import AuthClock
from homeserver.events.commit_batch import repeated
from homeserver.events.event_store import stored_from_row
from homeserver.events.heads import Heads
from homeserver.events.nids import Room
from homeserver.events.place import Place
from homeserver.events.stored import StoredEvent
from homeserver.events.write import TransactionRepeated, Write
from protocol.errors import MatrixError, NotFound
from protocol.identifiers import EventID, StateKey
from storage import events, state_trie
from storage.database import Transaction
from storage.heads import HeadRow
from storage.state_trie import StateRoot
from storage.transactions import Claim, TransactionKey
from storage.trie_format import NodeName
from storage.trie_nodes import load_nodes, run_walk
from storage.trie_walks import Nodes

MAX_SENDINGS = 64
"""Events built in one transaction: the room is locked meanwhile."""


@frozen(eq=False)
class Known:
    """State events that are known without asking the database, all at one root."""

    root: bytes
    events: Mapping[StateKey, StoredEvent | None]


@frozen(eq=False)
class RoomBuild:
    """Builds events of one room, one on the other; see `write.Build`."""

    room: Room
    author: Author
    sendings: Sequence[Sending]
    known: Known | None
    now: int

    @property
    def claims(self) -> Sequence[Claim]:
        """Give the transaction IDs of the events, whose event IDs are not known yet."""
        return [Claim(each.txn, self.now) for each in self.sendings if each.txn is not None]

    def build(
        self, tx: Transaction, head: HeadRow | None, taken: Set[TransactionKey]
    ) -> list[Write | Exception]:
        """Build all events on the locked head; each one that no longer passes is told why."""
        if head is None:
            return [NotFound("This server is not in the room") for _ in self.sendings]
        ids = events.ids(tx, self.room.nid, head.mark.extremities)
        prev_events = tuple(EventID(ids[nid]) for nid in head.mark.extremities)
        place = Place(self.room.room_id, self.room.nid, self.room.version, head.mark, prev_events, head.root)
        reader = _LockedState(tx, self.room, self.known)
        outcomes: list[Write | Exception] = []
        built: dict[TransactionKey, EventID] = {}
        for sending in self.sendings:
            if sending.txn is not None and sending.txn in built:
                outcomes.append(TransactionRepeated(built[sending.txn]))
                continue
            if sending.txn is not None and sending.txn not in taken:
                outcomes.append(repeated(tx, sending.txn))
                continue
            try:
                write, place = self._build_one(reader, place, sending)
            except MatrixError as refused:
                outcomes.append(refused)
                continue
            outcomes.append(write)
            if write.txn is not None and write.txn.event_id is not None:
                built[write.txn.key] = EventID(write.txn.event_id)
        return outcomes

    def _build_one(self, reader: _LockedState, place: Place, sending: Sending) -> tuple[Write, Place]:
        keys = state_keys(place.version, sending.draft)
        state = reader.get(place.root, wanted_keys(keys, sending))
        auth = auth_events_of(place.version, keys, state)
        stored = build(place, sending, state, auth, self.now, self.author)
        own = sending.state_key
        if own is None:
            return write_of(place, sending, stored, None, ())
        before = state.get(own)
        change = reader.change(place, stored, auth, before)
        members = member_changes(sending, stored, before, self.author.server_name)
        return write_of(place, sending, stored, change, members)


@define(eq=False)
class Rebuild:
    """Events of one room that wait for its lock; see `write.LockedWrite`. Lives on the reactor."""

    room: Room
    author: Author
    clock: Clock
    heads: Heads
    waiting: list[Sending] = field(factory=list)
    taken: list[Sending] = field(factory=list)
    limit: int = MAX_SENDINGS
    """1 once the database has refused several together: then each is tried alone."""

    @property
    def room_nid(self) -> int:
        """Give the room's nid."""
        return self.room.nid

    def begin(self) -> RoomBuild:
        """Take what waits now."""
        self.taken, self.waiting = self.waiting[: self.limit], self.waiting[self.limit :]
        head = self.heads.peek(self.room.nid)
        known = None if head is None else Known(head.root, head.cached.snapshot())
        return RoomBuild(self.room, self.author, tuple(self.taken), known, self.clock.now_ms())

    def try_each_alone(self) -> None:
        """Put back what was taken, since one of it spoils the rest."""
        self.waiting = self.taken + self.waiting
        self.taken = []
        self.limit = 1


@define(eq=False)
class _LockedState:
    """State as seen in one transaction, what was built in it included."""

    tx: Transaction
    room: Room
    known: Known | None
    made_nodes: dict[NodeName, bytes] = field(factory=dict)
    made_events: dict[int, StoredEvent] = field(factory=dict)
    made_clocks: dict[int, AuthClock] = field(factory=dict)

    def get(self, root: bytes, keys: Set[StateKey]) -> dict[StateKey, StoredEvent]:
        """Give the events under `keys`; keys without state are absent."""
        known = self.known.events if self.known is not None and self.known.root == root else {}
        missing = [key for key in keys if key not in known]
        found = {key: event for key in keys if (event := known.get(key)) is not None}
        if missing:
            nids = run_walk(state_trie.find(StateRoot(root), missing), self._nodes)
            loaded = self._events(set(nids.values()))
            found |= {key: loaded[nid] for key, nid in nids.items()}
        self.known = Known(root, {**known, **{key: found.get(key) for key in keys}})
        return found

    def change(
        self, place: Place, stored: StoredEvent, auth: Sequence[StoredEvent], before: StoredEvent | None
    ) -> StateChange:
        """Give the change of a state event, and remember it for those that are built on it."""
        key = stored.event.key
        walk = state_trie.apply(self.room.nid, StateRoot(place.root), {key: stored.nid})
        applied = run_walk(walk, self._nodes)
        clock = self._clock(stored.nid, auth, before)
        self.made_nodes |= applied.nodes
        self.made_events[stored.nid] = stored
        self.made_clocks[stored.nid] = clock
        assert self.known is not None
        self.known = Known(applied.root, {**self.known.events, key: stored})
        return StateChange(applied.root, applied.nodes, clock)

    def _nodes(self, names: Collection[NodeName]) -> Nodes:
        found = {name: self.made_nodes[name] for name in names if name in self.made_nodes}
        missing = [name for name in names if name not in found]
        return found | load_nodes(self.tx, self.room.nid, missing) if missing else found

    def _events(self, nids: Set[int]) -> dict[int, StoredEvent]:
        found = {nid: self.made_events[nid] for nid in nids if nid in self.made_events}
        rows = events.by_nid(self.tx, self.room.nid, [nid for nid in nids if nid not in found])
        for row in rows:
            found[row.event_nid] = stored_from_row(row, self.room.room_id, self.room.version)
        return found

    def _clock(self, nid: int, auth: Sequence[StoredEvent], before: StoredEvent | None) -> AuthClock:
        missing = [each.nid for each in auth if each.nid not in self.made_clocks]
        rows = events.clocks(self.tx, self.room.nid, missing)
        return clock_of(nid, auth, before, self.made_clocks, rows)
