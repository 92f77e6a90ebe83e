"""Tests of the EDUs that are sent beside events."""

from __future__ import annotations

from typing import Any

from federation.outbound.edus import MAX_RECEIPTS
from protocol.canonical_json import encode
from storage.feed import Kind, NewEntry
from storage.outbound_edus import queue_rows
from storage.rows import run_all
from tests.federation.helpers import THERE
from tests.federation.network import Answer
from tests.federation.sender_helpers import DEAD, SenderCase


class EduTests(SenderCase):
    """What is no event."""

    def _queue(self, *numbers: int) -> None:
        rows = queue_rows(
            [(n, THERE, self.world.now, encode({"edu_type": "x", "content": {"n": n}})) for n in numbers]
        )
        self.world.database.run(run_all, [rows])
        self.home.feed(NewEntry(Kind.OUTBOUND_EDU, ref=numbers[-1]))

    def _numbers(self) -> list[int]:
        return [edu["content"]["n"] for _, body in self.receiver.transactions for edu in body["edus"]]

    def test_durable_edus_arrive_in_order_and_are_forgotten(self) -> None:
        """At most 100 in a transaction."""
        self._queue(*range(250))
        self._pass()
        self.assertEqual(self._numbers(), list(range(250)))
        self.assertTrue(all(len(body["edus"]) <= 100 for _, body in self.receiver.transactions))
        self.assertEqual(self.world.database.rows("SELECT * FROM outbound_edus"), [])

    def test_durable_edus_are_found_after_none_were(self) -> None:
        """That nothing waited before is no reason to leave an EDU lying."""
        for n in (1, 2):
            self.home.say("x")
            self._pass()
            self._queue(n)
            self._pass()
        self.assertEqual(self._numbers(), [1, 2])

    def test_durable_edus_survive_outage_and_restart(self) -> None:
        """To-device messages are never lost."""
        self.receiver.answer = lambda _: DEAD
        self._queue(1, 2, 3)
        self._pass(3)
        self.receiver.transactions.clear()
        self.receiver.answer = lambda _: Answer()
        self._restart()
        self._pass(60)
        self.assertEqual(self._numbers(), [1, 2, 3])

    def test_passing_edus_keep_the_last_value_alone(self) -> None:
        """And are dropped for a server that does not answer."""
        self.process.passing.on_waiting(self.process.sender.wake)
        self.receiver.answer = lambda _: DEAD
        self.home.say("x")
        self._pass()
        for n in range(5):
            self.process.passing.put(THERE, "key", encode({"edu_type": "m.typing", "content": {"n": n}}))
        self.receiver.answer = lambda _: Answer()
        self._pass(60)
        self.assertEqual(self._numbers()[-1:], [4])
        self.receiver.answer = lambda _: DEAD
        self.home.say("y")
        self._pass(1)
        self.process.passing.put(THERE, "key", encode({"edu_type": "m.typing", "content": {"n": 9}}))
        self._pass(20)
        self.receiver.transactions.clear()
        self.receiver.answer = lambda _: Answer()
        self._pass(60)
        self.assertEqual(self._numbers(), [])

    def test_the_newest_receipts_outlast_an_outage(self) -> None:
        """How far users have read is as true after it; of much that waits the newest is kept."""
        self.process.passing.on_waiting(self.process.sender.wake)
        self.receiver.answer = lambda _: DEAD
        self.home.say("x")
        self._pass(1)
        for n in range(MAX_RECEIPTS + 20):
            edu = encode({"edu_type": "m.receipt", "content": {"n": n}})
            self.process.passing.put(THERE, ("receipt", "!r:here.example", f"@u{n}:here.example", None), edu)
        self._pass(20)
        self.receiver.transactions.clear()
        self.receiver.answer = lambda _: Answer()
        self._pass(60)
        self.assertEqual(self._numbers(), list(range(20, MAX_RECEIPTS + 20)))

    def test_receipts_beside_a_refused_event(self) -> None:
        """They are no part of what is wrong, and arrive in its place, the newest of each."""
        self.process.passing.on_waiting(self.process.sender.wake)

        def answer(body: Any) -> Answer:
            bad = any(pdu["content"]["body"] == "bad" for pdu in body["pdus"])
            if bad and body["edus"]:
                self._put_receipt("@u1:here.example", 11)
            return Answer(400, b'{"errcode":"M_UNKNOWN","error":"bad"}') if bad else Answer()

        self.receiver.answer = lambda _: DEAD
        self.home.say("x")
        self._pass()
        self.home.say("bad")
        self.receiver.answer = answer
        self._pass(1)
        for n in range(3):
            self._put_receipt(f"@u{n}:here.example", n)
        self._pass(60)
        told = [
            edu["content"]["n"]
            for _, body in self.receiver.transactions
            if answer(body).status == 200
            for edu in body["edus"]
        ]
        self.assertEqual(told, [0, 2, 11])

    def _put_receipt(self, user_id: str, n: int) -> None:
        edu = encode({"edu_type": "m.receipt", "content": {"n": n}})
        self.process.passing.put(THERE, ("receipt", "!r:here.example", user_id, None), edu)

    def test_a_refused_edu_is_left_out(self) -> None:
        """The others arrive."""

        def answer(body: Any) -> Answer:
            bad = any(edu["content"]["n"] == 7 for edu in body["edus"])
            return Answer(400, b'{"errcode":"M_UNKNOWN","error":"bad"}') if bad else Answer()

        self.receiver.answer = answer
        self._queue(*range(20))
        self._pass(5)
        accepted = {
            edu["content"]["n"]
            for _, body in self.receiver.transactions
            if answer(body).status == 200
            for edu in body["edus"]
        }
        self.assertEqual(accepted, set(range(20)) - {7})
