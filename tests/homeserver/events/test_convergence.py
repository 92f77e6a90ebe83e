"""Servers that see the same events in different orders come to the same states, by every algorithm."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

from attrs import define, field, frozen

from homeserver.events.stored import Status
from protocol.events import Event, EventDraft
from protocol.identifiers import EventID, StateKey, UserID
from protocol.room_versions import ROOM_VERSIONS, V11, V12, RoomVersion
from protocol.state_resolution import resolve_in_memory
from storage.engines import open_database
from storage.migrate import migrate
from tests.homeserver.events.helpers import BOB, NOW, Worker, membership, message, start_worker
from tests.homeserver.events.incoming import IncomingEvents
from tests.homeserver.events.received_helpers import (
    CAROL,
    DAVE,
    Remote,
    imported,
    incoming_of,
    receive,
    remote_room,
)
from tests.storage.helpers import REACTOR, SqliteCase

ERIN = UserID("@erin:other.test")
USERS = (CAROL, DAVE, ERIN)
SEEDS = 2
RULES = ("public", "invite")


@define(eq=False)
class Branching:
    """A room on another server in which events are sent on any branch."""

    remote: Remote
    random: Random
    tips: list[tuple[Event, dict[StateKey, Event]]]
    made: list[Event] = field(factory=list)

    def send(self) -> None:
        """Send a state event on some branch, most often a contested one."""
        parent, state = self.random.choice(self.tips[-6:])
        room_id = parent.room_id
        sender = self.random.choice((CAROL, *USERS))
        target = self.random.choice(USERS)
        drafts: list[EventDraft] = [
            EventDraft(room_id, "m.room.topic", sender, {"topic": str(len(self.made))}, ""),
            EventDraft(room_id, "m.room.name", sender, {"name": str(len(self.made))}, ""),
            membership(room_id, target, self.random.choice(("ban", "leave", "invite")), sender),
            membership(room_id, sender, self.random.choice(("join", "leave"))),
            self._levels(state, sender),
            EventDraft(
                room_id,
                "m.room.join_rules",
                sender,
                {"join_rule": self.random.choice(("public", "invite"))},
                "",
            ),
        ]
        event = self.remote.build(self.random.choice(drafts), [parent], state)
        self.made.append(event)
        self.tips.append((event, {**state, event.key: event}))

    def merge(self) -> None:
        """Say something after two branches: before it, their states must be resolved."""
        (one, state), (other, _) = self.random.sample(self.tips[-8:], 2)
        event = self.remote.build(message(one.room_id, str(len(self.made)), CAROL), [one, other], state)
        self.made.append(event)
        self.tips.append((event, state))

    def _levels(self, state: dict[StateKey, Event], sender: UserID) -> EventDraft:
        before: dict[str, Any] = dict(state["m.room.power_levels", ""].content)
        users = {**before.get("users", {}), self.random.choice((DAVE, ERIN)): self.random.choice((0, 50, 60))}
        levels = {**before, "users": users}
        return EventDraft(self.tips[0][0].room_id, "m.room.power_levels", sender, levels, "")


@frozen
class Seen:
    """What a server makes of an event: whether it is rejected, and the state before it."""

    rejected: bool
    state: dict[StateKey, EventID]


class ConvergenceTest(SqliteCase):
    """Two servers that hear of the same events."""

    worker: Worker
    conflicts = 0

    async def second_worker(self) -> Worker:
        """Wire another server over a database of its own."""
        folder = Path(tempfile.mkdtemp(prefix="plait-sqlite-"))
        self.addCleanup(shutil.rmtree, folder)
        database = await open_database(f"sqlite:///{folder}/plait.db", REACTOR, pool_size=2)
        self.addCleanup(database.close)
        await migrate(database)
        return await start_worker(database)

    async def seen(self, worker: Worker, room_nid: int, made: list[Event]) -> dict[EventID, Seen]:
        """Give for each event whether it is rejected, and the state before it."""
        found = await worker.stored.by_id(room_nid, [event.event_id for event in made])
        seen: dict[EventID, Seen] = {}
        for event_id, stored in found.items():
            assert stored.root_before is not None
            state = await worker.state.all_events(room_nid, stored.root_before)
            ids = {key: each.event.event_id for key, each in state.items()}
            seen[event_id] = Seen(stored.status is Status.REJECTED, ids)
        return seen

    async def converge(self, version: RoomVersion, seed: int, count: int) -> None:
        """Let two servers hear of the same forks, in different orders that respect the graph."""
        remote, timeline = remote_room(version, (DAVE, ERIN))
        join = remote.put(membership(timeline[0].room_id, BOB, "join"), timeline[-1:])
        given = imported(remote, timeline, join)
        workers = (self.worker, await self.second_worker())
        edges: list[IncomingEvents] = [incoming_of(worker) for worker in workers]
        rooms = [await edge.import_room(given, now=NOW) for edge in edges]
        branching = Branching(remote, Random(seed), [(join, dict(remote.state))])
        for _ in range(2):
            branching.send()
        for number in range(count):
            branching.merge() if number % 4 == 3 else branching.send()
        for edge, room_nid in zip(edges, rooms, strict=True):
            await self.hear(edge, room_nid, branching.made, branching.random)
        one, two = [
            await self.seen(worker, room_nid, branching.made)
            for worker, room_nid in zip(workers, rooms, strict=True)
        ]
        assert one.keys() == {event.event_id for event in branching.made}
        assert one == two
        self.compare_with_walks(branching.made, one, [*timeline, join])

    def compare_with_walks(
        self, made: list[Event], seen: Mapping[EventID, Seen], before: list[Event]
    ) -> None:
        """See that resolving by clocks gives the states that walking all auth chains gives."""
        known = {event.event_id: event for event in before}
        known |= {event.event_id: event for event in made if not seen[event.event_id].rejected}
        conflicts = 0
        for event in made:
            parents = [parent for parent in event.prev_events if parent in seen]
            if len(parents) < 2:
                continue
            states = [self.state_after(known.get(parent), seen[parent]) for parent in parents]
            conflicts += states[0] != states[1]
            assert resolve_in_memory(event.version, states, known) == seen[event.event_id].state
        self.conflicts += conflicts

    def state_after(self, event: Event | None, seen: Seen) -> dict[StateKey, EventID]:
        """Give the state after an event (None: it was rejected)."""
        return {**seen.state, event.key: event.event_id} if event and event.is_state else dict(seen.state)

    async def hear(self, edge: IncomingEvents, room_nid: int, made: list[Event], random: Random) -> None:
        """Hand events in, each after its parents, otherwise in any order."""
        waiting = list(made)
        while waiting:
            left = {event.event_id for event in waiting}
            ready = [event for event in waiting if not left & set(event.prev_events)]
            event = random.choice(ready)
            waiting.remove(event)
            outcome = await receive(edge, room_nid, event)
            assert outcome.status is not None, outcome

    async def test_forks_resolve_equally_on_two_servers(self) -> None:
        """Whatever the order of arrival, the state before each event and its rejection are the same."""
        await migrate(self.database)
        self.worker = await start_worker(self.database)
        for version in (ROOM_VERSIONS["1"], ROOM_VERSIONS["2"], V11, V12):
            for seed in range(SEEDS):
                await self.converge(version, seed, 30)
        assert self.conflicts > 5 * SEEDS, self.conflicts
