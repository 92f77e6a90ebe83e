"""A server whose rooms users of another server enter."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from federation.pdus import PduChecker
from federation.resident.access import RoomAccess
from federation.resident.invited import Invitations
from federation.resident.making import Asked, Templates
from federation.resident.rooms_given import JoinedRooms
from federation.resident.taking import Submissions, Submitted
from homeserver.events.texts import EventTexts
from protocol.canonical_json import JsonObject
from protocol.errors import Forbidden
from protocol.events import Event, EventDraft, Links, build_event
from protocol.identifiers import RoomID, ServerName, UserID
from protocol.room_versions import V11, RoomVersion
from protocol.signing import SigningKey
from tests.federation.core import ALICE, Core, Placed, run_now
from tests.federation.helpers import HERE, THERE, World

BOB = UserID("@bob:there.example")
EVE = UserID("@eve:eve.example")
EVE_SERVER = ServerName("eve.example")
MEMBER = "m.room.member"
VERSIONS = frozenset({"1", "6", "10", "11", "12"})


class Accounts:
    """Knows ALICE; may forbid invites."""

    blocked = False

    async def exists(self, user_id: UserID) -> bool:
        """Tell whether there is an account."""
        return user_id == ALICE

    async def require_allowed(self, sender: UserID, target: UserID, room_id: RoomID) -> None:
        """Refuse if told so."""
        if self.blocked:
            raise Forbidden("no invites")


class ResidentCase(SynchronousTestCase):
    """A server with rooms, and two others."""

    def setUp(self) -> None:
        """Wire everything; the core places nothing itself."""
        self.world = World(Path(self.mktemp()))
        self.there = self.world.server()
        self.eve = self.world.server(EVE_SERVER, 3)
        self.core = Core(self.world)
        self.placed = Placed(self.core)
        access = RoomAccess(self.core.nids, self.core.heads)
        checker = PduChecker(self.world.ring, run_now)
        identity = self.world.own.identity
        self.accounts = Accounts()
        self.templates = Templates(HERE, access, self.core.unplaced, self.core.restricted)
        self.submissions = Submissions(identity, access, checker, self.core.restricted, self.placed)
        self.rooms = JoinedRooms(
            HERE, self.core.state, self.placed, EventTexts(self.world.database, self.core.nids)
        )
        self.invitations = Invitations(identity, access, checker, self.accounts, self.accounts, self.placed)

    def _make(
        self, room_id: RoomID, membership: str = "join", user_id: UserID = BOB, origin: ServerName = THERE
    ) -> JsonObject:
        asked = Asked(origin, room_id, user_id, membership, VERSIONS if membership != "leave" else ())
        return self.world.network.outcome(self.templates.make(asked, self.world.now))

    def _join_of(
        self,
        room_id: RoomID,
        *,
        version: RoomVersion = V11,
        sender: UserID = BOB,
        content: Mapping[str, Any] | None = None,
        state_key: str | None = None,
        event_type: str = MEMBER,
        key: SigningKey | None = None,
    ) -> Event:
        template = self._make(room_id)["event"]
        draft = EventDraft(
            room_id,
            event_type,
            sender,
            content or {"membership": "join"},
            sender if state_key is None else state_key,
        )
        links = Links(tuple(template["prev_events"]), tuple(template["auth_events"]), template["depth"])
        return build_event(
            draft, version, links, now=self.world.now, server_name=THERE, key=key or self.there.key
        )

    def _submit(self, room_id: RoomID, event: Event, /, **changes: Any) -> Event:
        submitted = evolve(Submitted(THERE, room_id, event.event_id, "join", event.pdu), **changes)
        return self.world.network.outcome(self.submissions.take(submitted)).stored.event
