"""Tests of asking other servers for names of rooms."""

from __future__ import annotations

from federation.queries import FederationQueries
from federation.remote_rooms import RemoteDirectories
from protocol.errors import NotFound
from protocol.identifiers import RoomAlias
from tests.federation.helpers import THERE
from tests.federation.joining_helpers import V1_PATH, RemoteCase


class DirectoryTests(RemoteCase):
    """Aliases of other servers."""

    def test_aliases(self) -> None:
        """A room and its servers, or not found."""
        directories = RemoteDirectories(FederationQueries(self.world.requests))
        alias = RoomAlias("#x:there.example")
        room = {"room_id": "!r:there.example", "servers": [THERE]}
        self.there.say("GET", f"{V1_PATH}/query/directory", room)
        self.assertEqual(
            self.world.network.outcome(directories.resolve_alias(alias)), ("!r:there.example", [THERE])
        )
        self.there.say("GET", f"{V1_PATH}/query/directory", {"errcode": "M_NOT_FOUND"}, 404)
        with self.assertRaises(NotFound):
            self.world.network.outcome(directories.resolve_alias(alias))
