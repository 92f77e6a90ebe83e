"""Tests of key documents, the key ring and notaries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import SynchronousTestCase

from federation.key_fetching import MAX_ASKED_AT_ONCE, Notary, keys_in
from federation.key_ring import KeyNeed
from protocol.canonical_json import JsonObject, decode, encode
from protocol.errors import MatrixError
from protocol.identifiers import KeyID, ServerName
from protocol.limits import MAX_KEY_VALIDITY
from protocol.signing import encode_base64, sign_json, verify_json
from tests.federation.helpers import HERE, THERE, World, key_document, signing_key
from tests.federation.network import Answer, Asked

HOUR = 3_600_000
DAY = 24 * HOUR
KEY = KeyID("ed25519:1")
NOTARY = ServerName("notary.example")


class OwnKeyTests(SynchronousTestCase):
    """Our own document."""

    def test_the_document_is_signed_and_renewed_in_time(self) -> None:
        """It is signed by the key it states, and never ends within hours."""
        world = World(Path(self.mktemp()))
        for hours in (0, 1, 11, 13, 100):
            now = world.now + hours * HOUR
            document: Any = decode(world.own.document(now))
            verify_json(document, HERE, KEY, world.own.keys[0].verify_key)
            self.assertGreaterEqual(document["valid_until_ts"], now + 12 * HOUR)

    def test_others_can_read_it(self) -> None:
        """It passes the checks that documents of others must pass."""
        world = World(Path(self.mktemp()))
        keys = keys_in(decode(world.own.document(world.now)), HERE, world.now)
        self.assertEqual([key.key_id for key in keys], [KEY])


class DocumentTests(SynchronousTestCase):
    """What is believed of a document."""

    def setUp(self) -> None:
        """Make an honest document."""
        self.key = signing_key(2)
        self.document = key_document(THERE, [self.key], 10 * HOUR)

    def _refused(self, document: JsonObject) -> None:
        with self.assertRaises(MatrixError):
            keys_in(document, THERE, 0)

    def test_an_honest_document_passes(self) -> None:
        """Keys, validity and the document itself come out."""
        (key,) = keys_in(self.document, THERE, 0)
        self.assertEqual(
            (key.public_key, key.valid_until, key.expired), (bytes(self.key.verify_key), 10 * HOUR, False)
        )
        self.assertEqual(decode(key.document), self.document)

    def test_each_omission_is_refused(self) -> None:
        """Another name, no keys, a missing or wrong signature, wrong types (security: K5)."""
        other = signing_key(9, "ed25519:2")
        two = key_document(THERE, [self.key, other], 1)
        one_signature = {**two, "signatures": {THERE: {KEY: two["signatures"][THERE][KEY]}}}
        forged = sign_json(
            {k: v for k, v in self.document.items() if k != "signatures"}, THERE, signing_key(8)
        )
        for document in (
            {**self.document, "server_name": "other.example"},
            {**self.document, "verify_keys": {}},
            {**self.document, "verify_keys": []},
            {**self.document, "signatures": {}},
            {**self.document, "signatures": {"other.example": self.document["signatures"][THERE]}},
            {**self.document, "valid_until_ts": 11 * HOUR},
            {**self.document, "valid_until_ts": "never"},
            {**self.document, "old_verify_keys": {"ed25519:0": {}}},
            one_signature,
            forged,
        ):
            self._refused(document)
        with self.assertRaises(MatrixError):
            keys_in([], THERE, 0)

    def test_validity_is_capped_at_a_week(self) -> None:
        """However long a document says (security: K1)."""
        (key,) = keys_in(key_document(THERE, [self.key], 999 * DAY), THERE, 0)
        self.assertEqual(key.valid_until, MAX_KEY_VALIDITY)

    def test_unknown_algorithms_are_skipped(self) -> None:
        """They are no error."""
        document = key_document(THERE, [self.key], 1)
        del document["signatures"]
        document["verify_keys"]["curve9:x"] = {"key": "abc"}
        self.assertEqual(len(keys_in(sign_json(document, THERE, self.key), THERE, 0)), 1)


class KeyRingTests(SynchronousTestCase):
    """Looking keys up."""

    def setUp(self) -> None:
        """Put one server on the network."""
        self.world = World(Path(self.mktemp()))
        self.there = self.world.server()

    def _find(self, *needs: KeyNeed) -> dict[KeyNeed, Any]:
        return self.world.network.outcome(self.world.ring.find(needs), 120)

    def _asked_for_keys(self) -> int:
        return sum(asked.uri == "/_matrix/key/v2/server" for asked in self.there.asked)

    def test_a_key_is_fetched_once_and_kept(self) -> None:
        """Memory, then the database, then the server."""
        need = KeyNeed(THERE, KEY, None)
        for _ in range(3):
            self.assertEqual(bytes(self._find(need)[need]), bytes(self.there.key.verify_key))
        self.assertEqual(self._asked_for_keys(), 1)
        self.assertEqual(len(self.world.database.rows("SELECT 1 FROM server_keys")), 1)

    def test_many_at_once_ask_once(self) -> None:
        """Look-ups under way are shared (security: K6)."""
        need = KeyNeed(THERE, KEY, None)
        work = gatherResults([Deferred.fromCoroutine(self.world.ring.find([need])) for _ in range(50)])
        self.assertTrue(all(need in found for found in self.world.network.outcome(work)))
        self.assertEqual(self._asked_for_keys(), 1)

    def test_validity_at_a_time(self) -> None:
        """An event needs a key valid at its time, an event of an old room version any (security: K1)."""
        early, late = KeyNeed(THERE, KEY, self.world.now), KeyNeed(THERE, KEY, self.world.now + 2 * HOUR)
        any_time = KeyNeed(THERE, KEY, None)
        self.assertEqual(set(self._find(early, late, any_time)), {early, any_time})

    def test_an_ended_key_is_fetched_again(self) -> None:
        """What is too old for the event is refreshed (security: K1)."""
        self._find(KeyNeed(THERE, KEY, None))
        self.world.network.advance(2 * 3600)
        self.there.publish(self.world.now + HOUR)
        need = KeyNeed(THERE, KEY, self.world.now, current=True)
        self.assertIn(need, self._find(need))
        self.assertEqual(self._asked_for_keys(), 2)

    def test_an_old_key_serves_old_events_alone(self) -> None:
        """An old key counts up to its end, and never for a request (security: K1)."""
        old = signing_key(7, "ed25519:old")
        entry = {"ed25519:old": {"key": encode_base64(bytes(old.verify_key)), "expired_ts": 5000}}
        document = key_document(THERE, [self.there.key], self.world.now + HOUR, entry)
        self.there.say("GET", "/_matrix/key/v2/server", document)
        old_id = KeyID("ed25519:old")
        good, late = KeyNeed(THERE, old_id, 5000), KeyNeed(THERE, old_id, 5001)
        request = KeyNeed(THERE, old_id, 5000, current=True)
        self.assertEqual(set(self._find(good, late, request)), {good})

    def test_a_key_id_never_changes_its_key(self) -> None:
        """A later document with another key under the same ID changes nothing."""
        need = KeyNeed(THERE, KEY, None)
        first = bytes(self._find(need)[need])
        other = signing_key(9)
        self.there.say(
            "GET", "/_matrix/key/v2/server", key_document(THERE, [other], self.world.now + 9 * HOUR)
        )
        later = KeyNeed(THERE, KEY, self.world.now + 2 * HOUR)
        self.assertNotIn(later, self._find(later))
        self.assertEqual(bytes(self._find(need)[need]), first)

    def test_invented_servers_and_keys_are_not_asked_for_again(self) -> None:
        """Failures are remembered; an invented key ID delays a known server by little (security: K6)."""
        nowhere = KeyNeed(ServerName("nowhere.example"), KEY, None)
        invented = KeyNeed(THERE, KeyID("ed25519:invented"), None)
        for _ in range(5):
            self.assertEqual(self._find(nowhere, invented), {})
        self.assertEqual(self._asked_for_keys(), 1)
        for _ in range(5):
            self.world.network.advance(61)
            self._find(invented)
        self.assertEqual(self._asked_for_keys(), 6)

    def test_invented_servers_are_asked_few_at_a_time(self) -> None:
        """Look-ups run side by side up to a bound, and each server is asked once (security: K6)."""
        needs = [KeyNeed(ServerName(f"s{number}.example"), KEY, None) for number in range(100)]
        silent = Factory.forProtocol(Protocol)
        for port in (443, 8448):
            self.world.network.listen("93.184.218.1", port, silent)
        for need in needs:
            self.world.resolver.hosts[need.server] = ["93.184.218.1"]
        work = Deferred.fromCoroutine(self.world.ring.find(needs))
        self.world.network.settle()
        self.assertEqual(len(self.world.network.dialled), MAX_ASKED_AT_ONCE)
        while not work.called:
            self.world.network.advance(60)
        self.assertEqual(self.successResultOf(work), {})

    def test_our_own_keys_are_never_asked_for(self) -> None:
        """Our events come back to us; their keys are at hand."""
        need, unknown = KeyNeed(HERE, KEY, 5), KeyNeed(HERE, KeyID("ed25519:none"), 5)
        self.assertEqual(set(self._find(need, unknown)), {need})


class NotaryTests(SynchronousTestCase):
    """Believing another server about keys."""

    def setUp(self) -> None:
        """Make a notary, and a dead server it knows."""
        self.notary_key = signing_key(5)
        notary = Notary(NOTARY, {KEY: self.notary_key.verify_key})
        self.world = World(Path(self.mktemp()), [notary])
        self.notary = self.world.server(NOTARY, 5)
        self.document = key_document(THERE, [signing_key(2)], self.world.now + HOUR)
        self.need = KeyNeed(THERE, KEY, self.world.now)

    def _answer(self, *documents: object) -> bool:
        self.notary.say("POST", "/_matrix/key/v2/query", {"server_keys": list(documents)})
        return self.need in self.world.network.outcome(self.world.ring.find([self.need]), 120)

    def test_a_document_signed_by_both_is_believed(self) -> None:
        """The notary's signature and the server's own."""
        self.assertTrue(self._answer(sign_json(self.document, NOTARY, self.notary_key)))
        query: Any = decode(self.notary.asked[-1].body)
        wanted = {THERE: {KEY: {"minimum_valid_until_ts": self.world.now}}}
        self.assertEqual(query, {"server_keys": wanted})

    def test_without_the_notarys_signature(self) -> None:
        """Dropped (security: K5)."""
        self.assertFalse(self._answer(self.document))

    def test_with_another_key_of_the_notary(self) -> None:
        """Dropped (security: K5)."""
        self.assertFalse(self._answer(sign_json(self.document, NOTARY, signing_key(6))))

    def test_without_the_servers_signature(self) -> None:
        """Dropped (security: K5)."""
        bare = {key: value for key, value in self.document.items() if key != "signatures"}
        self.assertFalse(self._answer(sign_json(bare, NOTARY, self.notary_key)))

    def test_of_a_server_not_asked_for(self) -> None:
        """Dropped, and good ones beside it stay (security: K5)."""
        stranger = key_document("stranger.example", [signing_key(3)], self.world.now + HOUR)
        good = sign_json(self.document, NOTARY, self.notary_key)
        self.assertTrue(self._answer(5, sign_json(stranger, NOTARY, self.notary_key), good))
        rows = self.world.database.rows("SELECT server FROM server_keys")
        self.assertEqual(rows, [(THERE,)])

    def test_nonsense_is_no_harm(self) -> None:
        """A notary that answers anything else gives no keys (security: K5)."""
        self.notary.answers["POST", "/_matrix/key/v2/query"] = lambda _: Answer(200, b'{"server_keys":5}')
        self.assertEqual(self.world.network.outcome(self.world.ring.find([self.need]), 120), {})

    def test_many_servers_are_asked_of_the_notary_first(self) -> None:
        """In bulk one request serves for all."""
        names = [ServerName(f"s{number}.example") for number in range(20)]

        def answer(asked: Asked) -> Answer:
            documents = [
                sign_json(
                    key_document(name, [signing_key(2)], self.world.now + HOUR), NOTARY, self.notary_key
                )
                for name in names
            ]
            return Answer(200, encode({"server_keys": documents}))

        self.notary.answers["POST", "/_matrix/key/v2/query"] = answer
        needs = [KeyNeed(name, KEY, self.world.now) for name in names]
        self.assertEqual(len(self.world.network.outcome(self.world.ring.find(needs), 120)), 20)
        self.assertEqual(len(self.notary.asked), 1)
