"""What is known of a room's past, and how more of it is taken in: outliers, history, gaps.

Nothing here moves where a room stands or is told to anybody; caches alone hear of what changes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial

from attrs import frozen

from homeserver.events.building import CREATE, Author, clock_of, row_of
from homeserver.events.draft import Draft
from homeserver.events.judging import by_authority, judging_keys, refusal
from homeserver.events.nids import Room
from homeserver.events.outliers import Judged, OutlierJudge
from homeserver.events.placing import with_relation
from homeserver.events.received_store import Store
from homeserver.events.receiving import ReceivedEvents, in_order_of
from homeserver.events.redacting import with_redactions
from homeserver.events.stored import Status, StoredEvent
from homeserver.events.write import HeadMoved, Poisoned
from protocol.errors import Forbidden, Unavailable
from protocol.events import Event
from protocol.identifiers import EventID
from protocol.limits import MAX_DEPTH
from storage import events, gaps, state_trie
from storage.rows import Rows
from storage.state_trie import StateRoot

TRIES = 3
MAX_GAPS = 10
"""Missing events asked for in one backfill."""

IDS_A_TIME = 1_000


@frozen(eq=False)
class Past:
    """Keeps what comes of a room's past."""

    store: Store
    received: ReceivedEvents
    judge: OutlierJudge
    author: Author

    async def absent(self, room: Room, event_ids: Collection[EventID]) -> set[EventID]:
        """Give those events that are not here, not even as outliers."""
        wanted = list(dict.fromkeys(event_ids))
        found: set[EventID] = set()
        for start in range(0, len(wanted), IDS_A_TIME):
            found |= (
                await self.store.state.stored.by_id(room.nid, wanted[start : start + IDS_A_TIME])
            ).keys()
        return set(wanted) - found

    async def holes(self, room: Room, batch: Sequence[Event]) -> list[EventID]:
        """Give the parents of events, those in the batch left out, of which the state before is not known."""
        own = {event.event_id for event in batch}
        parents = [each for event in batch for each in event.prev_events if each not in own]
        found = await self.store.state.stored.by_id(room.nid, parents)
        return [
            each for each in dict.fromkeys(parents) if each not in found or found[each].root_before is None
        ]

    async def gaps_below(self, room_nid: int, depth: int) -> list[EventID]:
        """Give the missing events next below a depth."""
        found = await self.store.database.read(gaps.near, room_nid, depth, MAX_GAPS)
        return [EventID(gap.missing_id) for gap in found]

    async def keep_outliers(self, room: Room, batch: Sequence[Event]) -> Judged:
        """Judge events by their own authority and keep them; those here already stay as they are."""
        return await self.received.queues.run(room.nid, lambda: self._keep_outliers(room, batch))

    async def _keep_outliers(self, room: Room, batch: Sequence[Event]) -> Judged:
        turn = partial(self.store.clock.sleep, 0)
        ordered = await in_order_of(batch, lambda event: event.auth_events, turn)
        ordered = [each for each in ordered if each.room_id == room.room_id]
        for _ in range(TRIES):
            draft = await self._draft(room)
            named = {each for event in ordered for each in (event.event_id, *event.auth_events)}
            known = await self.store.known(room.nid, list(named))
            new = [event for event in ordered if event.event_id not in known.events]
            incoming = await self.store.incoming(new, known.bare)
            create = (await draft.bare_state(draft.root, (CREATE,))).get(CREATE)
            judged = await self.judge.judge(room.nid, incoming, known, create)
            if judged.rows:
                draft.rows.append(events.placed_rows(*judged.rows))
                draft.size = sum(len(row.pdu) for row in judged.rows)
            for nid in judged.known_again(known):
                draft.change(nid)
            if await self._commit(draft, [row.event_nid for row in judged.rows]):
                return judged
        raise Unavailable("The room changes too fast")

    async def place(self, room: Room, event: Event, state: Sequence[EventID]) -> StoredEvent:
        """Place an event as history on a claimed state, as far as the events of that are here.

        Raises `Forbidden` if the claim lacks the room's create event.
        """
        return await self.received.queues.run(room.nid, lambda: self._place(room, event, state))

    async def _place(self, room: Room, event: Event, state: Sequence[EventID]) -> StoredEvent:
        for _ in range(TRIES):
            known = await self.store.known(room.nid, list({*state, *event.auth_events, event.event_id}))
            own = known.events.get(event.event_id)
            if own is not None and own.root_before is not None:
                return own
            draft = await self._draft(room)
            draft.remember(known.events.values())
            root = await self._root_of(draft, [known.events[each] for each in state if each in known.events])
            stored = await self._history(draft, event, root)
            if await self._commit(draft, (stored.nid,)):
                return stored
        raise Unavailable("The room changes too fast")

    async def _root_of(self, draft: Draft, state: Sequence[StoredEvent]) -> bytes:
        """Make the root of a claimed state, by what differs from the present one."""
        claimed = {
            each.event.key: each.nid
            for each in reversed(state)
            if each.event.is_state and each.status is not Status.REJECTED
        }
        present = await draft.run(state_trie.all_entries(StateRoot(draft.root)))
        if claimed.get(CREATE) != present.get(CREATE):
            raise Forbidden("The state that another server claims lacks the room's create event")
        changes: dict[tuple[str, str], int | None] = {key: None for key in present if key not in claimed}
        changes |= {key: nid for key, nid in claimed.items() if present.get(key) != nid}
        return await draft.apply(draft.root, changes)

    async def _history(self, draft: Draft, event: Event, root: bytes) -> StoredEvent:
        """Judge an event on a claimed state, and lay down its rows and the gaps before it."""
        found = await draft.by_id((event.event_id, *event.auth_events, *event.prev_events))
        await draft.look_up((event.event_id,))
        auth = [found[each] for each in event.auth_events if each in found]
        if len(auth) < len(event.auth_events):
            raise Forbidden("The event names events as its authority that are nowhere")
        create = (await draft.bare_state(root, (CREATE,))).get(CREATE)
        implied = None if event.version.create_in_auth_events else create
        against = by_authority(event, auth, implied) or refusal(
            event, await draft.bare_state(root, judging_keys(event))
        )
        (incoming,) = await self.store.incoming((event,))
        own = found.get(event.event_id)
        below = await draft.ground.read(gaps.depths, draft.room.nid, (event.event_id,))
        most = below.get(event.event_id, MAX_DEPTH + 1) - 1
        stored = StoredEvent(
            event,
            incoming.nid if own is None else own.nid,
            draft.room.nid,
            Status.REJECTED if against is not None else Status.ACCEPTED,
            root,
            max(0, min(event.depth, most)),
            incoming.sender_nid,
            self.author.classify(event),
        )
        stored, relation = await with_relation(draft, stored)
        clock = None
        if event.is_state and against is None:
            clock = clock_of(stored.nid, auth, None, {}, await draft.clock_rows([each.nid for each in auth]))
        missing = [each for each in event.prev_events if each not in found or found[each].root_before is None]
        rows = (
            events.placed_rows(row_of(stored, relation, clock)),
            gaps.filled_rows(draft.room.nid, (event.event_id,)),
            gaps.gap_rows(draft.room.nid, missing, stored.nid, stored.depth),
        )
        redactions: tuple[Rows, ...] = ()
        redacted = None
        if against is None:
            stored, redactions, redacted = await with_redactions(draft, stored)
        draft.add(stored, rows + redactions)
        if redacted is not None:
            draft.change(redacted.nid)
        return stored

    async def _draft(self, room: Room) -> Draft:
        head = await self.store.heads.get(room.nid)
        return Draft.on(self.store.ground(room), room, head.place)

    async def _commit(self, draft: Draft, nids: Collection[int]) -> bool:
        """Commit a draft; False if it must be made anew, with nothing remembered of its events."""
        try:
            await self.store.commit(draft)
        except (HeadMoved, Poisoned):
            self.store.state.stored.forget(draft.room.nid, nids)
            return False
        return True
