"""Tests of the endpoints whose handlers read more than a path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from federation.notary import Criteria
from federation.outbound.transaction import transaction_body
from federation.routes.invites import InviteRoutes
from federation.routes.queries import QueryRoutes
from federation.routes.server_keys import ServerKeys
from federation.routes.transactions import TransactionRoutes
from federation.routes.user_keys import UserKeyRoutes
from homeserver.http.calls import Call, Query
from homeserver.http.routing import Auth, RouteTable
from homeserver.rooms.aliases import Resolved
from homeserver.rooms.published import DirectoryQuery
from protocol.canonical_json import JsonObject
from protocol.errors import BadJson, Forbidden, InvalidParam, MatrixError, NotFound, Unrecognized
from protocol.identifiers import KeyID, RoomAlias, RoomID, ServerName, UserID
from tests.federation.helpers import HERE, THERE

ALICE = UserID("@alice:here.example")
NOT_OBJECTS = (None, 5, "x", [], True)


def call(*, path: Mapping[str, str] | None = None, query: bytes = b"", body: Any = None) -> Call[Any]:
    """Give a call from THERE."""
    return Call("GET", b"/", path or {}, Query(query), body, 1000, "198.51.100.1", server=THERE)


class Services:
    """The services asked, noting what they were asked."""

    def __init__(self) -> None:
        """Begin with nothing asked."""
        self.asked: list[Any] = []
        self.listed_for: set[str] = set()

    async def resolve_own(self, alias: RoomAlias) -> Resolved:
        """Give a room."""
        return Resolved(RoomID("!r:here.example"), [THERE])

    async def get_local(self, user_id: UserID) -> Mapping[str, Any]:
        """Give a profile."""
        if user_id != ALICE:
            raise NotFound("no such user")
        return {"displayname": "Alice", "m.tz": "UTC"}

    async def page(self, query: DirectoryQuery, may_see: Any) -> JsonObject:
        """Note a query."""
        self.asked.append(query)
        await may_see("a room")
        return {"chunk": []}

    async def may_list(self, origin: ServerName, head: Any) -> bool:
        """Note who is asked about."""
        self.listed_for.add(origin)
        return True

    async def device_list(self, user_id: UserID) -> JsonObject:
        """Give a device list."""
        return {"stream_id": 1, "devices": []}

    async def query(self, wanted: Mapping[UserID, Sequence[str]]) -> JsonObject:
        """Note a query."""
        self.asked.append(wanted)
        return {"device_keys": {}}

    async def claim(self, wanted: Mapping[UserID, Mapping[str, str]]) -> JsonObject:
        """Note a claim."""
        self.asked.append(wanted)
        return {"one_time_keys": {}}

    async def answer(self, query: Any, now: int) -> bytes:
        """Note a query to the notary."""
        self.asked.append(query)
        return b"{}"

    async def take(self, invitation: Any, now: int) -> Any:
        """Note an invite."""
        self.asked.append(invitation)
        raise Forbidden("no")


class RouteCase(SynchronousTestCase):
    """Routes over noted services."""

    def setUp(self) -> None:
        """Build the families."""
        self.services: Any = Services()
        self.queries = self._queries(directory_is_public=True)
        self.keys = UserKeyRoutes(HERE, self.services)
        self.server_keys = ServerKeys(self.services, self.services)
        self.invites = InviteRoutes(self.services)

    def _queries(self, directory_is_public: bool) -> QueryRoutes:
        one = self.services
        return QueryRoutes(HERE, one, one, one, one, directory_is_public)

    def _get(self, work: Any) -> Any:
        return self.successResultOf(Deferred.fromCoroutine(work))

    def _refused(self, work: Any, kind: type[MatrixError]) -> None:
        self.failureResultOf(Deferred.fromCoroutine(work), kind)


class QueryRouteTests(RouteCase):
    """Aliases, profiles, rooms."""

    def test_directory(self) -> None:
        """Our alias, with our server among those to join through; others' aliases are not ours to tell."""
        answer = self._get(self.queries.directory(call(query=b"room_alias=%23x:here.example")))
        self.assertEqual(answer, {"room_id": "!r:here.example", "servers": [HERE, THERE]})
        self._refused(self.queries.directory(call(query=b"room_alias=%23x:there.example")), InvalidParam)
        self._refused(self.queries.directory(call(query=b"room_alias=x")), InvalidParam)
        self._refused(self.queries.directory(call()), MatrixError)

    def test_profile(self) -> None:
        """The whole, or one field, absent if it is not set; local users alone."""
        ask = self.queries.profile
        alice = b"user_id=@alice:here.example"
        self.assertEqual(self._get(ask(call(query=alice))), {"displayname": "Alice", "m.tz": "UTC"})
        self.assertEqual(self._get(ask(call(query=alice + b"&field=m.tz"))), {"m.tz": "UTC"})
        self.assertEqual(self._get(ask(call(query=alice + b"&field=avatar_url"))), {})
        self._refused(ask(call(query=b"user_id=@bob:there.example")), InvalidParam)
        self._refused(ask(call(query=b"user_id=@nobody:here.example")), NotFound)

    def test_other_queries(self) -> None:
        """An unknown type is not recognized."""
        self._refused(self.queries.unknown(call(path={"query_type": "x"})), Unrecognized)

    def test_published_rooms(self) -> None:
        """With a filter or without; those of one network or of all, never both."""
        for query in (b"limit=5&since=p1", b"limit=0&since=", b"include_all_networks=true"):
            self._get(self.queries.get_public_rooms(call(query=query)))
        self._get(self.queries.get_public_rooms(call(query=b"third_party_instance_id=irc")))
        chosen = {"generic_search_term": "x", "room_types": [None, "m.space"]}
        for body in (
            {"limit": 9999, "filter": chosen, "include_all_networks": True},
            {"limit": 0, "since": "", "filter": None, "third_party_instance_id": ""},
            {"limit": 7, "third_party_instance_id": "irc", "include_all_networks": False},
        ):
            self._get(self.queries.post_public_rooms(call(body=body)))
        self.assertEqual(
            self.services.asked,
            [
                DirectoryQuery(5, "p1"),
                DirectoryQuery(500),
                DirectoryQuery(500, all_networks=True),
                DirectoryQuery(500, network="irc"),
                DirectoryQuery(9999, None, "x", [None, "m.space"], True),
                DirectoryQuery(500),
                DirectoryQuery(7, network="irc"),
            ],
        )
        self.assertEqual(self.services.listed_for, {THERE})
        both = b"include_all_networks=true&third_party_instance_id=irc"
        self._refused(self.queries.get_public_rooms(call(query=both)), InvalidParam)
        many = {"include_all_networks": True, "third_party_instance_id": "irc"}
        self._refused(self.queries.post_public_rooms(call(body=many)), InvalidParam)

    def test_no_published_rooms(self) -> None:
        """Nonsense is refused, and so is everything when the directory is not public."""
        for bad in (
            {"limit": "5"},
            {"limit": -1},
            {"include_all_networks": "true"},
            {"third_party_instance_id": 5},
            {"limit": True},
            {"since": 5},
            {"filter": []},
            {"filter": {"generic_search_term": 5}},
            {"filter": {"room_types": "x"}},
            {"filter": {"room_types": [5]}},
        ):
            self._refused(self.queries.post_public_rooms(call(body=bad)), BadJson)
        closed = self._queries(directory_is_public=False)
        self._refused(closed.get_public_rooms(call()), Forbidden)
        self._refused(closed.post_public_rooms(call(body={})), Forbidden)


class KeyRouteTests(RouteCase):
    """Keys of users and servers."""

    def test_device_list(self) -> None:
        """Of our users alone."""
        answer = self._get(self.keys.devices(call(path={"user_id": ALICE})))
        self.assertEqual(answer, {"stream_id": 1, "devices": [], "user_id": ALICE})
        self._refused(self.keys.devices(call(path={"user_id": "@bob:there.example"})), NotFound)
        self._refused(self.keys.devices(call(path={"user_id": "alice"})), InvalidParam)

    def test_keys_of_our_users_alone(self) -> None:
        """Others, and names that are none, are left out (security: F8)."""
        names = {ALICE: ["D"], "@bob:there.example": [], "nonsense": []}
        self._get(self.keys.query(call(body={"device_keys": names})))
        claims = {ALICE: {"D": "signed_curve25519"}, "@bob:there.example": {}}
        self._get(self.keys.claim(call(body={"one_time_keys": claims})))
        self.assertEqual(self.services.asked, [{ALICE: ["D"]}, {ALICE: {"D": "signed_curve25519"}}])

    def test_nonsense_is_refused(self) -> None:
        """Every wrong type, and too many users (security: F14)."""
        for bad in (
            *NOT_OBJECTS,
            {ALICE: "D"},
            {ALICE: [5]},
            {ALICE: {}},
            {f"@u{n}:x": [] for n in range(2001)},
        ):
            self._refused(self.keys.query(call(body={"device_keys": bad})), BadJson)
        for bad in (*NOT_OBJECTS, {ALICE: "D"}, {ALICE: []}, {ALICE: {"D": 5}}):
            self._refused(self.keys.claim(call(body={"one_time_keys": bad})), BadJson)

    def test_the_notary_s_queries(self) -> None:
        """Names that are none are left out; wrong types are refused."""
        body = {
            "server_keys": {"a.example": {"ed25519:1": {"minimum_valid_until_ts": 5}, "k": {}}, "b c": {}}
        }
        self._get(self.server_keys.query_many(call(body=body)))
        self._get(
            self.server_keys.query_one(call(path={"server": "a.example"}, query=b"minimum_valid_until_ts=7"))
        )
        self._get(self.server_keys.query_one(call(path={"server": "a.example", "key_id": "k"})))
        self.assertEqual(
            self.services.asked,
            [
                {"a.example": Criteria({KeyID("ed25519:1"): 5, KeyID("k"): 1000}, 1000)},
                {"a.example": Criteria({}, 7)},
                {"a.example": Criteria({KeyID("k"): 1000}, 1000)},
            ],
        )
        many = {f"ed25519:{n}": {} for n in range(65)}
        for bad in (*NOT_OBJECTS, {"a.example": 5}, {"a.example": many}):
            self._refused(self.server_keys.query_many(call(body={"server_keys": bad})), BadJson)
        wrong = {"a.example": {"k": {"minimum_valid_until_ts": "x"}}}
        self._refused(self.server_keys.query_many(call(body={"server_keys": wrong})), BadJson)


class InviteRouteTests(RouteCase):
    """Both versions of the call."""

    PATH = {"room_id": "!r:there.example", "event_id": "$e"}

    def test_the_old_call_reads_the_version_from_what_is_shown(self) -> None:
        """Room version 2 where the create event says so, else 1."""
        create = {"type": "m.room.create", "content": {"room_version": "2"}}
        for shown, version in (
            ([create], "2"),
            ([5, {"type": "m.room.create", "content": 5}], "1"),
            (None, "1"),
        ):
            body = {"unsigned": {"invite_room_state": shown}}
            self._refused(self.invites.invite_old(call(path=self.PATH, body=body)), Forbidden)
            self.assertEqual(self.services.asked[-1].room_version, version)

    def test_wrong_types_are_refused(self) -> None:
        """Version and shown state (security: F11)."""
        for body in ({}, {"room_version": 5}, {"room_version": "11", "invite_room_state": 5}):
            self._refused(self.invites.invite(call(path=self.PATH, body=body)), BadJson)
        self.assertEqual(self.services.asked, [])


class TableTests(RouteCase):
    """What the families declare."""

    def test_everything_but_keys_and_version_is_for_servers(self) -> None:
        """No endpoint of the federation is open by accident."""
        families = (self.queries, self.keys, self.server_keys, self.invites)
        routes = [route for family in families for route in family.routes()]
        RouteTable(routes)
        for route in routes:
            is_open = all(path.startswith("/_matrix/key/") for path in route.paths)
            self.assertEqual(route.auth, Auth.NONE if is_open else Auth.SERVER, route.paths)

    def test_the_fullest_transaction_is_not_too_large(self) -> None:
        """50 events and 100 EDUs of 64 KiB each are taken: whoever sends them sends them until they are."""
        nobody: Any = None
        (route,) = TransactionRoutes(nobody).routes()
        body = transaction_body(HERE, 10**15, [b"x" * 65_536] * 50, [b"x" * 65_536] * 100)
        self.assertLess(len(body), route.max_body or 0)
