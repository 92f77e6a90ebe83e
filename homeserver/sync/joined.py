"""The events and state of the rooms a delta shows, found for all rooms together in a few steps.

Each step is one look-up for all rooms (spans, bodies, states): a first sync of a hundred rooms costs a
handful of queries. The result of a room, `RoomContent`, has nothing of one recipient in it except where
the reader's history decided what is visible; `sharing.py` keeps those that all joined recipients share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import field, frozen

from homeserver.history.visibility import HIDDEN, Reader, Verdict, Visibility
from homeserver.sync.bodies import Bodies, Name
from homeserver.sync.filters import Filter
from homeserver.sync.render import ClientEvent
from homeserver.sync.rooms import Shown
from homeserver.sync.session import Options, Session
from homeserver.sync.spans import RoomSpan
from homeserver.sync.state import (
    MEMBER,
    at_start,
    changed_in,
    first_of_keys,
    is_member,
    replay,
    senders_of,
)
from homeserver.sync.states import States
from homeserver.sync.timeline import Timeline, choose, ignored_sender, passes
from protocol.identifiers import StateKey, UserID
from storage import spans
from storage.database import Database
from storage.state_trie import EMPTY_ROOT, Difference, StateRoot, diff
from storage.trie_lookup import Sought, Whole
from storage.trie_walks import Walk


@frozen(eq=False)
class RoomContent:
    """What a room's timeline and state consist of."""

    timeline: Timeline
    replaced: Mapping[int, ClientEvent]
    """By nid of a state event of the timeline: the event it replaced."""
    because: Mapping[Name, ClientEvent]
    """By name of a redacted event: its redaction."""
    memberships: Mapping[int, str]
    """By nid: the reader's membership at the event; others: `join`."""
    state: tuple[ClientEvent, ...]
    """The state to give, as the options ask; members that only lazy loading adds are apart."""
    members: Mapping[UserID, ClientEvent]
    """With lazy loading: the member events of the timeline's senders."""
    members_changed: bool
    senders: frozenset[UserID] = field(init=False)

    @senders.default
    def _senders(self) -> frozenset[UserID]:
        """Collect the senders once."""
        return frozenset(event.sender for event in self.timeline.events)

    @property
    def tells(self) -> bool:
        """Tell whether there is anything to say."""
        return bool(self.timeline.events or self.state or self.timeline.limited)


@frozen(eq=False)
class Task:
    """One room to be found out about."""

    shown: Shown
    span: RoomSpan
    reader: Reader
    heroes: tuple[UserID, ...] = ()
    """Users whose member events are given too, with lazy loading."""

    @property
    def room_nid(self) -> int:
        """Give the room's nid."""
        return self.shown.room.room_nid

    @property
    def judged(self) -> bool:
        """Tell whether each event's visibility must be looked at: the reader may not have been there."""
        sees_all = self.shown.throughout and self.span.straight
        return not sees_all and self.shown.own_only is None


@frozen(eq=False)
class _Chosen:
    """A task whose timeline is chosen."""

    task: Task
    timeline: Timeline
    bodies: Mapping[int, ClientEvent]
    memberships: Mapping[int, str]


@frozen(eq=False)
class RoomContents:
    """Finds the contents of rooms."""

    _database: Database
    _bodies: Bodies
    _states: States
    _visibility: Visibility

    async def find(
        self, tasks: Sequence[Task], session: Session, options: Options, ignored: frozenset[UserID]
    ) -> dict[int, RoomContent]:
        """Give the content of each room, by room nid."""
        chosen = await self._choose(tasks, options.filter, ignored)
        changed, starts, members = await self._state(chosen, session, options)
        replaced = [_replaced(each, start) for each, start in zip(chosen, starts, strict=True)]
        given = [_given(*each, options=options) for each in zip(chosen, changed, replaced, strict=True)]
        names: set[Name] = set()
        for each, swap, state, lazy in zip(chosen, replaced, given, members, strict=True):
            room = each.task.room_nid
            for nids in (swap.values(), state.values(), lazy.values()):
                names.update((room, nid) for nid in nids)
        found = await self._bodies.get(names)
        shown = [event for each in chosen for event in each.timeline.events]
        because = await self._bodies.because([*shown, *found.values()])
        return {
            each.task.room_nid: _content(each, _Loaded(found, because, swap, state, lazy), options)
            for each, swap, state, lazy in zip(chosen, replaced, given, members, strict=True)
        }

    async def _choose(
        self, tasks: Sequence[Task], wanted: Filter, ignored: frozenset[UserID]
    ) -> list[_Chosen]:
        """Load the events of all spans and choose the timelines."""
        found = await self._events(tasks)
        verdicts = await self._judge(tasks, found)
        ignores = ignored_sender(ignored)
        chosen = []
        for task in tasks:
            bodies = found[task.room_nid]

            is_wanted = wanted.timeline.allows_room(task.shown.room.room_id)

            def hidden(event: ClientEvent, task: Task = task, is_wanted: bool = is_wanted) -> bool:
                seen = not task.judged or verdicts.get(event.nid, HIDDEN).visible
                return not (seen and is_wanted) or ignores(event)

            timeline = choose(task.span, bodies, wanted, hidden)
            chosen.append(_Chosen(task, timeline, bodies, _memberships(task, timeline, verdicts)))
        return chosen

    async def _events(self, tasks: Sequence[Task]) -> dict[int, dict[int, ClientEvent]]:
        """Give the events of all spans, by room and nid, asking the database at most once."""
        found: dict[int, dict[int, ClientEvent]] = {task.room_nid: {} for task in tasks}
        missing: list[Name] = []
        for task in tasks:
            for entry in task.span.events:
                assert entry.ref is not None
                event = self._bodies.of_entry(entry)
                if event is None:
                    missing.append((task.room_nid, entry.ref))
                else:
                    found[task.room_nid][entry.ref] = event
        if missing:
            for (room_nid, nid), event in (await self._bodies.get(missing)).items():
                found[room_nid][nid] = event
        return found

    async def _judge(
        self, tasks: Sequence[Task], found: Mapping[int, Mapping[int, ClientEvent]]
    ) -> dict[int, Verdict]:
        """Judge the events of rooms in which the reader may not have been all the time."""
        judged = [task for task in tasks if task.judged]
        if not judged:
            return {}
        events = [event for task in judged for event in found[task.room_nid].values()]
        return await self._visibility.judge(events, {task.room_nid: task.reader for task in judged})

    async def _state(
        self, chosen: Sequence[_Chosen], session: Session, options: Options
    ) -> tuple[list[dict[StateKey, int]], list[dict[StateKey, int]], list[dict[StateKey, int]]]:
        """Look up, for each room: what changed, what stood before the timeline, and its senders' members."""
        before = await self._roots_before(chosen)
        lazy = options.filter.lazy_load_members
        roots = [root_after(each.task.span, before) for each in chosen]
        changed = await self._changed(chosen, roots, before, lazy=lazy)
        starts: list[Sought] = []
        members: list[Sought] = []
        for each, root in zip(chosen, roots, strict=True):
            room, events = each.task.room_nid, each.timeline.events
            starts.append(Sought(room, _start_root(each, root), list(first_of_keys(events))))
            speakers = senders_of(events) if lazy else []
            if lazy:
                speakers += each.task.heroes
            if lazy and each.task.shown.full:
                speakers.append(session.user_id)
            members.append(Sought(room, root, [(MEMBER, user_id) for user_id in speakers]))
        found = await self._states.find([*starts, *members])
        return changed, found[: len(chosen)], found[len(chosen) :]

    async def _changed(
        self,
        chosen: Sequence[_Chosen],
        roots: Sequence[StateRoot],
        before: Mapping[int, StateRoot],
        *,
        lazy: bool,
    ) -> list[dict[StateKey, int]]:
        """Give what each client does not know of the state at the end of its timeline."""
        changed: list[dict[StateKey, int]] = [{} for _ in chosen]
        whole: dict[int, Whole] = {}
        different: dict[int, tuple[int, Walk[Difference]]] = {}
        for index, (each, root) in enumerate(zip(chosen, roots, strict=True)):
            room, span, shown = each.task.room_nid, each.task.span, each.task.shown
            if shown.full:
                whole[index] = Whole(room, root, MEMBER if lazy else None)
            elif shown.own_only is not None or (span.complete and span.straight):
                changed[index] = changed_in(span, each.bodies)
            else:
                different[index] = (room, diff(before.get(room, EMPTY_ROOT), root))
        for index, state in zip(whole, await self._states.read(list(whole.values())), strict=True):
            changed[index] = state
        for index, found in zip(different, await self._states.run(list(different.values())), strict=True):
            changed[index] = {key: nid for key, (_, nid) in found.items() if nid is not None}
        return changed

    async def _roots_before(self, chosen: Sequence[_Chosen]) -> dict[int, StateRoot]:
        """Give the state at the lower bound of rooms that need it, with one query for all."""
        wanted = []
        for each in chosen:
            span, shown = each.task.span, each.task.shown
            if not span.entries and shown.full:
                wanted.append((each.task.room_nid, span.upto))
            elif not (shown.full or shown.own_only is not None or (span.complete and span.straight)):
                wanted.append((each.task.room_nid, span.after))
        found = await self._database.read(spans.roots_at, wanted) if wanted else {}
        return {room_nid: StateRoot(root) for room_nid, root in found.items()}


def root_after(span: RoomSpan, before: Mapping[int, StateRoot]) -> StateRoot:
    """Give the resolved state at the end of a span; without entries, the state before it."""
    for entry in reversed(span.entries):
        if entry.root is not None:
            return StateRoot(entry.root)
    return before.get(span.room_nid, EMPTY_ROOT)


def _start_root(each: _Chosen, root: StateRoot) -> StateRoot:
    """Give the state before the first event of the timeline."""
    events = each.timeline.events
    return root if not events else StateRoot(events[0].root_before or EMPTY_ROOT)


def _memberships(task: Task, timeline: Timeline, verdicts: Mapping[int, Verdict]) -> dict[int, str]:
    """Give the reader's membership at the events of a timeline, where it may not be `join`."""
    if task.shown.own_only is not None:
        return {event.nid: event.membership or "leave" for event in timeline.events}
    return {event.nid: verdicts[event.nid].membership for event in timeline.events if event.nid in verdicts}


def _replaced(each: _Chosen, start: Mapping[StateKey, int]) -> dict[int, int]:
    """Tell which event each state event of the timeline replaced."""
    return replay(each.timeline.events, start)


def _given(
    each: _Chosen, changed: Mapping[StateKey, int], replaced: Mapping[int, int], *, options: Options
) -> dict[StateKey, int]:
    """Tell which state is given beside the timeline."""
    if options.state_after:
        return dict(changed)
    whole = each.timeline.limited or each.task.shown.full
    return at_start(changed, each.timeline.events, replaced, whole=whole)


@frozen(eq=False)
class _Loaded:
    """What was found out about one room."""

    events: Mapping[Name, ClientEvent]
    because: Mapping[Name, ClientEvent]
    replaced: Mapping[int, int]
    state: Mapping[StateKey, int]
    lazy: Mapping[StateKey, int]


def _content(each: _Chosen, loaded: _Loaded, options: Options) -> RoomContent:
    """Put a room's content together from what was loaded."""
    room, found = each.task.room_nid, loaded.events
    shown = set() if options.state_after else {event.nid for event in each.timeline.events}
    events = {key: found[room, nid] for key, nid in loaded.state.items() if (room, nid) in found}
    members = {
        UserID(key[1]): found[room, nid]
        for key, nid in loaded.lazy.items()
        if key not in events and nid not in shown and (room, nid) in found
    }
    in_timeline = any(event.type == MEMBER for event in each.timeline.events)
    allowed = options.filter.state
    if not allowed.allows_room(each.task.shown.room.room_id):
        events, members = {}, {}
    return RoomContent(
        each.timeline,
        {nid: found[room, old] for nid, old in loaded.replaced.items() if (room, old) in found},
        loaded.because,
        each.memberships,
        tuple(event for event in events.values() if passes(event, allowed)),
        {user_id: event for user_id, event in members.items() if passes(event, allowed)},
        in_timeline or each.task.shown.full or any(is_member(key) for key in loaded.state),
    )
