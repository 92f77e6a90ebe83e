"""Tests of state resolution: against another implementation's answers, and by what must always hold."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from attrs import evolve, frozen
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from protocol.events import Event, load_event
from protocol.identifiers import EventID, RoomID, StateKey
from protocol.room_versions import ROOM_VERSIONS, RoomVersion, StateResolution
from protocol.state_resolution import (
    Answer,
    Conflict,
    NeedAuthDifference,
    NeedEvents,
    NeedSubgraph,
    NeedUnconflicted,
    Request,
    Steps,
    resolve,
    resolve_in_memory,
)
from protocol.state_resolution.known import Known
from protocol.state_resolution.power_order import is_power_event
from tests.protocol.helpers import VECTORS

State = dict[StateKey, EventID]


@frozen
class Room:
    """A room of the vectors, with states to be resolved and what they resolve to."""

    version: RoomVersion
    events: Mapping[EventID, Event]
    cases: Sequence[tuple[Sequence[State], State]]


def make_event(version: RoomVersion, room_id: str, row: Sequence[Any], ids: Sequence[str]) -> Event:
    """Make an event of a row: ID, type, sender, state key, content, time, depth, and numbers of others."""
    event_id, kind, sender, state_key, content, origin_server_ts, depth, prev, auth = row

    def references(numbers: Sequence[int]) -> list[Any]:
        return [[ids[each], {}] if version.pairs_in_references else ids[each] for each in numbers]

    pdu = {
        "type": kind,
        "sender": sender,
        "state_key": state_key,
        "content": content,
        "origin_server_ts": origin_server_ts,
        "depth": depth,
        "prev_events": references(prev),
        "auth_events": references(auth),
    }
    raw = json.dumps(pdu).encode()
    return load_event(raw, version, event_id=EventID(event_id), room_id=RoomID(room_id))


def make_room(version: RoomVersion, room_id: str, rows: Sequence[Sequence[Any]]) -> dict[EventID, Event]:
    """Make the events of a room from rows."""
    ids = [row[0] for row in rows]
    events = [make_event(version, room_id, row, ids) for row in rows]
    return {event.event_id: event for event in events}


@cache
def vectors(name: str) -> tuple[Room, ...]:
    """Read rooms that Synapse resolved."""
    rooms = []
    for found in json.loads((VECTORS / f"{name}.json").read_text(encoding="utf-8")):
        version = ROOM_VERSIONS[found["v"]]
        events = make_room(version, found["room"], found["events"])
        in_order = list(events.values())

        def state(numbers: Sequence[int], in_order: list[Event] = in_order) -> State:
            return {in_order[each].key: in_order[each].event_id for each in numbers}

        cases = [([state(each) for each in sets], state(wanted)) for sets, wanted in found["cases"]]
        rooms.append(Room(version, events, cases))
    return tuple(rooms)


def all_rooms() -> tuple[Room, ...]:
    """Give all rooms of the vectors.

    In `decisive` are cases that come out otherwise without the subgraph of version 12, or without the choice
    of version 1 among events that bear on no authorisation.
    """
    return vectors("state_resolution") + vectors("state_resolution_decisive")


def all_cases() -> Iterator[tuple[Room, Sequence[State], State]]:
    """Give every case of the vectors."""
    for room in all_rooms():
        for sets, wanted in room.cases:
            yield room, sets, wanted


class VectorTest(SynchronousTestCase):
    """Rooms at random, as Synapse's code resolves them."""

    def test_vectors(self) -> None:
        """Every algorithm gives what Synapse's gives for the same states (security: S6)."""
        for room, sets, wanted in all_cases():
            self.assertEqual(resolve_in_memory(room.version, sets, room.events), wanted, room.version.id)

    def test_vectors_cover_all_algorithms(self) -> None:
        """The vectors have cases of each algorithm in which the states differ."""
        found = {room.version.state_resolution for room, sets, _ in all_cases() if sets[0] != sets[1]}
        self.assertEqual(found, set(StateResolution))

    @settings(max_examples=150, deadline=None)
    @given(st.data())
    def test_order_of_states(self, data: st.DataObject) -> None:
        """Neither the order of the states nor saying one twice changes the result (security: S6)."""
        room = data.draw(st.sampled_from(all_rooms()))
        sets, wanted = data.draw(st.sampled_from(room.cases))
        shuffled = data.draw(st.permutations(sets))
        again = data.draw(st.sampled_from(sets))
        shuffled = [dict(data.draw(st.permutations(list(each.items())))) for each in shuffled]
        events = dict(data.draw(st.permutations(list(room.events.items()))))
        self.assertEqual(resolve_in_memory(room.version, [*shuffled, again], events), wanted)

    def test_idempotent(self) -> None:
        """States that are equal resolve to themselves (security: S6)."""
        for room, _, wanted in all_cases():
            self.assertEqual(resolve_in_memory(room.version, [wanted, dict(wanted)], room.events), wanted)


def row(event_id: str, key: StateKey, content: object, at: int, links: Sequence[int]) -> list[Any]:
    """Write a row of an event of Alice's whose `auth_events` are `links`."""
    return [event_id, key[0], "@alice:x", key[1], content, at, at, [], list(links)]


CREATE = ("m.room.create", "")
LEVELS = ("m.room.power_levels", "")
RULES = ("m.room.join_rules", "")
ALICE = ("m.room.member", "@alice:x")
BOB = ("m.room.member", "@bob:y")


def small_room(version: RoomVersion) -> tuple[dict[EventID, Event], dict[str, EventID]]:
    """Make a room of Alice and Bob, in which Bob gets to be banned; names are those of events."""
    hashed = version.hashed_event_ids
    names = ["create", "alice", "levels", "rules", "bob", "ban", "topic"]
    ids = [f"${name.ljust(43, '_')}" if hashed else f"${name}:x" for name in names]
    first = [0] if version.create_in_auth_events else []
    levels = {"users": {} if version.privileged_creators else {"@alice:x": 100}}
    rows = [
        row(ids[0], CREATE, {"creator": "@alice:x", "room_version": version.id}, 1, []),
        [*row(ids[1], ALICE, {"membership": "join"}, 2, first)[:7], [0], first],
        row(ids[2], LEVELS, levels, 3, [*first, 1]),
        row(ids[3], RULES, {"join_rule": "public"}, 4, [*first, 1, 2]),
        row(ids[4], BOB, {"membership": "join"}, 5, [*first, 2, 3]),
        row(ids[5], BOB, {"membership": "ban"}, 6, [*first, 1, 2, 4]),
        row(ids[6], ("m.room.topic", ""), {"topic": "x"}, 7, [*first, 1, 2]),
    ]
    rows[4][2] = "@bob:y"
    room_id = "!" + ids[0][1:] if version.room_id_is_create_hash else "!room:x"
    named = dict(zip(names, map(EventID, ids), strict=True))
    return make_room(version, room_id, rows), named


V11, V12 = ROOM_VERSIONS["11"], ROOM_VERSIONS["12"]


class RuleTest(SynchronousTestCase):
    """What the algorithms must do in rooms made for it."""

    def states(self, version: RoomVersion, *forks: str) -> tuple[dict[EventID, Event], list[State]]:
        """Give a room and its state after each of the events named, the base being common."""
        events, named = small_room(version)
        base = {events[named[each]].key: named[each] for each in ("create", "alice", "levels", "rules")}
        return events, [{**base, events[named[each]].key: named[each]} for each in forks]

    def test_ban_wins(self) -> None:
        """A ban holds against the older membership in every room version (security: S6)."""
        for version in ROOM_VERSIONS.values():
            events, states = self.states(version, "bob", "ban")
            resolved = resolve_in_memory(version, states, events)
            self.assertEqual(events[resolved[BOB]].membership, "ban", version.id)

    def test_power_events(self) -> None:
        """Levels and join rules with a state key of somebody's choice are no power events, as elsewhere."""
        room_id = "!room:x"
        rows = [
            row(f"${number}".ljust(44, "_"), key, content, number, [])
            for number, (key, content) in enumerate(
                [
                    (LEVELS, {}),
                    (RULES, {"join_rule": "invite"}),
                    (BOB, {"membership": "ban"}),
                    ((LEVELS[0], "odd"), {}),
                    ((RULES[0], "odd"), {"join_rule": "invite"}),
                    (ALICE, {"membership": "leave"}),
                    (BOB, {"membership": "invite"}),
                ]
            )
        ]
        found = [is_power_event(event) for event in make_room(V11, room_id, rows).values()]
        self.assertEqual(found, [True, True, True, False, False, False, False])

    def test_missing_key_is_conflicted(self) -> None:
        """An event that only one state has is judged, and stays if it is allowed."""
        for version in ROOM_VERSIONS.values():
            events, states = self.states(version, "topic", "bob")
            self.assertEqual(resolve_in_memory(version, states, events), states[0] | states[1])

    def test_rejected_candidate(self) -> None:
        """A candidate that was rejected never wins, and a key left with none has no winner."""
        for version in ROOM_VERSIONS.values():
            events, states = self.states(version, "topic", "bob")
            accepted = {key: event for key, event in events.items() if event.type != "m.room.topic"}
            self.assertEqual(resolve_in_memory(version, states, accepted), states[1])

    def test_unconflicted_written_back(self) -> None:
        """What all states agree on stays, whatever older events the auth difference brings (security: S6)."""
        for room, sets, wanted in all_cases():
            agreed = set(sets[0].items()).intersection(*(each.items() for each in sets))
            self.assertLessEqual(agreed, set(wanted.items()), room.version.id)

    def test_key_of_no_state(self) -> None:
        """An event of the auth difference comes back under a key that no state has."""
        events, states = self.states(V11, "topic", "rules")
        _, named = small_room(V11)

        def answer(request: Request) -> Answer:
            if isinstance(request, NeedAuthDifference):
                return frozenset((named["bob"],))
            return reply(request, states, events)

        winners = drive(V11, Conflict({("m.room.topic", ""): frozenset((named["topic"],))}), answer)
        self.assertEqual(winners, {("m.room.topic", ""): named["topic"], BOB: named["bob"]})

    def test_asks_for_little(self) -> None:
        """A resolution asks for keys that bear on it, never for a whole state, and for no event twice."""
        for version in ROOM_VERSIONS.values():
            events, states = self.states(version, "bob", "ban")
            asked: list[EventID] = []
            keys: set[StateKey] = set()

            def answer(
                request: Request,
                asked: list[EventID] = asked,
                keys: set[StateKey] = keys,
                states: list[State] = states,
                events: dict[EventID, Event] = events,
            ) -> Answer:
                if isinstance(request, NeedEvents):
                    asked += request.ids
                if isinstance(request, NeedUnconflicted):
                    keys |= request.keys
                return reply(request, states, events)

            drive(version, Conflict({BOB: frozenset(each[BOB] for each in states)}), answer)
            self.assertEqual(len(asked), len(set(asked)))
            self.assertLessEqual(keys, {CREATE, ALICE, LEVELS, RULES})

    def test_authority_of_another_room(self) -> None:
        """What an event names of another room is no authority for it (security: S2)."""
        for version in ROOM_VERSIONS.values():
            events, named = small_room(version)
            ban = events[named["ban"]]
            for name in ("create", "alice", "levels"):
                there = evolve(events[named[name]], room_id=RoomID("!other:x"))
                known = Known()
                run(known.fetch_with_authorities([ban.event_id]), {**events, there.event_id: there})
                keys = {CREATE, ALICE, LEVELS, BOB} - {there.key}
                self.assertEqual(known.authorities(ban).keys(), keys, (version.id, name))

    def test_subgraph_only_where_it_belongs(self) -> None:
        """Only version 12 asks for the subgraph between conflicted events (security: S6)."""
        for version in ROOM_VERSIONS.values():
            events, states = self.states(version, "bob", "ban")
            asked = []

            def answer(
                request: Request,
                asked: list[Request] = asked,
                states: list[State] = states,
                events: dict[EventID, Event] = events,
            ) -> Answer:
                asked.append(request)
                return reply(request, states, events)

            drive(version, Conflict({BOB: frozenset(each[BOB] for each in states)}), answer)
            found = any(isinstance(each, NeedSubgraph) for each in asked)
            self.assertEqual(found, version.state_resolution is StateResolution.V2_1)


def reply(request: Request, states: Sequence[State], events: Mapping[EventID, Event]) -> Answer:
    """Answer a request about states which differ in their own events alone."""
    if isinstance(request, NeedEvents):
        return {each: events[each] for each in request.ids if each in events}
    if isinstance(request, NeedUnconflicted):
        return {
            key: states[0][key]
            for key in request.keys
            if key in states[0] and all(each.get(key) == states[0][key] for each in states)
        }
    return frozenset()


def run(steps: Steps[None], events: Mapping[EventID, Event]) -> None:
    """Run a part of a resolution that asks for nothing but events."""
    try:
        request = next(steps)
        while True:
            request = steps.send(reply(request, [], events))
    except StopIteration:
        return


def drive(version: RoomVersion, conflict: Conflict, answer: Any) -> dict[StateKey, EventID | None]:
    """Run a resolution with answers from a function."""
    steps = resolve(version, conflict)
    try:
        request = next(steps)
        while True:
            request = steps.send(answer(request))
    except StopIteration as stop:
        winners: dict[StateKey, EventID | None] = stop.value
        return winners
