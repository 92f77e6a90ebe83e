"""Tests of asking other servers: what a lie can do, and what a client is told."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import SynchronousTestCase

from federation.client import FederationClient, RoomRef, StateEvents, StateIds
from federation.failures import BadAnswer, NoAnswer, Refused, Unreachable, passed_on
from federation.pdus import BATCH, PduChecker
from federation.queries import FederationQueries
from federation.requests import ServerRequest
from protocol.canonical_json import JsonObject
from protocol.errors import Forbidden, IncompatibleRoomVersion, MatrixError, NotFound
from protocol.events import Event, EventDraft, Links, build_event
from protocol.identifiers import EventID, RoomAlias, RoomID, ServerName, UserID
from protocol.room_versions import V4, V5, V11, RoomVersion
from protocol.signing import SigningKey
from storage.destinations import Failing
from tests.federation.core import run_now
from tests.federation.helpers import THERE, World, signing_key
from tests.federation.network import Answer

ROOM = RoomID("!room:there.example")
OTHER_ROOM = RoomID("!other:there.example")
BOB = UserID("@bob:there.example")
REF = RoomRef(ROOM, V11)
V1 = "/_matrix/federation/v1"


def event_of(
    key: SigningKey, *, room_id: RoomID = ROOM, text: str = "x", now: int = 1000, version: RoomVersion = V11
) -> Event:
    """Build a message of BOB."""
    draft = EventDraft(room_id, "m.room.message", BOB, {"body": text})
    links = Links((EventID("$p"),), (EventID("$a"),), 5)
    return build_event(draft, version, links, now=now, server_name=THERE, key=key)


class ClientCase(SynchronousTestCase):
    """A world with one other server."""

    def setUp(self) -> None:
        """Put the other server on the network."""
        self.world = World(Path(self.mktemp()))
        self.there = self.world.server()
        self.checker = PduChecker(self.world.ring, run_now)
        self.client = FederationClient(self.world.requests, self.checker)

    def _get(self, work: Any, seconds: float = 0) -> Any:
        return self.world.network.outcome(work, seconds)


class ManyEventsTests(ClientCase):
    """Answers with more events than are checked at once."""

    def test_they_are_checked_in_batches(self) -> None:
        """None that is verified is larger; the keys of all are fetched first; order stays (security: D7)."""
        batches: list[int] = []
        asked: list[int] = []

        async def on_thread(work: Any, items: Any, *more: Any) -> Any:
            batches.append(len(items))
            asked.append(len(self.there.asked))
            return work(items, *more)

        client = FederationClient(self.world.requests, PduChecker(self.world.ring, on_thread))
        events = [event_of(self.there.key, text=str(number)) for number in range(3 * BATCH + 20)]
        events[5] = event_of(signing_key(9), text="forged")
        pdus = [event.pdu for event in events]
        answer = {"pdus": [*pdus, {"sender": "?"}, 5, *pdus[:3]], "auth_chain": []}
        self.there.say("GET", f"{V1}/state/", answer)
        found = self._get(client.get_state(THERE, REF, EventID("$e")))
        self.assertEqual(found.state, [*events[:5], *events[6:]])
        noted, *verified = batches
        self.assertEqual(noted, len(pdus) + 5, "the senders of all are noted in one go")
        self.assertTrue(max(verified) <= BATCH, batches)
        self.assertEqual(len(verified), 4)
        self.assertEqual(asked[1:], [len(self.there.asked)] * 4, "keys are fetched before the first check")

    def test_what_is_no_list_of_events_is_a_bad_answer(self) -> None:
        """Whatever it is, however deep, it costs the request alone."""
        deep = b"[" * 100_000
        for body in (b"", b"[]", b"{", b'{"pdus":5}', b'{"pdus":[}', b'{"pdus":' + deep):
            self.there.answers["GET", f"{V1}/state/"] = lambda _, body=body: Answer(200, body)
            with self.assertRaises(BadAnswer):
                self._get(self.client.get_state(THERE, REF, EventID("$e")))


class OneDoorTests(ClientCase):
    """Events come through the checks, whatever call brings them."""

    def _bad(self) -> list[Any]:
        """Give things that are no events of BOB in the room."""
        good = event_of(self.there.key, text="bad").pdu
        forged = event_of(signing_key(9), text="forged").pdu
        return [
            forged,
            event_of(self.there.key, room_id=OTHER_ROOM).pdu,
            {**good, "content": {"body": "altered"}, "sender": "@eve:there.example"},
            {**good, "signatures": {}},
            {**good, "depth": 2**53},
            {**good, "depth": "1"},
            {**good, "type": 5},
            {**good, "room_id": 5},
            {key: value for key, value in good.items() if key != "hashes"},
            {"content": {}},
            5,
            None,
            [],
            "$id",
        ]

    def _calls(self) -> dict[str, Callable[[list[Any]], list[Event]]]:
        """Give every method of the client that gives events, called on an answer of `pdus`."""
        event_id = EventID("$e")

        def answering(
            method: str, path: str, names: list[str], call: Callable[[], Any]
        ) -> Callable[..., list[Event]]:
            def run(pdus: list[Any]) -> list[Event]:
                self.there.say(method, f"{V1}/{path}", dict.fromkeys(names, pdus))
                result = self._get(call())
                if isinstance(result, StateEvents):
                    return [*result.state, *result.auth_chain]
                return result if isinstance(result, list) else [result] if result is not None else []

            return run

        client = self.client
        return {
            "get_event": answering("GET", "event/", ["pdus"], lambda: client.get_event(THERE, REF, event_id)),
            "get_state": answering(
                "GET", "state/", ["pdus", "auth_chain"], lambda: client.get_state(THERE, REF, event_id)
            ),
            "backfill": answering(
                "GET", "backfill/", ["pdus"], lambda: client.backfill(THERE, REF, [event_id], 99)
            ),
            "get_missing_events": answering(
                "POST",
                "get_missing_events/",
                ["events"],
                lambda: client.get_missing_events(THERE, REF, ([event_id], [event_id]), 99),
            ),
        }

    def test_every_call_that_gives_events_is_known_to_this_test(self) -> None:
        """The list is read from the client (security: F7)."""
        giving = {
            name
            for name, method in inspect.getmembers(FederationClient, inspect.iscoroutinefunction)
            if not name.startswith("_") and "Event" in str(method.__annotations__["return"])
        }
        self.assertEqual(giving, set(self._calls()))

    def test_forged_events_are_dropped_by_every_call(self) -> None:
        """And the good one among them stays (security: F7, F2)."""
        good = event_of(self.there.key, text="good")
        for name, call in self._calls().items():
            bad = self._bad()
            found = call([*bad[:7], good.pdu, *bad[7:]])
            expected = set() if name == "get_event" else {good.event_id}
            self.assertEqual({event.event_id for event in found}, expected, name)

    def test_get_event_gives_the_event_asked_for_alone(self) -> None:
        """Another event of the room does not pass for it (security: F7)."""
        good, other = event_of(self.there.key), event_of(self.there.key, text="other")
        self.there.say("GET", f"{V1}/event/", {"pdus": [other.pdu]})
        self.assertIsNone(self._get(self.client.get_event(THERE, REF, good.event_id)))
        self.there.say("GET", f"{V1}/event/", {"pdus": [other.pdu, good.pdu]})
        self.assertEqual(self._get(self.client.get_event(THERE, REF, good.event_id)), good)

    def test_an_altered_content_comes_out_redacted(self) -> None:
        """A wrong content hash loses the content, not the event (security: K7)."""
        pdu = {**event_of(self.there.key).pdu, "content": {"body": "altered"}}
        (event,) = self._get(self.checker.check_many([pdu], V11))
        self.assertTrue(event.hash_mismatch)
        self.assertEqual(event.content, {})

    def test_a_key_counts_for_its_time_from_version_5_on(self) -> None:
        """An event after the key's end is dropped, but for old room versions (security: K1)."""
        late = self.world.now + 7_200_000
        for version, count in ((V4, 1), (V5, 0)):
            pdu = event_of(self.there.key, now=late, version=version).pdu
            self.assertEqual(len(self._get(self.checker.check_many([pdu], version))), count)

    def test_many_events_cost_one_look_up(self) -> None:
        """Keys are fetched for all events at once, and each event counts once."""
        pdus = [event_of(self.there.key, text=str(number)).pdu for number in range(250)]
        self.assertEqual(len(self._get(self.checker.check_many(pdus + pdus, V11))), 250)
        self.assertEqual(len(self.there.asked), 1)

    def test_invented_keys_hide_no_good_one(self) -> None:
        """Whatever other keys an event names, its server is asked once and the event passes."""
        pdu = event_of(self.there.key).pdu
        invented = {f"ed25519:0{number}": "AAAA" for number in range(50)}
        pdu["signatures"] = {THERE: {**invented, **pdu["signatures"][THERE]}}
        self.assertEqual(len(self._get(self.checker.check_many([pdu], V11))), 1)
        self.assertEqual(len(self.there.asked), 1)

    def test_thousands_of_signatures_are_no_work(self) -> None:
        """An event with more signatures than anybody needs is dropped unread (security: K9)."""
        pdu = event_of(self.there.key).pdu
        pdu["signatures"] = {f"s{number}.example": {"ed25519:1": "AAAA"} for number in range(5000)}
        self.assertEqual(self._get(self.checker.check_many([pdu], V11)), [])
        self.assertEqual(self.there.asked, [])

    def test_state_ids_are_ids(self) -> None:
        """What is no event ID is left out; a missing list is a bad answer."""
        self.there.say("GET", f"{V1}/state_ids/", {"pdu_ids": ["$a", 5, "b", "$a"], "auth_chain_ids": []})
        found = self._get(self.client.get_state_ids(THERE, REF, EventID("$e")))
        self.assertEqual(found, StateIds([EventID("$a")], []))
        self.there.say("GET", f"{V1}/state_ids/", {"pdu_ids": ["$a"]})
        with self.assertRaises(BadAnswer):
            self._get(self.client.get_state_ids(THERE, REF, EventID("$e")))

    def test_limits_hold_whatever_comes(self) -> None:
        """More events than asked for are cut (security: F14)."""
        pdus = [event_of(self.there.key, text=str(number)).pdu for number in range(20)]
        self.there.say("GET", f"{V1}/backfill/", {"pdus": pdus})
        self.assertEqual(len(self._get(self.client.backfill(THERE, REF, [EventID("$e")], 5))), 5)


class ErrorTests(ClientCase):
    """How requests fail."""

    def _ask(self) -> Any:
        return self._get(self.client.get_event(THERE, REF, EventID("$e")), 60)

    def _error(self) -> MatrixError:
        with self.assertRaises(MatrixError) as caught:
            self._ask()
        return caught.exception

    def test_remote_errors_never_pass_as_ours(self) -> None:
        """Whatever a server answers, the client is told 502 and who it was, never 401 (security: C10)."""
        for status in (400, 401, 403, 404, 405, 418, 429, 500, 599):
            for errcode in ("M_UNKNOWN_TOKEN", "M_MISSING_TOKEN", "M_FORBIDDEN", "M_USER_DEACTIVATED", ""):
                secret = {"errcode": errcode, "error": "<script>", "soft_logout": True, "session": "x"}
                self.there.say("GET", f"{V1}/event/", secret, status)
                self._get(self.world.backoff.succeeded(THERE))
                error = self._error()
                self.assertEqual((error.status, error.errcode), (502, "M_UNKNOWN"))
                self.assertIn(THERE, error.error)
                self.assertNotIn("script", str(error.to_json()))
                self.assertEqual(set(error.to_json()), {"errcode", "error"})

    def test_known_refusals_are_passed_on_in_plain_words(self) -> None:
        """The errors that the specification names, cut, without control characters (security: C10)."""
        for status, errcode, kind in (
            (403, "M_FORBIDDEN", Forbidden),
            (404, "M_NOT_FOUND", NotFound),
            (400, "M_INCOMPATIBLE_ROOM_VERSION", IncompatibleRoomVersion),
            (401, "M_UNKNOWN_TOKEN", Refused),
            (401, "M_FORBIDDEN", Refused),
            (403, "M_UNKNOWN_TOKEN", Refused),
        ):
            remote = {"errcode": errcode, "error": "a\r\nb\x00" + "c" * 999, "soft_logout": True}
            error = passed_on(Refused(THERE, status, remote))
            self.assertIs(type(error), kind)
            self.assertLess(len(error.error), 300)
            self.assertTrue(error.error.isprintable())
            self.assertNotIn("soft_logout", error.to_json())
            self.assertNotEqual(error.status, 401)

    def test_bad_answers(self) -> None:
        """No JSON, no object, nesting without end, too large: a bad answer (security: D1, D5)."""
        for body in (
            b"",
            b"<html>",
            b"[]",
            b"5",
            b"{",
            b"[" * 200_000,
            b'{"a":"' + b"x" * (17 << 20) + b'"}',
        ):
            self.there.answers["GET", f"{V1}/event/"] = lambda _, body=body: Answer(200, body)
            self.assertIsInstance(self._error(), BadAnswer)

    def test_redirects_are_not_followed(self) -> None:
        """A signed request goes to the server it was signed for alone (security: X2)."""
        self.there.answers["GET", f"{V1}/event/"] = lambda _: Answer(302, headers={"Location": "https://x/"})
        self.assertIsInstance(self._error(), Refused)

    def test_a_failing_server_is_left_in_peace(self) -> None:
        """After a failure no connection is made until the back-off ends, unless a user insists."""
        self.there.say("GET", f"{V1}/event/", {}, 500)
        self.assertIsInstance(self._error(), Refused)
        asked = len(self.there.asked)
        self.assertIsInstance(self._error(), Unreachable)
        self.assertEqual(len(self.there.asked), asked)
        with self.assertRaises(Refused):
            request = ServerRequest(THERE, "GET", f"{V1}/event/x", insist=True)
            self._get(self.world.requests.signed(request))
        self.world.network.advance(6)
        self.assertIsInstance(self._error(), Refused)

    def test_the_back_off_grows_and_outlives_a_restart(self) -> None:
        """Twice as long each time, and it is in the database."""
        waits = []
        for _ in range(6):
            self._get(self.world.backoff.failed(THERE, self.world.now))
            waits.append(self._get(self.world.backoff.retry_at(THERE)) - self.world.now)
            self.world.network.advance(waits[-1] / 1000 + 1)
        self.assertTrue(all(1.3 * a < b < 3.1 * a for a, b in pairwise(waits)), waits)
        (row,) = self.world.database.rows("SELECT retry_at FROM destinations WHERE server = ?", THERE)
        self.assertEqual(row[0], self._get(self.world.backoff.retry_at(THERE)))

    def test_a_failure_noted_while_an_older_look_is_under_way_stays(self) -> None:
        """What the database said before a failure does not make the server one that answers."""
        backoff, held = self.world.backoff, Deferred[None]()
        store = backoff.store

        class Slow:
            async def failing(self, server: ServerName) -> Failing | None:
                found = await store.failing(server)
                await held
                return found

        slow: Any = Slow()
        backoff.store = slow
        look = Deferred.fromCoroutine(backoff.retry_at(THERE))
        backoff.store = store
        self._get(backoff.failed(THERE, self.world.now))
        held.callback(None)
        self.assertGreater(self.successResultOf(look), self.world.now)
        self.assertGreater(self._get(backoff.retry_at(THERE)), self.world.now)

    def test_failures_side_by_side_count_once(self) -> None:
        """Ten requests that fail together are one failure."""
        began = self.world.now
        self.world.network.advance(1)
        for _ in range(10):
            self._get(self.world.backoff.failed(THERE, began))
        self.assertLess(self._get(self.world.backoff.retry_at(THERE)) - self.world.now, 3_000)

    def test_nobody_there(self) -> None:
        """An unknown server is unreachable, and a denied one is never asked."""
        request = ServerRequest(ServerName("nowhere.example"), "GET", f"{V1}/version")
        with self.assertRaises(Unreachable):
            self._get(self.world.requests.signed(request))
        self.world.requests.allow_list = frozenset({"friend.example"})
        with self.assertRaises(Forbidden):
            self._ask()

    def test_patience_is_as_configured(self) -> None:
        """A server that takes the connection and says nothing is given up after the configured time."""
        self.world.network.listen("93.184.217.1", 8448, Factory.forProtocol(Protocol))
        self.world.requests.seconds = 5
        with self.assertRaises(NoAnswer):
            self._get(self.world.requests.signed(ServerRequest(THERE, "GET", f"{V1}/version")), 6)

    def test_a_server_that_is_another(self) -> None:
        """A certificate of another name is no answer."""
        self.world.network.listen("93.184.217.1", 8448, self.world.tls(self.there, "wrong.example"))
        with self.assertRaises((Unreachable, NoAnswer)):
            self._ask()


class QueryTests(ClientCase):
    """Queries about users, aliases and rooms."""

    def setUp(self) -> None:
        """Add the queries."""
        super().setUp()
        self.queries = FederationQueries(self.world.requests)

    def _say(self, method: str, path: str, body: JsonObject) -> None:
        self.there.say(method, f"{V1}/{path}", body)

    def test_alias(self) -> None:
        """The room and the servers; nonsense among them is left out."""
        self._say(
            "GET", "query/directory", {"room_id": ROOM, "servers": ["a.example", 5, "b c", "a.example"]}
        )
        target = self._get(self.queries.directory(RoomAlias("#x:there.example")))
        self.assertEqual((target.room_id, target.servers), (ROOM, ["a.example"]))
        self._say("GET", "query/directory", {"room_id": "nonsense", "servers": []})
        with self.assertRaises(BadAnswer):
            self._get(self.queries.directory(RoomAlias("#x:there.example")))

    def test_profile(self) -> None:
        """That there is no such user, or that none may ask, is what a client is told too."""
        self._say("GET", "query/profile", {"displayname": "Bob"})
        self.assertEqual(self._get(self.queries.query_profile(BOB)), {"displayname": "Bob"})
        for status, errcode, kind in (
            (404, "M_NOT_FOUND", NotFound),
            (403, "M_FORBIDDEN", Forbidden),
            (404, "M_UNRECOGNIZED", Refused),
        ):
            self.there.say("GET", f"{V1}/query/profile", {"errcode": errcode, "error": "no"}, status)
            with self.assertRaises(kind):
                self._get(self.queries.query_profile(BOB))

    def test_device_list(self) -> None:
        """Another user's list, or none, is a bad answer."""
        good: JsonObject = {"user_id": BOB, "stream_id": 5, "devices": []}
        self._say("GET", "user/devices/", good)
        self.assertEqual(self._get(self.queries.devices(BOB)), good)
        for bad in ({"user_id": "@eve:there.example"}, {"stream_id": "5"}, {"devices": {}}):
            self._say("GET", "user/devices/", {**good, **bad})
            with self.assertRaises(BadAnswer):
                self._get(self.queries.devices(BOB))

    def test_keys_of_other_servers_users_are_left_out(self) -> None:
        """A server speaks for its own users alone (security: F8)."""
        keys: JsonObject = {BOB: {"D": {}}, "@alice:here.example": {"D": {}}, "@x:there.example": 5}
        self._say("POST", "user/keys/query", {"device_keys": keys, "master_keys": 5})
        answer = self._get(self.queries.query_keys(THERE, {BOB: []}))
        self.assertEqual(answer["device_keys"], {BOB: {"D": {}}})
        self.assertEqual(answer["master_keys"], {})
        self._say("POST", "user/keys/claim", {"one_time_keys": keys})
        self.assertEqual(
            self._get(self.queries.claim_keys(THERE, {BOB: {"D": "signed_curve25519"}}))["one_time_keys"],
            {BOB: {"D": {}}},
        )

    def test_paths_are_encoded(self) -> None:
        """A slash in an ID stays one segment, and what is signed is what is sent."""
        self._say("GET", "event/", {"pdus": []})
        self._get(self.client.get_event(THERE, REF, EventID("$a/b+c?d")))
        self.assertEqual(self.there.asked[-1].uri, f"{V1}/event/%24a%2Fb%2Bc%3Fd")
