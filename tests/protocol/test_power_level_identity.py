"""Tests that power levels are read from an event's text, whatever other event has its ID."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from protocol.events import Event, load_event
from protocol.identifiers import EventID, RoomID, UserID
from protocol.power_levels import PowerLevels
from protocol.room_versions import ROOM_VERSIONS

V1 = ROOM_VERSIONS["1"]
MALLORY = UserID("@mallory:evil.example")


def state_event(room_id: str, event_type: str, content: object) -> Event:
    """Make a state event whose ID depends on its type alone, as room version 1 lets servers do."""
    pdu = {
        "type": event_type,
        "sender": MALLORY,
        "state_key": "",
        "content": content,
        "origin_server_ts": 1,
        "depth": 1,
        "prev_events": [],
        "auth_events": [],
    }
    event_id = EventID(f"${event_type}:evil.example")
    return load_event(json.dumps(pdu).encode(), V1, event_id=event_id, room_id=RoomID(room_id))


class PowerLevelIdentityTest(SynchronousTestCase):
    """Power levels that were read once are kept; they must be kept for the right event."""

    def test_same_ids_in_two_rooms(self) -> None:
        """A room whose events have the IDs of another room's lends it no power (security: S6)."""
        levels = []
        for room_id, level in (("!bait:evil.example", 100), ("!victim:evil.example", 0)):
            create = state_event(room_id, "m.room.create", {"creator": MALLORY})
            power = state_event(room_id, "m.room.power_levels", {"users": {MALLORY: level}})
            levels.append(PowerLevels.of(V1, create, power).user(MALLORY))
        self.assertEqual(levels, [100, 0])

    def test_redacted_event(self) -> None:
        """Power levels that were redacted count as redacted, though their event keeps its ID."""
        create = state_event("!room:evil.example", "m.room.create", {"creator": MALLORY})
        whole = state_event("!room:evil.example", "m.room.power_levels", {"invite": 30})
        self.assertEqual(PowerLevels.of(V1, create, whole).invite, 30)
        redacted = whole.with_pdu({**whole.pdu, "content": {}})
        self.assertEqual(PowerLevels.of(V1, create, redacted).invite, 0)
