"""Tests of rooms with a policy server: what is asked before sending, and what of unsigned events becomes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import SynchronousTestCase

from homeserver.events import receiving
from homeserver.events.received import Course, Outcome
from homeserver.events.stored import Status, StoredEvent
from homeserver.events.write import TransactionRepeated
from protocol.canonical_json import decode, dumps
from protocol.errors import BadGateway, EventTooLarge, Forbidden, GatewayTimeout, LimitExceeded, NotFound
from protocol.events import Event, EventDraft, Links, build_event, countersign
from protocol.hashes import essential_bytes
from protocol.identifiers import UserID
from protocol.policy import POLICY_KEY_ID
from protocol.room_versions import V11
from protocol.signing import SigningKey, encode_base64
from storage.transactions import TransactionKey
from tests.federation.core import ALICE
from tests.federation.network import Answer, Asked
from tests.federation.plait import Plait

MOD = UserID("@mod:policy.example")
SIGN = "/_matrix/policy/v1/sign"
KEY = SigningKey(b"\7" * 32, POLICY_KEY_ID)
TXN = TransactionKey(1, "DEVICE", '["send", "x"]')


def silent() -> Factory:
    """Give a server that takes connections and says nothing."""
    return Factory.forProtocol(Protocol)


class PolicyCase(SynchronousTestCase):
    """A server with a room, and a policy server that signs what it is asked to sign."""

    def setUp(self) -> None:
        """Let the policy server's user join, and name it in the room's state."""
        self.here = Plait(Path(self.mktemp()))
        self.core, self.network = self.here.core, self.here.world.network
        self.policy = self.here.world.server("policy.example", 5)
        self.policy.answers["POST", SIGN] = self._sign
        self.room_id = self.core.room()
        join = self._remote("m.room.member", {"membership": "join"}, MOD, MOD)
        self.assertIs(self._receive(join).status, Status.ACCEPTED)
        content = {"via": "policy.example", "public_keys": {"ed25519": encode_base64(bytes(KEY.verify_key))}}
        self._send("m.room.policy", content, state_key="")

    def _sign(self, asked: Asked) -> Answer:
        pdu: Any = decode(asked.body)
        signature = KEY.sign_base64(essential_bytes(pdu, V11))
        return Answer(body=dumps({"policy.example": {POLICY_KEY_ID: signature}}))

    def _asked(self) -> int:
        return sum(asked.uri == SIGN for asked in self.policy.asked)

    def _send(
        self,
        event_type: str = "m.room.message",
        content: Any = None,
        *,
        state_key: str | None = None,
        redacts: Any = None,
        txn: TransactionKey | None = None,
        seconds: float = 0,
    ) -> StoredEvent:
        draft = EventDraft(
            self.room_id, event_type, ALICE, content or {"body": "x"}, state_key, redacts=redacts
        )
        return self.network.outcome(self.here.events.send(draft, now=self.here.world.now, txn=txn), seconds)

    def _remote(
        self,
        event_type: str,
        content: Any,
        sender: UserID = MOD,
        state_key: str | None = None,
        after: Event | None = None,
    ) -> Event:
        """Build an event of the policy server's user, without its recommendation."""
        draft = EventDraft(self.room_id, event_type, sender, content, state_key)
        links, _ = self.network.outcome(self.core.unplaced.links(self._room_nid(), draft))
        before = links.prev_events if after is None else (after.event_id,)
        return build_event(
            draft,
            V11,
            Links(before, links.auth_events, links.depth),
            now=self.here.world.now,
            server_name=self.policy.name,
            key=self.policy.key,
        )

    def _room_nid(self) -> int:
        room_nid = self.network.outcome(self.core.nids.room(self.room_id))
        assert room_nid is not None
        return room_nid

    def _receive(self, event: Event, course: Course = Course.RECEIVED, seconds: float = 0) -> Outcome:
        placing = self.here.receiving.received.place(self._room_nid(), (event,), course)
        return self.network.outcome(placing, seconds)[0]

    def _bears(self, stored: StoredEvent | None) -> bool:
        assert stored is not None
        return POLICY_KEY_ID in stored.event.pdu["signatures"].get("policy.example", {})


class SendingTests(PolicyCase):
    """Events of our users."""

    def test_an_event_is_signed_before_it_is_sent(self) -> None:
        """The policy server gets the PDU, and its signature goes out with the event."""
        sent = self._send()
        self.assertTrue(self._bears(sent))
        self.assertEqual(self._asked(), 1)
        asked: Any = decode(self.policy.asked[-1].body)
        self.assertEqual(asked["content"], {"body": "x"})
        self.assertIn("here.example", asked["signatures"])
        head = self.network.outcome(self.core.heads.get(self._room_nid()))
        self.assertEqual(head.place.prev_events, (sent.event.event_id,))

    def test_state_and_memberships_are_signed_as_well(self) -> None:
        """All events are, but the one that names the policy server, which may take it away."""
        self.assertTrue(self._bears(self._send("m.room.topic", {"topic": "t"}, state_key="")))
        asked = self._asked()
        self._send("m.room.policy", {"via": "policy.example"}, state_key="")
        self._send()
        self.assertEqual(self._asked(), asked)

    def test_an_event_leaves_room_for_signatures(self) -> None:
        """One that fills all bytes but those is sent; a larger one is refused before anybody is asked."""
        spare = 65_536 - 1_024 - len(self._send().event.raw)
        self._send(content={"body": "x" * spare})
        asked = self._asked()
        with self.assertRaises(EventTooLarge):
            self._send(content={"body": "x" * (spare + 600)})
        self.assertEqual(self._asked(), asked)

    def test_a_refusal_is_told_in_its_own_words(self) -> None:
        """The event is nowhere afterwards."""
        self.policy.say("POST", SIGN, {"errcode": "M_FORBIDDEN", "error": "This is spam"}, 400)
        before = self.network.outcome(self.core.heads.get(self._room_nid())).seq
        with self.assertRaises(Forbidden) as caught:
            self._send()
        self.assertEqual(caught.exception.error, "This is spam")
        self.assertEqual(self.network.outcome(self.core.heads.get(self._room_nid())).seq, before)
        self.policy.say("POST", SIGN, {"errcode": "M_LIMIT_EXCEEDED", "retry_after_ms": 7}, 429)
        with self.assertRaises(LimitExceeded) as slow:
            self._send()
        self.assertEqual(slow.exception.retry_after_ms, 7)

    def test_a_policy_server_that_does_not_answer(self) -> None:
        """The sender is told within seconds, again and again, until it is back: then all is well."""
        address = (self.here.world.resolver.hosts["policy.example"][0], 8448)
        alive = self.network.servers[address]
        self.network.servers[address] = silent()
        for _ in range(2):
            with self.assertRaises(GatewayTimeout):
                self._send(seconds=15)
        del self.network.servers[address]
        with self.assertRaises(BadGateway):
            self._send()
        self.network.servers[address] = alive
        self.assertTrue(self._bears(self._send()))

    def test_a_repeated_request_gives_the_first_event(self) -> None:
        """By its transaction ID, without asking again, whatever the policy server would say now."""
        first = self._send(txn=TXN)
        self.policy.say("POST", SIGN, {"errcode": "M_FORBIDDEN", "error": "no"}, 400)
        self.assertEqual(self._send(txn=TXN).event.event_id, first.event.event_id)
        self.assertEqual(self._asked(), 1)

    def test_a_repeated_request_under_the_rooms_lock(self) -> None:
        """Where only the room's lock helps, the transaction ID still stands for one event."""
        self.patch(receiving, "TRIES", 0)
        first = self._send(txn=TXN)
        again = self._send("m.room.message", {"body": "again"})
        self.assertEqual(self._send(txn=TXN).event.event_id, first.event.event_id)
        placing = self.here.signed.place(self._room_nid(), again.event, now=0, txn=TXN)
        with self.assertRaises(TransactionRepeated):
            self.network.outcome(placing)

    def test_a_redaction_needs_the_right_to_it_here_too(self) -> None:
        """Nobody is asked about a redaction that its sender may not make."""
        message = self._remote("m.room.message", {"body": "z"})
        self._receive(message)
        users = {"users": {ALICE: 40}, "redact": 60, "state_default": 40}
        self._send("m.room.power_levels", users, state_key="")
        asked = self._asked()
        with self.assertRaises(Forbidden):
            self._send("m.room.redaction", {}, redacts=message.event_id)
        self.assertEqual(self._asked(), asked)

    def test_without_a_member_there_it_is_not_used(self) -> None:
        """A server that has left is not asked, and nobody waits for its word."""
        leave = self._remote("m.room.member", {"membership": "leave"}, MOD, MOD)
        self.assertIs(self._receive(leave).status, Status.ACCEPTED)
        asked = self._asked()
        self.assertFalse(self._bears(self._send()))
        self.assertEqual(self._asked(), asked)

    def test_a_room_that_names_us_is_told_so(self) -> None:
        """This server is none, and does not ask itself over the network."""
        self._send("m.room.policy", {"via": "here.example", "public_keys": {"ed25519": "x"}}, state_key="")
        with self.assertRaises(NotFound):
            self._send()


class ReceivingTests(PolicyCase):
    """Events of others."""

    def test_an_event_with_the_signature_is_taken(self) -> None:
        """Nobody is asked."""
        event = self._signed(self._remote("m.room.message", {"body": "a"}))
        self.assertIs(self._receive(event).status, Status.ACCEPTED)
        self.assertEqual(self._asked(), 0)

    def test_an_event_without_it_is_asked_about_once(self) -> None:
        """With the signature that is given then, it is taken and kept."""
        outcome = self._receive(self._remote("m.room.message", {"body": "a"}))
        self.assertIs(outcome.status, Status.ACCEPTED)
        self.assertTrue(self._bears(outcome.stored))
        self.assertEqual(self._asked(), 1)

    def test_a_wrong_signature_is_asked_about_as_well(self) -> None:
        """One of another key counts for nothing; the room's key may have changed."""
        event = self._signed(
            self._remote("m.room.message", {"body": "a"}), SigningKey(b"\x09" * 32, KEY.key_id)
        )
        self.assertIs(self._receive(event).status, Status.ACCEPTED)
        self.assertEqual(self._asked(), 1)

    def test_what_is_refused_is_soft_failed(self) -> None:
        """It is kept and moves nothing; told again, it is not asked about again."""
        self.policy.say("POST", SIGN, {"errcode": "M_FORBIDDEN", "error": "spam"}, 400)
        before = self.network.outcome(self.core.heads.get(self._room_nid())).seq
        event = self._remote("m.room.message", {"body": "a"})
        for _ in range(2):
            self.assertIs(self._receive(event).status, Status.SOFT_FAILED)
        self.assertEqual(self._asked(), 1)
        self.assertEqual(self.network.outcome(self.core.heads.get(self._room_nid())).seq, before)

    def test_an_event_that_waits_for_its_past_is_asked_about_once(self) -> None:
        """It is taken with the signature that was given when it came too early."""
        early = self._remote("m.room.message", {"body": "parent"})
        late = self._remote("m.room.message", {"body": "child"}, after=early)
        self.assertIsNone(self._receive(late).status)
        self._receive(early)
        asked = self._asked()
        outcome = self._receive(late)
        self.assertIs(outcome.status, Status.ACCEPTED)
        self.assertTrue(self._bears(outcome.stored))
        self.assertEqual(self._asked(), asked)

    def test_a_signature_of_anything_else_is_no_recommendation(self) -> None:
        """An answer without a good signature is as good as a refusal."""
        for answer in ({}, {"policy.example": 5}, {"policy.example": {POLICY_KEY_ID: "AAAA"}}):
            self.policy.say("POST", SIGN, answer)
            event = self._remote("m.room.message", {"body": str(answer)})
            self.assertIs(self._receive(event).status, Status.SOFT_FAILED)

    def test_the_event_that_names_the_policy_server_needs_nothing(self) -> None:
        """Whoever may set it may set it."""
        self._send("m.room.power_levels", {"users": {ALICE: 100, MOD: 100}}, state_key="")
        asked = self._asked()
        outcome = self._receive(self._remote("m.room.policy", {}, MOD, ""))
        self.assertIs(outcome.status, Status.ACCEPTED)
        self.assertEqual(self._asked(), asked)

    def test_history_is_not_judged(self) -> None:
        """Events of the past came before it."""
        self.assertIs(
            self._receive(self._remote("m.room.message", {"body": "a"}), Course.PAST).status, Status.ACCEPTED
        )
        self.assertEqual(self._asked(), 0)

    def test_a_slow_policy_server_does_not_hold_the_room(self) -> None:
        """While it thinks about one event, others of the room find their place; then that one soft-fails."""
        slow = self._remote("m.room.message", {"body": "slow"})
        quick = self._signed(self._remote("m.room.message", {"body": "quick"}))
        address = self.here.world.resolver.hosts["policy.example"][0]
        self.network.servers[address, 8448] = silent()
        received = self.here.receiving.received
        waiting = Deferred.fromCoroutine(received.place(self._room_nid(), (slow,)))
        self.network.settle()
        self.assertFalse(waiting.called)
        self.assertIs(self._receive(quick).status, Status.ACCEPTED)
        self.assertIs(self.network.outcome(waiting, 15)[0].status, Status.SOFT_FAILED)

    def _signed(self, event: Event, key: SigningKey = KEY) -> Event:
        return countersign(event, self.policy.name, key)
