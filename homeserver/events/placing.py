"""Give received events their place in a draft of the room: as they are, as forks, resolved with the rest.

The resolved state moves with the forward extremities; memberships and servers follow its difference, never
the event. What is rejected or soft-failed is kept and marked, and moves nothing.

Source: server-server-api.md, "Checks performed on receipt of a PDU", "Soft failure"; security S1, S11, S12.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve, frozen

from homeserver.events.building import CREATE, Author, clock_of, row_of
from homeserver.events.draft import Draft
from homeserver.events.judging import ACCEPTED, NOT_RECOMMENDED, Verdict, judge
from homeserver.events.members import changes_between, member_rows
from homeserver.events.received import Course, Incoming, Outcome
from homeserver.events.redacting import with_redactions
from homeserver.events.relations import NO_RELATION, Relation, relation_of
from homeserver.events.resolution import Resolver
from homeserver.events.stored import Status, StoredEvent
from protocol.events import Event
from protocol.identifiers import EventID, StateKey, UserID, server_of
from protocol.limits import MAX_DEPTH
from storage import events, gaps
from storage.feed import Flag, Kind, NewEntry
from storage.rows import Rows
from storage.state_trie import EMPTY_ROOT, Difference

MAX_EXTREMITIES = 20
"""Forward extremities kept; beyond it the oldest go, while their states stay part of the resolved one.

Those of other servers go first: whoever made a branch names it as a parent of what comes next.
"""

MAX_COVERED_WALK = 100
"""Events without effect that are looked through for the parents they cover."""

MAX_STATE_ENTRIES = 200
"""Users told one by one that a resolution has changed their membership."""

MEMBER = "m.room.member"


@frozen(eq=False)
class Placing:
    """Places events; the same on the reactor and under a room's lock."""

    resolver: Resolver
    author: Author

    async def place_all(
        self, draft: Draft, incoming: Sequence[Incoming], course: Course = Course.RECEIVED
    ) -> list[Outcome]:
        """Place events in order, each on the ones before."""
        named = {each for one in incoming for each in (*one.event.prev_events, *one.event.auth_events)}
        new = [one.event.event_id for one in incoming]
        await draft.by_id({*named, *new})
        await draft.look_up(new)
        return [await self._place(draft, one, course) for one in incoming]

    async def _place(self, draft: Draft, incoming: Incoming, course: Course) -> Outcome:
        event = incoming.event
        known = (await draft.by_id((event.event_id,))).get(event.event_id)
        if known is not None and known.status is not Status.OUTLIER:
            return Outcome(known.status, known)
        found = await draft.by_id((*event.prev_events, *event.auth_events))
        missing = {each for each in event.auth_events if each not in found}
        missing |= {
            each for each in event.prev_events if each not in found or found[each].root_before is None
        }
        if missing:
            return Outcome(None, missing=missing)
        nid = incoming.nid if known is None else known.nid
        parents = [found[each] for each in event.prev_events]
        auth = [found[each] for each in event.auth_events]
        return await self._judge(draft, evolve(incoming, nid=nid), parents, auth, course)

    async def _judge(
        self,
        draft: Draft,
        incoming: Incoming,
        parents: Sequence[StoredEvent],
        auth: Sequence[StoredEvent],
        course: Course,
    ) -> Outcome:
        event = incoming.event
        if parents:
            before = await self.resolver.resolve(draft, [await draft.root_after(one) for one in parents])
            past = course is Course.PAST
            present = None if past else await self.resolver.resolve(draft, (draft.root, before))
            verdict = await judge(draft, event, auth, before, present)
            if verdict.status is Status.ACCEPTED and not incoming.recommended:
                verdict = NOT_RECOMMENDED
        else:
            before, verdict = await _judge_orphan(draft, event)
        depth = min(max([each.depth for each in parents], default=0) + 1, MAX_DEPTH)
        stored = StoredEvent(
            event,
            incoming.nid,
            draft.room.nid,
            verdict.status,
            before,
            depth,
            incoming.sender_nid,
            self.author.classify(event),
        )
        stored, relation = await with_relation(draft, stored)
        rows = await self._rows(draft, stored, relation, auth)
        if verdict.status is not Status.ACCEPTED:
            draft.add(stored, rows)
            return Outcome(verdict.status, stored, verdict.error or "")
        return Outcome(Status.ACCEPTED, await self._take_in(draft, stored, rows, course))

    async def _rows(
        self, draft: Draft, stored: StoredEvent, relation: Relation, auth: Sequence[StoredEvent]
    ) -> list[Rows]:
        """Give the event's own row; a state event that may count gets its auth clock."""
        clock = None
        if stored.event.is_state and stored.status is not Status.REJECTED:
            assert stored.root_before is not None
            state = await draft.state(stored.root_before, (stored.event.key,))
            clock_rows = await draft.clock_rows([each.nid for each in auth])
            before = state.get(stored.event.key)
            clock = clock_of(stored.nid, auth, before, draft.clocks, clock_rows)
            draft.clocks[stored.nid] = clock
        return [events.placed_rows(row_of(stored, relation, clock))]

    async def _take_in(
        self, draft: Draft, stored: StoredEvent, rows: Sequence[Rows], course: Course
    ) -> StoredEvent:
        """Let an accepted event move the room, and tell of it."""
        event = stored.event
        flags: int = Flag.FEDERATE if course is Course.OWN else Flag.NONE
        stored, redactions, redacted = await with_redactions(draft, stored)
        draft.add(stored, (*rows, *redactions))
        is_gap = event.event_id in draft.gaps
        if is_gap:
            draft.rows.append(gaps.filled_rows(draft.room.nid, (event.event_id,)))
        if is_gap or course is Course.PAST:
            if redacted is not None:
                draft.change(redacted.nid)
            return stored
        flags |= Flag.REDACTION if redacted is not None else Flag.NONE
        await self._move(draft, stored, flags)
        return stored

    async def _move(self, draft: Draft, stored: StoredEvent, flags: int) -> None:
        """Move extremities, resolved state, memberships and the feed."""
        before = draft.root
        roots = [] if before == await self._resolved(draft) else [before]
        draft.covered_by(await _covered(draft, stored))
        draft.extremities[stored.nid] = stored.event.event_id
        if len(draft.extremities) > MAX_EXTREMITIES:
            await self._drop_branches(draft)
            roots = [before, await draft.root_after(stored)]
        draft.root = await self._resolved(draft, roots)
        extremities = await draft.by_nid(draft.extremities)
        draft.seq += 1
        draft.depth = max(each.depth for each in extremities.values())
        difference = {} if draft.root == before else await draft.diff(before, draft.root)
        members = {key: pair for key, pair in difference.items() if key[0] == MEMBER}
        users = await self._follow_members(draft, members)
        await self._tell(draft, stored, flags, {key: users[UserID(key[1])] for key in members})

    async def _drop_branches(self, draft: Draft) -> None:
        """Let the oldest extremities go; those of our users last, since what they say must stand on them."""
        events_by_nid = await draft.by_nid(draft.extremities)
        ours = f":{self.author.server_name}"
        order = sorted(events_by_nid, key=lambda nid: (events_by_nid[nid].event.sender.endswith(ours), nid))
        for nid in order[:-MAX_EXTREMITIES]:
            del draft.extremities[nid]

    async def _resolved(self, draft: Draft, roots: Sequence[bytes] = ()) -> bytes:
        """Resolve the states after the forward extremities with some others.

        Alone they are the draft's state, unless extremities had to go whose states are part of it still.
        """
        extremities = await draft.by_nid(draft.extremities)
        after = [await draft.root_after(each) for each in extremities.values()]
        return await self.resolver.resolve(draft, (*roots, *after))

    async def _follow_members(self, draft: Draft, members: Difference) -> dict[UserID, int]:
        """Let memberships and servers follow a difference of resolved states."""
        if not members:
            return {}
        nids = {nid for pair in members.values() for nid in pair if nid is not None}
        found = await draft.by_nid(nids)
        users = await draft.ground.users([UserID(key[1]) for key in members])
        pairs = {key: (found.get(one or 0), found.get(other or 0)) for key, (one, other) in members.items()}
        draft.rows += member_rows(draft.room.nid, changes_between(pairs, users, self.author.server_name))
        return users

    async def _tell(
        self, draft: Draft, stored: StoredEvent, flags: int, changed: dict[StateKey, int]
    ) -> None:
        """Add the event's entry, and one for each other user whose membership is another now."""
        room_nid, root, mark = draft.room.nid, draft.root, draft.mark
        own = changed.pop(stored.event.key, None) if stored.event.is_state else None
        if own is not None:
            flags |= Flag.MEMBERSHIP
        draft.entries.append(NewEntry(Kind.EVENT, int(flags), room_nid, own, stored.nid, root, mark, stored))
        others = sorted(changed, key=lambda key: server_of(key[1]) != self.author.server_name)
        state = await draft.find(root, others[:MAX_STATE_ENTRIES]) if others else {}
        for key in others[:MAX_STATE_ENTRIES]:
            draft.entries.append(
                NewEntry(Kind.STATE, int(Flag.MEMBERSHIP), room_nid, changed[key], state.get(key), root, mark)
            )


async def with_relation(draft: Draft, stored: StoredEvent) -> tuple[StoredEvent, Relation]:
    """Give an event with the thread it belongs to, and its relation."""
    if stored.event.is_state:
        return stored, NO_RELATION
    relation = relation_of(stored.event.content)
    if relation.relates_to is None:
        return stored, relation
    if relation.is_thread:
        return evolve(stored, thread=relation.relates_to), relation
    parent_id = EventID(relation.relates_to)
    parent = (await draft.by_id((parent_id,))).get(parent_id)
    return evolve(stored, thread=None if parent is None else parent.thread), relation


async def _covered(draft: Draft, stored: StoredEvent) -> set[EventID]:
    """Give the events that are forward extremities no more: parents, and theirs if they have no effect."""
    covered = set(stored.event.prev_events)
    waiting = list(covered)
    walked = 0
    while waiting and walked < MAX_COVERED_WALK:
        found = await draft.by_id(waiting)
        walked += len(waiting)
        waiting = [
            parent
            for each in found.values()
            if each.status is not Status.ACCEPTED
            for parent in each.event.prev_events
            if parent not in covered
        ]
        covered.update(waiting)
    return covered


async def _judge_orphan(draft: Draft, event: Event) -> tuple[bytes, Verdict]:
    """Judge an event without parents, and give the state before it: only the room's beginning has none."""
    create = (await draft.bare_state(draft.root, (CREATE,))).get(CREATE)
    if create is not None and create.event_id == event.event_id:
        return EMPTY_ROOT, ACCEPTED
    return draft.root, Verdict(Status.REJECTED, "It has no parents, but the room has begun")
