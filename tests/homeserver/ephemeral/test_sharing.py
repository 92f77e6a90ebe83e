"""Who shares a room with whom, where memberships change while rooms are being read."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from homeserver.ephemeral.sharing import RoomSharing
from homeserver.sync.session import Session
from protocol.identifiers import DeviceID, UserID
from storage.feed import Entry, Flag, Kind
from storage.memberships import Membership, UserRoom

ROOM, NID = 7, 3
SESSION = Session(UserID("@bob:plait.test"), NID, DeviceID("PHONE"))


class SharingTests(SynchronousTestCase):
    """Rooms kept in memory, over a database that answers when it is told to."""

    def setUp(self) -> None:
        """Begin with nothing read."""
        self.reads: list[Deferred[list[UserRoom]]] = []
        database: Any = self
        nids: Any = None
        self.sharing = RoomSharing(database, nids)

    def read(self, *_asked: object) -> Deferred[list[UserRoom]]:
        """Answer later."""
        self.reads.append(Deferred())
        return self.reads[-1]

    def look(self) -> Deferred[Any]:
        """Ask for Bob's rooms."""
        return Deferred.fromCoroutine(self.sharing.sight(SESSION))

    def test_a_change_among_two_looks_is_not_missed(self) -> None:
        """Who left a room between two looks does not see through it, however late its rows come."""
        first = self.look()
        self.sharing.apply([Entry(1, Kind.EVENT, int(Flag.MEMBERSHIP), ROOM, NID, 1)])
        second = self.look()
        before = [UserRoom(ROOM, Membership.JOIN, 1, 0)]
        self.reads.pop(0).callback(before)
        while self.reads:
            self.reads.pop(0).callback([])
        self.assertEqual(self.successResultOf(first), frozenset())
        self.assertEqual(self.successResultOf(second), frozenset())
        self.assertEqual(self.successResultOf(self.look()), frozenset())
