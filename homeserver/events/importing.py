"""Take over a room as another server gives it when a local user joins.

All of its state is outliers, each judged by its own authority; the state is built in bulk, and the room
has a head from then on. What it was before the join is a claim of the resident server: nothing here rests
on it but what this server sees of the room.

Source: server-server-api.md, "Joining Rooms"; security F2, F6, S1, S2.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

from attrs import define, field, frozen

from homeserver.events.building import CREATE, PUT_NODES, Author, row_of
from homeserver.events.ground import over
from homeserver.events.heads import RoomHead
from homeserver.events.judging import by_authority, refusal
from homeserver.events.members import changes_between, member_rows
from homeserver.events.nids import Room
from homeserver.events.outliers import Judged, Known, OutlierJudge, add_clock
from homeserver.events.received import ImportedRoom
from homeserver.events.received_store import Store
from homeserver.events.receiving import ReceivedEvents, in_order_of
from homeserver.events.relations import NO_RELATION
from homeserver.events.stored import Status, StoredEvent
from homeserver.events.write import HeadMoved, Poisoned, Write
from protocol.errors import Forbidden, NotFound, Unavailable
from protocol.identifiers import StateKey, UserID
from protocol.limits import MAX_DEPTH
from storage import events, gaps, state_trie
from storage.feed import Flag, HeadMark, Kind, NewEntry
from storage.heads import HeadUpdate
from storage.rows import Rows
from storage.state_trie import EMPTY_ROOT, StateRoot
from storage.trie_format import NodeName
from storage.trie_nodes import node_rows

TRIES = 3
AT_ONCE = 1_000
"""State events worked on before others have their turn."""
MEMBER = "m.room.member"

T = TypeVar("T")


@define(eq=False)
class _Taken:
    """A room on its way in."""

    room: Room
    given: ImportedRoom
    judged: Judged
    known: Known
    state: dict[StateKey, StoredEvent] = field(factory=dict)
    nodes: dict[NodeName, bytes] = field(factory=dict)


@frozen(eq=False)
class RoomImport:
    """Takes rooms over."""

    store: Store
    received: ReceivedEvents
    judge: OutlierJudge
    author: Author

    async def is_here(self, given: ImportedRoom) -> bool:
        """Tell whether this server has members in the room: then the join is an event like others."""
        room_nid = await self.store.nids.room(given.room_id)
        head = None if room_nid is None else await self._head(room_nid)
        return head is not None and bool(head.local_members)

    async def take(self, given: ImportedRoom) -> int | None:
        """Take a room over and give its nid; None if it has come to be here meanwhile by another's join.

        Raises:
            Forbidden: the room as given does not allow the join.
            Unavailable: others keep changing the room meanwhile.
        """
        room = await self.store.nids.intern_room(given.room_id, given.version)
        if room.version != given.version:
            raise Forbidden("The room is known here with another version")
        taken = await self.received.queues.run(room.nid, lambda: self._take(room, given))
        return room.nid if taken else None

    async def _take(self, room: Room, given: ImportedRoom) -> bool:
        for _ in range(TRIES):
            head = await self._head(room.nid)
            if head is not None and head.local_members:
                return False
            taken = await self._judged(room, given)
            write = await self._write(taken, head)
            try:
                await self.store.put(room.nid, write, taken.nodes)
            except (HeadMoved, Poisoned):
                self.store.heads.forget(room.nid)
                self.store.state.stored.forget_room(room.nid)
                continue
            return True
        raise Unavailable("The room changes too fast")

    async def _head(self, room_nid: int) -> RoomHead | None:
        try:
            return await self.store.heads.get(room_nid)
        except NotFound:
            return None

    async def _judged(self, room: Room, given: ImportedRoom) -> _Taken:
        """Judge all that was given, each event by itself."""
        everything = [given.create, *given.auth_chain, *given.state]
        ordered = await in_order_of(everything, lambda event: event.auth_events, self._turn)
        ordered = [each for each in ordered if each.room_id == room.room_id]
        known = await self.store.known(room.nid, [each.event_id for each in (*ordered, given.join)])
        new = [each for each in ordered if each.event_id not in known.events]
        incoming = await self.store.incoming(new, known.bare)
        judged = await self.judge.judge(room.nid, incoming, known, given.create)
        taken = _Taken(room, given, judged, known)
        for part in _parts(given.state):
            await self._turn()
            for stored in judged.accepted(each.event_id for each in part):
                if stored.event.is_state:
                    taken.state.setdefault(stored.event.key, stored)
        create = taken.state.get(CREATE)
        if create is None or create.event != given.create:
            raise Forbidden("The room as given has no create event")
        return taken

    async def _write(self, taken: _Taken, head: RoomHead | None) -> Write:
        """Lay down all rows of the room."""
        room = taken.room
        join = await self._join(taken)
        assert join.root_before is not None
        root = await self._apply(taken, join.root_before, {join.event.key: join.nid})
        auth = taken.judged.accepted(join.event.auth_events)
        clock = add_clock(join, auth, taken.judged, taken.known)
        seq = 0 if head is None else head.seq
        mark = HeadMark(seq + 1, join.depth, (join.nid,))
        user_nid = (await self.store.users([UserID(join.event.key[1])]))[UserID(join.event.key[1])]
        entry = NewEntry(Kind.EVENT, int(Flag.MEMBERSHIP), room.nid, user_nid, join.nid, root, mark, join)
        again = taken.judged.known_again(taken.known)
        if join.event.event_id in taken.known.events:
            again.append(join.nid)
        changed = [NewEntry(Kind.CHANGED, 0, room.nid, None, nid, root, mark) for nid in again]
        parents = {each: taken.known.events.get(each) for each in join.event.prev_events}
        missing = [each for each, known in parents.items() if known is None or known.root_before is None]
        rows = (
            Rows(PUT_NODES, tuple(node_rows(room.nid, taken.nodes))),
            events.placed_rows(*taken.judged.rows),
            events.placed_rows(row_of(join, NO_RELATION, clock)),
            gaps.gap_rows(room.nid, missing, join.nid, join.depth),
            *(await self._member_rows(taken, join, head)),
        )
        size = sum(len(row.pdu) for row in taken.judged.rows) + len(join.event.raw)
        update = HeadUpdate(room.nid, None if head is None else seq, mark, root)
        return Write(rows, (entry, *changed), update, None, size)

    async def _join(self, taken: _Taken) -> StoredEvent:
        """Place the join on the state given; raises `Forbidden` if that does not allow it."""
        event = taken.given.join
        create = None if event.version.create_in_auth_events else taken.given.create
        auth = taken.judged.accepted(event.auth_events)
        against = by_authority(event, auth, create) or refusal(
            event, {key: stored.event for key, stored in taken.state.items()}
        )
        if against is not None:
            raise Forbidden(f"The room does not allow the join: {against}")
        (incoming,) = await self.store.incoming((event,), taken.known.bare)
        known = taken.known.events.get(event.event_id)
        root = await self._apply(taken, EMPTY_ROOT, {key: each.nid for key, each in taken.state.items()})
        return StoredEvent(
            event,
            incoming.nid if known is None else known.nid,
            taken.room.nid,
            Status.ACCEPTED,
            root,
            max(1, min(event.depth, MAX_DEPTH)),
            incoming.sender_nid,
            self.author.classify(event),
        )

    async def _apply(self, taken: _Taken, root: bytes, changes: Mapping[StateKey, int]) -> bytes:
        """Change a state; a large change goes region by region of its trie, with turns for others between."""
        for part in await self._in_regions(changes):
            await self._turn()
            walk = state_trie.apply(taken.room.nid, StateRoot(root), part)
            applied = await self.store.ground(taken.room).walk(over(walk, taken.nodes))
            taken.nodes |= applied.nodes
            root = applied.root
        return root

    async def _in_regions(self, changes: Mapping[StateKey, int]) -> Sequence[Mapping[StateKey, int]]:
        """Cut a change that is large into parts that have hardly a node in common."""
        if len(changes) <= AT_ONCE:
            return (changes,)
        regions: dict[int, dict[StateKey, int]] = {}
        for part in _parts(list(changes.items())):
            await self._turn()
            for key, nid in part:
                regions.setdefault(state_trie.region(key), {})[key] = nid
        joined: list[dict[StateKey, int]] = [{}]
        for number in sorted(regions):
            if len(joined[-1]) >= AT_ONCE:
                joined.append({})
            joined[-1] |= regions[number]
        return joined

    async def _member_rows(self, taken: _Taken, join: StoredEvent, head: RoomHead | None) -> tuple[Rows, ...]:
        """Let memberships and servers go from what they were, if anything, to what they are now."""
        after = {key: each for key, each in taken.state.items() if key[0] == MEMBER}
        after[join.event.key] = join
        before: dict[StateKey, StoredEvent] = {}
        if head is not None:
            nids = await self.store.state.members(taken.room.nid, head.root)
            found = await self.store.state.stored.by_nid(taken.room.nid, nids.values())
            before = {(MEMBER, user): found[nid] for user, nid in nids.items()}
        pairs = {
            key: (before.get(key), after.get(key))
            for key in before.keys() | after.keys()
            if key not in before or key not in after or before[key].nid != after[key].nid
        }
        rows: list[Rows] = []
        for part in _parts(list(pairs.items())):
            await self._turn()
            users = await self.store.users([UserID(key[1]) for key, _ in part])
            changes = changes_between(dict(part), users, self.author.server_name)
            rows += member_rows(taken.room.nid, changes)
        return tuple(rows)

    async def _turn(self) -> None:
        """Let others have their turn."""
        await self.store.clock.sleep(0)


def _parts(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """Cut a sequence, so that no part of the work on it holds others up."""
    for start in range(0, len(items), AT_ONCE):
        yield items[start : start + AT_ONCE]
