"""Two servers without a network between them: what one builds is handed to the other as `Event` objects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from attrs import define, field

from homeserver.events.auth_chains import AuthChains
from homeserver.events.building import Author
from homeserver.events.nids import Room
from homeserver.events.received import ImportedRoom, Outcome
from homeserver.events.received_store import Store
from homeserver.events.stored import Status, StoredEvent
from protocol.auth_rules import auth_keys_for
from protocol.errors import NotFound
from protocol.events import Event, EventDraft, Links, build_event
from protocol.identifiers import EventID, KeyID, ServerName, StateKey, UserID
from protocol.room_versions import V11, RoomVersion
from protocol.signing import SigningKey
from storage import feed
from storage.database import Database, Transaction
from storage.feed import Entry
from storage.migrate import migrate
from tests.homeserver.events.helpers import NOW, SERVER, Worker, beginning, membership, start_worker
from tests.homeserver.events.incoming import IncomingEvents

OTHER = ServerName("other.test")
CAROL = UserID("@carol:other.test")
DAVE = UserID("@dave:other.test")
OTHER_KEY = SigningKey(b"\2" * 32, KeyID("ed25519:2"))


@define(eq=False)
class Peer:
    """What another server gives when asked; a test fills it, and counts the asking."""

    events: dict[EventID, Event] = field(factory=dict)
    states: dict[EventID, Sequence[Event]] = field(factory=dict)
    chain: Sequence[Event] = ()
    asked: list[str] = field(factory=list)

    async def event(self, server: ServerName, room: Room, event_id: EventID) -> Event | None:
        """Give one event."""
        self.asked.append("event")
        return self.events.get(event_id)

    async def before(
        self, server: ServerName, room: Room, between: tuple[Sequence[EventID], Sequence[EventID]], limit: int
    ) -> Sequence[Event]:
        """Give events between, nearest to the latest first."""
        self.asked.append("before")
        earliest, latest = between
        found: list[Event] = []
        waiting = [
            parent for each in latest if each in self.events for parent in self.events[each].prev_events
        ]
        while waiting and len(found) < limit:
            event_id = waiting.pop(0)
            if event_id in self.events and event_id not in earliest:
                found.append(self.events[event_id])
                waiting += self.events[event_id].prev_events
        return found

    async def state_ids(
        self, server: ServerName, room: Room, event_id: EventID
    ) -> tuple[Sequence[EventID], Sequence[EventID]]:
        """Give the state before an event."""
        self.asked.append("state_ids")
        if event_id not in self.states:
            raise NotFound("no such event")
        return [each.event_id for each in self.states[event_id]], [each.event_id for each in self.chain]

    async def state(
        self, server: ServerName, room: Room, event_id: EventID
    ) -> tuple[Sequence[Event], Sequence[Event]]:
        """Give the state before an event."""
        self.asked.append("state")
        return self.states[event_id], self.chain

    async def backfill(
        self, server: ServerName, room: Room, event_ids: Sequence[EventID], limit: int
    ) -> Sequence[Event]:
        """Give events before and including these."""
        self.asked.append("backfill")
        found: list[Event] = []
        waiting = list(event_ids)
        while waiting and len(found) < limit:
            event = self.events.get(waiting.pop(0))
            if event is not None and event not in found:
                found.append(event)
                waiting += event.prev_events
        return found


def incoming_of(worker: Worker, peer: Peer | None = None) -> IncomingEvents:
    """Wire the receiving of events over a worker."""
    store = Store(worker.database, worker.nids, worker.state, worker.heads, worker.persister, worker.clock)
    author = Author(SERVER, SigningKey(b"\1" * 32, KeyID("ed25519:1")))
    return IncomingEvents.over(store, author, peer or Peer())


async def chain_of(worker: Worker, room_nid: int, event_id: EventID) -> set[Event]:
    """Give the auth chain of an event."""
    nids = await AuthChains(worker.database, worker.stored, worker.nids).of_event(room_nid, event_id)
    return {stored.event for stored in (await worker.stored.by_nid(room_nid, nids)).values()}


@define(eq=False)
class Remote:
    """Another server that builds events as it likes."""

    version: RoomVersion
    state: dict[StateKey, Event] = field(factory=dict)
    made: int = 0

    def build(
        self,
        draft: EventDraft,
        prev_events: Sequence[Event],
        state: dict[StateKey, Event] | None = None,
        *,
        depth: int | None = None,
    ) -> Event:
        """Build an event after some others, authorized by `state` (or the remembered one)."""
        self.made += 1
        given = self.state if state is None else state
        keys = auth_keys_for(self.version, draft.type, draft.sender, draft.state_key, draft.content)
        auth = tuple(
            event.event_id
            for key, event in given.items()
            if key in keys and (self.version.create_in_auth_events or key[0] != "m.room.create")
        )
        if depth is None:
            depth = max((event.depth for event in prev_events), default=0) + 1
        links = Links(tuple(event.event_id for event in prev_events), auth, depth)
        return build_event(draft, self.version, links, now=NOW + self.made, server_name=OTHER, key=OTHER_KEY)

    def put(self, draft: EventDraft, prev_events: Sequence[Event]) -> Event:
        """Build a state event and remember it as state."""
        event = self.build(draft, prev_events)
        self.state[event.key] = event
        return event


async def remote_in(worker: Worker, room_nid: int, version: RoomVersion) -> Remote:
    """Give a remote that has the room's present state."""
    head = await worker.heads.get(room_nid)
    state = await worker.state.all_events(room_nid, head.root)
    return Remote(version, {key: stored.event for key, stored in state.items()})


async def stored_of(worker: Worker, room_nid: int, event: Event) -> StoredEvent:
    """Give an event as it is kept."""
    return (await worker.stored.by_id(room_nid, (event.event_id,)))[event.event_id]


async def tip(worker: Worker, room_nid: int) -> list[Event]:
    """Give the forward extremities."""
    head = await worker.heads.get(room_nid)
    found = await worker.stored.by_nid(room_nid, head.extremities)
    return [stored.event for stored in found.values()]


async def receive(incoming: IncomingEvents, room_nid: int, event: Event) -> Outcome:
    """Hand an event in."""
    return await incoming.receive(room_nid, event, origin=OTHER, now=NOW)


async def entries_of(worker: Worker, room_nid: int) -> list[Entry]:
    """Read the room's feed."""

    def read(tx: Transaction) -> list[Entry]:
        return feed.room_between(tx, room_nid, 0, 1 << 40, 10_000)

    return await worker.database.read(read)


def remote_room(version: RoomVersion, joins: Sequence[UserID] = ()) -> tuple[Remote, list[Event]]:
    """Make a room of Carol's on the other server, in which everybody may join; gives all its events."""
    remote = Remote(version)
    room_id: Any = None if version.room_id_is_create_hash else f"!theirs{version.id}:{OTHER}"
    timeline: list[Event] = []
    for draft in beginning(room_id, version, CAROL):
        fresh = EventDraft(room_id, draft.type, draft.sender, draft.content, draft.state_key)
        timeline.append(remote.put(fresh, timeline[-1:]))
        room_id = timeline[0].room_id
    for user_id in joins:
        join = EventDraft(room_id, "m.room.member", user_id, {"membership": "join"}, user_id)
        timeline.append(remote.put(join, timeline[-1:]))
    return remote, timeline


def imported(remote: Remote, timeline: Sequence[Event], join: Event) -> ImportedRoom:
    """Give the room as the other server answers a join."""
    state = [event for event in remote.state.values() if event != join]
    return ImportedRoom(remote.version, join.room_id, timeline[0], join, state, timeline, OTHER, [OTHER])


class ReceivingCase:
    """A room of ours that another server is in, on any engine."""

    database: Database
    assertEqual: Callable[..., None]
    assertTrue: Callable[..., None]
    assertIn: Callable[..., None]
    assertNotIn: Callable[..., None]
    assertIsNone: Callable[..., None]
    assertLess: Callable[..., None]

    async def begin(
        self, version: RoomVersion = V11, peer: Peer | None = None
    ) -> tuple[Worker, IncomingEvents, Room, Remote]:
        """Make a local room in which Carol of the other server is."""
        await migrate(self.database)
        worker = await start_worker(self.database)
        incoming = incoming_of(worker, peer)
        room = (await worker.room(version)).room
        remote = await remote_in(worker, room.nid, version)
        join = remote.put(membership(room.room_id, CAROL, "join"), await tip(worker, room.nid))
        outcome = await receive(incoming, room.nid, join)
        self.assertEqual((outcome.status, outcome.reason), (Status.ACCEPTED, ""))
        return worker, incoming, room, remote
