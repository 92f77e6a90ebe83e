"""Tests of the cache of state at a room's head."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.trial.unittest import SynchronousTestCase

from homeserver.events.place import MAX_STATE_EVENTS, HeadState
from homeserver.events.room_state import RoomState
from homeserver.events.stored import StoredEvent
from protocol.identifiers import StateKey

CREATE = ("m.room.create", "")


def stored(key: StateKey) -> StoredEvent:
    """Stand in for the event under a key."""
    return cast(StoredEvent, f"event of {key}")


class Reader:
    """Has an event under each key, and gives them when told to."""

    def __init__(self) -> None:
        """Wait for nothing at first."""
        self.waiting: Deferred[None] | None = None

    async def events(
        self, room_nid: int, root: bytes, keys: Iterable[StateKey]
    ) -> dict[StateKey, StoredEvent]:
        """Read events."""
        if self.waiting is not None:
            await self.waiting
        return {key: stored(key) for key in keys}


class HeadStateTests(SynchronousTestCase):
    """What is asked for is given, whatever the cache lets go meanwhile."""

    def setUp(self) -> None:
        """Load one event."""
        self.reader = Reader()
        self.state = HeadState(cast(RoomState, self.reader), 1, b"root")
        self.successResultOf(ensureDeferred(self.state.get([CREATE])))

    def test_what_is_loaded_pushes_out_nothing_that_is_wanted_with_it(self) -> None:
        """The create event, kept longest, is there while the members of a large room come and go."""
        for number in range(2 * MAX_STATE_EVENTS):
            member = ("m.room.member", f"@{number}:plait.test")
            found = self.successResultOf(ensureDeferred(self.state.get([CREATE, member])))
            self.assertEqual(found, {CREATE: stored(CREATE), member: stored(member)})
        self.assertEqual(len(self.state), MAX_STATE_EVENTS)

    def test_what_is_forgotten_while_the_rest_is_loaded_is_not_absent(self) -> None:
        """An event of the room changes meanwhile: nobody is told that there is no create event."""
        self.reader.waiting = Deferred()
        member = ("m.room.member", "@alice:plait.test")
        asked = ensureDeferred(self.state.get([CREATE, member]))
        self.state.forget()
        self.reader.waiting.callback(None)
        self.assertEqual(self.successResultOf(asked), {CREATE: stored(CREATE), member: stored(member)})
        self.assertEqual(len(self.state), 0)
