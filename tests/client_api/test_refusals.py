"""Refusals whose code the specification names, where a service's own would be another."""

from __future__ import annotations

from typing import Any

from attrs import define
from twisted.trial.unittest import TestCase

from client_api.directory import Directory, NewAlias
from client_api.receipts import Receipt, Receipts
from homeserver.accounts.requester import Requester
from homeserver.http.calls import Call, Query
from protocol.errors import AliasTaken, InvalidParam, RoomInUse
from protocol.identifiers import DeviceID, ServerName, UserID

ALICE = UserID("@alice:plait.test")
ROOM = "!room:plait.test"


@define(eq=False)
class Played:
    """A room of Alice's whose alias is taken, and markers that are moved."""

    moved: int = 0

    @property
    def nids(self) -> Any:
        """Give what knows rooms."""
        return self

    @property
    def local_members(self) -> dict[UserID, int]:
        """Give the members of the room."""
        return {ALICE: 1}

    async def room(self, room_id: str) -> int:
        """Know the room."""
        return 1

    async def get(self, room_nid: int) -> Any:
        """Give its head."""
        return self

    async def add(self, *_: object) -> None:
        """Refuse an alias."""
        raise RoomInUse("taken")

    async def set_fully_read(self, *_: object) -> None:
        """Move a marker."""
        self.moved += 1


def call(body: Any, **path: str) -> Any:
    """Give a request of Alice's."""
    asker = Requester(ALICE, 1, DeviceID("PHONE"), 1)
    return Call("PUT", b"/", path, Query(b""), body, 1000, "", asker)


class RefusalTests(TestCase):
    """What clients are told."""

    async def test_an_alias_that_is_taken(self) -> None:
        """`PUT /directory/room` for an alias that exists is a 409, unlike `createRoom` with it."""
        played: Any = Played()
        directory = Directory(ServerName("plait.test"), played, played, played, played)
        with self.assertRaises(AliasTaken) as refused:
            await directory.put_alias(call(NewAlias(ROOM), roomAlias="#tea:plait.test"))
        self.assertEqual((refused.exception.status, refused.exception.errcode), (409, "M_UNKNOWN"))

    async def test_a_thread_of_what_has_none(self) -> None:
        """`m.fully_read` is of the whole room: with a thread it is refused."""
        played: Any = Played()
        receipts = Receipts(played, played)
        path = {"roomId": ROOM, "receiptType": "m.fully_read", "eventId": "$e"}
        with self.assertRaises(InvalidParam):
            await receipts.receipt(call(Receipt("main"), **path))
        await receipts.receipt(call(Receipt(), **path))
        self.assertEqual(played.moved, 1)
