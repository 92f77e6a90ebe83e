"""`/publicRooms` with a server: the directories of others, for users of this one."""

from __future__ import annotations

from typing import Any

import msgspec
from attrs import define, field
from twisted.trial.unittest import TestCase

from client_api.directory import Directory, PublicRooms
from homeserver.accounts.requester import Requester
from homeserver.http.calls import Call, Query
from homeserver.rooms.published import DirectoryQuery
from protocol.canonical_json import JsonObject
from protocol.errors import InvalidParam, MissingToken
from protocol.identifiers import DeviceID, ServerName, UserID

HERE, THERE = ServerName("here.example"), ServerName("there.example")
ALICE = Requester(UserID("@alice:here.example"), 1, DeviceID("PHONE"), 1)


@define
class Directories:
    """Our directory and those of others, noting what they are asked."""

    asked: list[object] = field(factory=list)

    async def page(self, query: DirectoryQuery) -> JsonObject:
        """Note a look into ours."""
        self.asked.append((HERE, query))
        return {"chunk": []}

    async def public_rooms(self, server: ServerName, query: DirectoryQuery) -> JsonObject:
        """Note a look into another."""
        self.asked.append((server, query))
        return {"chunk": []}


class PublicRoomsTests(TestCase):
    """Who is asked for what."""

    def setUp(self) -> None:
        """Begin with nothing asked."""
        self.directories = Directories()
        played: Any = self.directories
        self.directory = Directory(HERE, played, played, played, played)

    async def _get(self, query: bytes, asker: Requester | None = ALICE) -> None:
        call = Call("GET", b"/", {}, Query(query), None, 1000, "", asker)
        await self.directory.list_rooms(call)

    async def _post(self, query: bytes, body: JsonObject) -> None:
        wanted = msgspec.convert(body, PublicRooms)
        await self.directory.search_rooms(Call("POST", b"/", {}, Query(query), wanted, 1000, "", ALICE))

    async def test_ours_and_others(self) -> None:
        """Ours by its name or by none; another's with all that was asked for."""
        await self._get(b"limit=3&since=p1", None)
        await self._get(b"server=here.example", None)
        await self._get(b"server=there.example&limit=3&since=x")
        chosen: JsonObject = {"generic_search_term": "tea", "room_types": [None]}
        await self._post(b"server=there.example", {"filter": chosen, "include_all_networks": True})
        await self._post(b"", {"third_party_instance_id": "irc"})
        self.assertEqual(
            self.directories.asked,
            [
                (HERE, DirectoryQuery(3, "p1")),
                (HERE, DirectoryQuery()),
                (THERE, DirectoryQuery(3, "x")),
                (THERE, DirectoryQuery(100, None, "tea", (None,), True)),
                (HERE, DirectoryQuery(network="irc")),
            ],
        )

    async def test_strangers_have_nobody_asked(self) -> None:
        """Who is not logged in sees our directory, and sends us to no other server."""
        with self.assertRaises(MissingToken):
            await self._get(b"server=there.example", None)
        self.assertEqual(self.directories.asked, [])

    async def test_nonsense(self) -> None:
        """No server name; one network and all of them."""
        with self.assertRaises(InvalidParam):
            await self._get(b"server=a%20b")
        with self.assertRaises(InvalidParam):
            await self._post(b"", {"include_all_networks": True, "third_party_instance_id": "irc"})
        self.assertEqual(self.directories.asked, [])
