"""Resolve states of a room: the driver of `protocol.state_resolution` over tries and auth clocks.

Only what differs between the states is looked at: their roots are compared by hash, the auth difference
is arithmetic on clocks. Answers are kept by the set of roots.

Source: rooms/fragments/v2-state-res.md; rooms/v1.md and v12.md, "State resolution".
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence

from attrs import define, frozen

from homeserver.events.clocks import AuthClock, Reach, contains, difference, union
from homeserver.events.draft import Draft
from homeserver.events.stored import Status, StoredEvent
from protocol.events import Event
from protocol.identifiers import EventID, StateKey
from protocol.state_resolution import (
    Answer,
    Conflict,
    NeedAuthDifference,
    NeedEvents,
    NeedSubgraph,
    NeedUnconflicted,
    Request,
    resolve,
)
from storage import chains, state_trie
from storage.state_trie import StateRoot

MAX_CACHED = 2_000
"""Resolutions kept; each is as small as what was in conflict."""

CLOCKS_A_TIME = 2_000


@frozen(eq=False)
class _Conflicted:
    """What several states do not agree on: the nid of each, None where a state has none."""

    roots: tuple[bytes, ...]
    choices: Mapping[StateKey, tuple[int | None, ...]]

    @property
    def nids(self) -> set[int]:
        """Give all events that stand for election."""
        return {nid for choice in self.choices.values() for nid in choice if nid is not None}

    def nids_of(self, index: int) -> set[int]:
        """Give those of one state."""
        return {choice[index] for choice in self.choices.values()} - {None}  # type: ignore[return-value]


class Resolver:
    """Resolves states; one for all rooms, since it keeps answers by room and roots."""

    def __init__(self) -> None:
        """Start with no answers kept."""
        self._answers: OrderedDict[tuple[int, frozenset[bytes]], dict[StateKey, int | None]] = OrderedDict()

    async def resolve(self, draft: Draft, roots: Iterable[bytes]) -> bytes:
        """Give the root of the state resolved from states of the draft's room, making its nodes there."""
        distinct = tuple(sorted(set(roots)))
        if len(distinct) == 1:
            return distinct[0]
        conflicted = await _compare(draft, distinct)
        key = (draft.room.nid, frozenset(distinct))
        winners = self._answers.get(key)
        if winners is None:
            winners = await _Resolution(draft, conflicted).run()
            self._answers[key] = winners
            if len(self._answers) > MAX_CACHED:
                self._answers.popitem(last=False)
        else:
            self._answers.move_to_end(key)
        ours = {key: choice[0] for key, choice in conflicted.choices.items()}
        changes = {key: nid for key, nid in winners.items() if ours.get(key) != nid}
        return await draft.apply(distinct[0], changes)


async def _compare(draft: Draft, roots: Sequence[bytes]) -> _Conflicted:
    """Find the keys under which not all states have the same event."""
    base = roots[0]
    differences = [await draft.diff(base, other) for other in roots[1:]]
    choices: dict[StateKey, tuple[int | None, ...]] = {}
    for each in differences:
        for key, (ours, _) in each.items():
            if key not in choices:
                others = (found[key][1] if key in found else ours for found in differences)
                choices[key] = (ours, *others)
    return _Conflicted(tuple(roots), choices)


@define(eq=False)
class _Resolution:
    """One resolution on its way."""

    draft: Draft
    conflicted: _Conflicted

    async def run(self) -> dict[StateKey, int | None]:
        """Answer what the algorithm asks, and give the winner of each conflicted key."""
        stored = await self.draft.by_nid(self.conflicted.nids)
        candidates = {
            key: frozenset(stored[nid].event.event_id for nid in choice if nid is not None)
            for key, choice in self.conflicted.choices.items()
        }
        steps = resolve(self.draft.room.version, Conflict(candidates))
        try:
            request = next(steps)
            while True:
                request = steps.send(await self._answer(request))
        except StopIteration as stop:
            winners: Mapping[StateKey, EventID | None] = stop.value
        chosen = await self.draft.by_id([each for each in winners.values() if each is not None])
        return {key: None if won is None else chosen[won].nid for key, won in winners.items()}

    async def _answer(self, request: Request) -> Answer:
        if isinstance(request, NeedEvents):
            return await self._events(request.ids)
        if isinstance(request, NeedUnconflicted):
            return await self._unconflicted(request.keys)
        if isinstance(request, NeedAuthDifference):
            return await self._auth_difference()
        assert isinstance(request, NeedSubgraph)
        return await self._subgraph(request.ids)

    async def _events(self, ids: Collection[EventID]) -> dict[EventID, Event]:
        """Give events; rejected ones count as absent. To be asked for none is to be asked for a pause."""
        if not ids:
            await self.draft.ground.turn()
            return {}
        found = await self.draft.by_id(ids)
        return {
            event_id: stored.event
            for event_id, stored in found.items()
            if stored.status is not Status.REJECTED
        }

    async def _unconflicted(self, keys: Collection[StateKey]) -> dict[StateKey, EventID]:
        """Give the events that all states agree on."""
        wanted = [key for key in keys if key not in self.conflicted.choices]
        state = await self.draft.state(self.conflicted.roots[0], wanted)
        return {key: stored.event.event_id for key, stored in state.items()}

    async def _auth_difference(self) -> frozenset[EventID]:
        """Give what is in the auth chains of some states but not of all.

        Reaches of conflicted events give a difference that is rarely more than those events; only if it is
        do the unconflicted events, which are in every state, count too.
        """
        reaches = [
            union(await self._clocks(self.conflicted.nids_of(index)))
            for index in range(len(self.conflicted.roots))
        ]
        found = await self._in_spans(reaches)
        if found.keys() <= self.conflicted.nids:
            return frozenset(found.values())
        common = await self._unconflicted_reach()
        joined = []
        for reach in reaches:
            whole = dict(common)
            for chain, number in reach.items():
                whole[chain] = max(number, whole.get(chain, 0))
            joined.append(whole)
        return frozenset((await self._in_spans(joined)).values())

    async def _unconflicted_reach(self) -> dict[int, int]:
        """Give the auth chains of all that the states agree on, a part of them at a time."""
        everything = await self.draft.run(state_trie.all_entries(StateRoot(self.conflicted.roots[0])))
        nids = [nid for key, nid in everything.items() if key not in self.conflicted.choices]
        reach: dict[int, int] = {}
        for start in range(0, len(nids), CLOCKS_A_TIME):
            part = await self._clocks(nids[start : start + CLOCKS_A_TIME])
            for chain, number in union(part).items():
                reach[chain] = max(number, reach.get(chain, 0))
            await self.draft.ground.turn()
        return reach

    async def _clocks(self, nids: Collection[int]) -> list[AuthClock]:
        made = self.draft.clocks
        rows = await self.draft.clock_rows(nids)
        read = [AuthClock.unpack(row.chain, row.number, row.clock) for row in rows]
        return read + [made[nid] for nid in nids if nid in made]

    async def _in_spans(self, reaches: Sequence[Reach]) -> dict[int, EventID]:
        """Give the events, by nid, that lie in some of the chains and not in all."""
        spans = difference(reaches)
        rows = [(span.chain, span.after, span.upto) for span in spans]
        found: dict[int, str] = {}
        if rows:
            found = await self.draft.ground.read(chains.events_in, self.draft.room.nid, rows)
        bounds = {span.chain: span for span in spans}
        made = [
            nid
            for nid, clock in self.draft.clocks.items()
            if (span := bounds.get(clock.chain)) is not None and span.after < clock.number <= span.upto
        ]
        result = {nid: EventID(event_id) for nid, event_id in found.items()}
        for nid, stored in (await self.draft.by_nid(made)).items():
            result[nid] = stored.event.event_id
        return result

    async def _subgraph(self, ids: Collection[EventID]) -> frozenset[EventID]:
        """Give the events on auth paths between these events, the events themselves included."""
        stored = await self.draft.by_id(ids)
        clocks = await self._clocks([each.nid for each in stored.values()])
        lowest: dict[int, int] = {}
        for clock in clocks:
            lowest[clock.chain] = min(clock.number, lowest.get(clock.chain, clock.number))
        above = union(clocks)
        rows = [(chain, 0, number) for chain, number in above.items()]
        read = await self.draft.ground.read(chains.clocks_in, self.draft.room.nid, rows)
        found = {event.event.event_id for event in stored.values()}
        for row in read:
            clock = AuthClock.unpack(row.chain, row.number, row.clock)
            if any(contains(clock.reach, chain, number) for chain, number in lowest.items()):
                found.add(EventID(row.event_id))
        found.update(await self._made_between(above, lowest))
        return frozenset(found)

    async def _made_between(self, above: Reach, lowest: Mapping[int, int]) -> set[EventID]:
        """Give those on such paths that are not in the database yet."""
        nids = [
            nid
            for nid, clock in self.draft.clocks.items()
            if contains(above, clock.chain, clock.number)
            and any(contains(clock.reach, chain, number) for chain, number in lowest.items())
        ]
        made: Mapping[int, StoredEvent] = await self.draft.by_nid(nids)
        return {each.event.event_id for each in made.values()}
