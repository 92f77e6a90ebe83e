"""The directory of published rooms across servers: what is asked, what is shown, what is believed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from federation.failures import BadAnswer, Refused
from federation.listed_rooms import MAX_ADDRESS, MAX_PROSE
from federation.queries import FederationQueries
from federation.remote_rooms import RemoteDirectories
from federation.requests import ServerRequest
from homeserver.rooms.published import DirectoryQuery
from protocol.canonical_json import decode, encode
from protocol.errors import Forbidden
from protocol.identifiers import RoomID
from protocol.room_versions import V11, V12
from tests.federation.helpers import HERE, THERE
from tests.federation.joining_helpers import V1_PATH, RemoteCase
from tests.federation.plait import Plait

LEAST = {
    "room_id": "!r:there.example",
    "num_joined_members": 3,
    "world_readable": True,
    "guest_can_join": False,
}
FULL = {
    **LEAST,
    "name": "Tea",
    "topic": "Of leaves",
    "avatar_url": "mxc://there.example/x",
    "canonical_alias": "#tea:there.example",
    "join_rule": "public",
    "room_type": "m.space",
}


class AskingTests(RemoteCase):
    """A directory that another server gives, honest or not."""

    def setUp(self) -> None:
        """Begin with nothing asked."""
        super().setUp()
        self.directories = RemoteDirectories(FederationQueries(self.world.requests))

    def _ask(self, query: DirectoryQuery | None = None) -> Any:
        asking = self.directories.public_rooms(THERE, query or DirectoryQuery())
        return self.world.network.outcome(asking)

    def _say(self, body: object, status: int = 200) -> None:
        self.there.say("POST", f"{V1_PATH}/publicRooms", body, status)

    def _told(self, *entries: object) -> Any:
        self._say({"chunk": list(entries)})
        return self._ask()["chunk"]

    def test_what_is_asked(self) -> None:
        """What the user wants and no more, within the largest page."""
        self._say({"chunk": []})
        for query, body in (
            (DirectoryQuery(), {"limit": 100}),
            (DirectoryQuery(9999, "x", all_networks=True), _body(500, since="x", include_all_networks=True)),
            (DirectoryQuery(5, network="irc"), _body(5, third_party_instance_id="irc")),
            (DirectoryQuery(5, search="t"), _body(5, filter={"generic_search_term": "t"})),
            (DirectoryQuery(5, room_types=(None,)), _body(5, filter={"room_types": [None]})),
        ):
            self._ask(query)
            self.assertEqual(decode(self.there.asked[-1].body), body)

    def test_a_page(self) -> None:
        """Rooms as they are described, and where to go on; nothing else is passed on."""
        page = {"chunk": [FULL, LEAST], "next_batch": "n", "prev_batch": "p", "total_room_count_estimate": 7}
        self._say({**page, "chunk": [{**FULL, "extra": {}}, LEAST], "extra": 1})
        self.assertEqual(self._ask(), page)
        self._say({"chunk": [], "next_batch": "x" * (MAX_ADDRESS + 1), "total_room_count_estimate": -1})
        self.assertEqual(self._ask(), {"chunk": []})

    def test_entries_that_are_no_rooms_are_dropped(self) -> None:
        """Without their ID, count and flags, or with others than those may be."""
        wrong: list[object] = [None, 5, "x", []]
        wrong += [{name: value for name, value in FULL.items() if name != left} for left in LEAST]
        for name, values in (
            ("room_id", ("r", "!r", 5, "!r:" + "x" * 300, "!r:there.example\0")),
            ("num_joined_members", (-1, True, "3", 2**60, 1.5)),
            ("world_readable", (1, "true", None)),
            ("guest_can_join", (0, {}, None)),
        ):
            wrong += [{**FULL, name: value} for value in values]
        self.assertEqual(self._told(*wrong, FULL), [FULL])

    def test_fields_that_are_wrong_are_left_out(self) -> None:
        """As empty ones are, which some servers give; what is too long is cut or left out."""
        for name, values in (
            ("name", ("", 5, None, {})),
            ("topic", ("", [], 1.5)),
            ("avatar_url", ("", "https://x.example/", 5, "mxc://" + "x" * MAX_ADDRESS)),
            ("canonical_alias", ("", "tea", "#" + "x" * 300 + ":there.example", 5)),
            ("join_rule", ("", {}, "x" * 256)),
            ("room_type", ("", None, "x" * 256)),
        ):
            for value in values:
                rest = {key: text for key, text in FULL.items() if key != name}
                self.assertEqual(self._told({**FULL, name: value}), [rest], (name, value))
        (long,) = self._told({**FULL, "topic": "x" * 50_000})
        self.assertEqual(long["topic"], "x" * MAX_PROSE)

    def test_more_than_was_asked_for(self) -> None:
        """The rest is not read; an answer that is far too large, not at all."""
        self._say({"chunk": [LEAST] * 50})
        self.assertEqual(len(self._ask(DirectoryQuery(20))["chunk"]), 20)
        self._say({"chunk": [{**LEAST, "topic": "x" * 5_000_000}]})
        with self.assertRaises(BadAnswer):
            self._ask()

    def test_no_directory(self) -> None:
        """A server that does not show it is told as such; nonsense is its fault, not the client's."""
        self._say({"errcode": "M_FORBIDDEN", "error": "no"}, 403)
        with self.assertRaises(Forbidden):
            self._ask()
        self._say({"errcode": "M_UNRECOGNIZED"}, 404)
        with self.assertRaises(Refused):
            self._ask()
        for answer in ({}, {"chunk": {}}, {"chunk": None}, []):
            self._say(answer)
            with self.assertRaises(BadAnswer):
                self._ask()


class TwoDirectoriesTests(SynchronousTestCase):
    """Two whole servers, of which one looks into the directory of the other."""

    def setUp(self) -> None:
        """Start both."""
        self.here = Plait(Path(self.mktemp()))
        self.there = Plait(Path(self.mktemp()), THERE, beside=self.here)

    def _get(self, work: Any) -> Any:
        return self.here.world.network.outcome(work, 120)

    def _publish(self, room_id: RoomID) -> RoomID:
        self._get(self.here.published.publish(room_id))
        return room_id

    def _found(self, query: DirectoryQuery) -> Any:
        return self._get(self.there.directories.public_rooms(HERE, query))

    def test_pages_and_filters(self) -> None:
        """Page by page, by words, and by type."""
        rooms = {self._publish(self.here.core.room(V11, name=f"r{number}")) for number in range(3)}
        new = self._publish(self.here.core.room(V12))
        self.here.core.send(new, "m.room.name", {"name": "Tea room"}, "")
        first = self._found(DirectoryQuery(3))
        second = self._found(DirectoryQuery(3, first["next_batch"]))
        self.assertEqual({room["room_id"] for room in (*first["chunk"], *second["chunk"])}, {new, *rooms})
        self.assertNotIn("next_batch", second)
        (found,) = self._found(DirectoryQuery(search="tea"))["chunk"]
        ours = self._get(self.here.published.page(DirectoryQuery(search="tea")))["chunk"]
        self.assertEqual([found], ours)
        self.assertEqual(self._found(DirectoryQuery(room_types=("m.space",)))["chunk"], [])
        self.assertEqual(self._found(DirectoryQuery(network="irc"))["chunk"], [])
        self.assertEqual(len(self._found(DirectoryQuery(all_networks=True))["chunk"]), 4)

    def test_asked_by_get(self) -> None:
        """The same without a body."""
        room_id = self._publish(self.here.core.room())
        answer = self._get(
            self.there.world.requests.signed(_get_request("limit=1&include_all_networks=false"))
        )
        self.assertEqual([room["room_id"] for room in answer["chunk"]], [room_id])

    def test_rooms_that_others_cannot_join(self) -> None:
        """Those of this server alone, and those that deny the one that asks, are not shown."""
        shown = self._publish(self.here.core.room(name="shown"))
        self._publish(self.here.core.room(name="inner", federate=False))
        denied = self._publish(self.here.core.room(name="denied"))
        self.here.core.send(denied, "m.room.server_acl", {"allow": ["*"], "deny": [THERE]}, "")
        for query in (DirectoryQuery(), DirectoryQuery(room_types=(None,))):
            self.assertEqual([room["room_id"] for room in self._found(query)["chunk"]], [shown])


def _body(limit: int, **fields: object) -> object:
    return decode(encode({"limit": limit, **fields}))  # type: ignore[dict-item]


def _get_request(query: str) -> ServerRequest:
    return ServerRequest(HERE, "GET", f"{V1_PATH}/publicRooms?{query}")
