"""A server whose users act in rooms through another, which may lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from random import SystemRandom
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from federation.handshakes import Handshakes
from federation.inviting import Inviting
from federation.joining import Arrivals, Joining
from federation.knocking import Knocking
from federation.leaving import Leaving
from federation.pdus import PduChecker
from federation.remote_rooms import RemoteMemberships
from protocol.canonical_json import JsonObject, decode
from protocol.events import Event, EventDraft, Links, build_event
from protocol.identifiers import RoomID, ServerName, UserID
from protocol.room_versions import V11, RoomVersion
from tests.federation.core import ALICE, Core, Placed, run_now
from tests.federation.helpers import THERE, HostileServer, World

BOB = UserID("@bob:there.example")
CAROL = ServerName("carol.example")
V1_PATH = "/_matrix/federation/v1"
V2_PATH = "/_matrix/federation/v2"


class Their:
    """A room on the other server: its first events, and templates for joining it."""

    def __init__(self, world: World, server: HostileServer, version: RoomVersion = V11) -> None:
        """Make a public room of BOB."""
        self.world = world
        self.server = server
        self.version = version
        self.room_id: RoomID | None = None if version.room_id_is_create_hash else RoomID("!r:there.example")
        self.events: list[Event] = []
        create: dict[str, Any] = {"room_version": version.id}
        if not version.implicit_room_creator:
            create["creator"] = BOB
        self.create = self.add("m.room.create", create)
        self.room_id = self.create.room_id
        self.member = self.add("m.room.member", {"membership": "join"}, BOB)
        users = {} if version.privileged_creators else {BOB: 100}
        self.levels = self.add("m.room.power_levels", {"users": users})
        self.rules = self.add("m.room.join_rules", {"join_rule": "public"})

    def add(self, event_type: str, content: Mapping[str, Any], state_key: str = "") -> Event:
        """Add a state event."""
        auth = [event for event in self.events if event.type != "m.room.join_rules"]
        if not self.version.create_in_auth_events:
            auth = auth[1:]
        links = Links(
            tuple(event.event_id for event in self.events[-1:]),
            tuple(event.event_id for event in auth),
            len(self.events) + 1,
        )
        draft = EventDraft(self.room_id, event_type, BOB, content, state_key)
        event = build_event(
            draft, self.version, links, now=self.world.now, server_name=self.server.name, key=self.server.key
        )
        self.events.append(event)
        return event

    def template(self, membership: str = "join", **changes: Any) -> JsonObject:
        """Give the template for ALICE."""
        auth = [self.levels, self.rules] + ([self.create] if self.version.create_in_auth_events else [])

        def references(events: Sequence[Event]) -> list[Any]:
            if not self.version.pairs_in_references:
                return [event.event_id for event in events]
            return [[event.event_id, {"sha256": "x" * 43}] for event in events]

        return {
            "type": "m.room.member",
            "room_id": self.room_id,
            "sender": ALICE,
            "state_key": ALICE,
            "content": {"membership": membership},
            "prev_events": references(self.events[-1:]),
            "auth_events": references(auth),
            "depth": 5,
            "origin_server_ts": 1,
            **changes,
        }

    def serve(self, template: object = None, answer: Mapping[str, Any] | None = None) -> None:
        """Answer make_join and send_join."""
        made = {"room_version": self.version.id, "event": self.template() if template is None else template}
        self.server.say("GET", f"{V1_PATH}/make_join/", made)
        state = [event.pdu for event in self.events]
        whole = {"state": state, "auth_chain": state}
        self.server.say("PUT", f"{V2_PATH}/send_join/", whole if answer is None else answer)

    def sent(self, path: str) -> list[Any]:
        """Give the events that were handed in."""
        return [
            decode(asked.body) for asked in self.server.asked if asked.method == "PUT" and path in asked.uri
        ]


class RemoteCase(SynchronousTestCase):
    """A server that acts through another."""

    def setUp(self) -> None:
        """Wire everything; rooms taken over are only noted."""
        self.world = World(Path(self.mktemp()))
        self.there = self.world.server()
        core = Core(self.world)
        self.placed = Placed(core)
        handshakes = Handshakes(self.world.requests, PduChecker(self.world.ring, run_now))
        identity, clock, random = self.world.own.identity, self.world.clock, SystemRandom()
        self.remote = RemoteMemberships(
            Joining(identity, handshakes, Arrivals(self.placed, self.placed, core.nids), clock, random),
            Knocking(identity, handshakes, self.placed, clock, random),
            Leaving(identity, handshakes, self.placed, clock, random),
            Inviting(handshakes),
        )

    def _join(
        self, room_id: RoomID | None, via: Sequence[ServerName] = (THERE,), seconds: float = 60
    ) -> None:
        assert room_id is not None
        content = {"membership": "join", "displayname": "Alice"}
        self.world.network.outcome(self.remote.join(ALICE, room_id, via, content), seconds)
