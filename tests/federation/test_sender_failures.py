"""Tests of sending to servers that fail, are away, or come back."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from protocol.events import EventDraft
from protocol.identifiers import RoomID, ServerName
from storage.outbound_edus import Extra
from tests.federation.helpers import THERE
from tests.federation.network import Answer
from tests.federation.sender_helpers import ALICE, DEAD, ROOM, Receiver, SenderCase


class FailureTests(SenderCase):
    """While the other server fails."""

    def test_a_retry_repeats_id_and_body(self) -> None:
        """Until the answer is 200, nothing else is sent."""
        answers = [Answer(503), Answer(502)]
        self.receiver.answer = lambda _: answers.pop(0) if answers else Answer()
        self.home.say("first")
        self._pass()
        self.home.say("second")
        self._pass(30)
        sent = self.receiver.transactions
        self.assertEqual([txn_id for txn_id, _ in sent[:3]], [sent[0][0]] * 3)
        self.assertEqual([body for _, body in sent[:3]], [sent[0][1]] * 3)
        self.assertEqual(self.receiver.texts, ["first"] * 3 + ["second"])

    def test_an_outage_of_500_messages_is_made_up_for(self) -> None:
        """All that was said while the server was away arrives, once and in order."""
        self.receiver.answer = lambda _: DEAD
        for number in range(500):
            self.home.say(str(number))
            if number % 100 == 0:
                self._pass(60)
        self.receiver.transactions.clear()
        self.receiver.answer = lambda _: Answer()
        self.world.network.outcome(self.world.backoff.succeeded(THERE))
        self._pass(5)
        self.assertEqual(self.receiver.texts, [str(number) for number in range(500)])
        self.home.say("live")
        self._pass()
        self.assertEqual(self.receiver.texts[-1], "live")
        self.assertEqual(self.world.network.outcome(self.process.sending.records.destinations.behind()), {})

    def test_a_very_long_outage_is_cut_to_the_newest_of_each_room(self) -> None:
        """From there the other server fills the gap itself."""
        self.home.join(THERE, 2, b"s")
        self.receiver.answer = lambda _: DEAD
        for number in range(600):
            self.home.say(f"a{number}")
            self.home.say(f"b{number}", 2, b"s")
        self._pass(5)
        self.receiver.transactions.clear()
        self.receiver.answer = lambda _: Answer()
        self._pass(60)
        self.assertEqual(self.receiver.texts[-2:], ["a599", "b599"])
        self.assertLess(len(self.receiver.texts), 110)

    def test_invites_withdrawn_in_a_very_long_outage(self) -> None:
        """What the server is owed of rooms it is not in is sent whole, however much."""
        self.receiver.answer = lambda _: DEAD
        for number in range(60):
            draft = EventDraft(
                RoomID("!other:here.example"),
                "m.room.member",
                ALICE,
                {"membership": "leave", "body": f"kick{number}"},
                state_key=f"@u{number}:there.example",
            )
            self.home.tell(self.home.store(draft, 2, b"s"))
        for number in range(1001):
            self.home.say(f"a{number}")
        self._pass(5)
        self.receiver.transactions.clear()
        self.receiver.answer = lambda _: Answer()
        self._pass(60)
        self.assertEqual(self.receiver.texts[-61:], [*(f"kick{number}" for number in range(60)), "a1000"])

    def test_events_from_before_a_server_joined_are_not_made_up_for(self) -> None:
        """What it is owed is judged by the state before each event."""
        self.receiver.answer = lambda _: DEAD
        self.home.say("first")
        self._pass(1)
        self.home.say("not theirs", 3, b"before")
        self.home.join(THERE, 3, b"after")
        self.home.say("theirs", 3, b"after")
        self.receiver.transactions.clear()
        self.receiver.answer = lambda _: Answer()
        self._pass(60)
        self.assertEqual(self.receiver.texts, ["first", "theirs"])

    def test_a_restart_loses_nothing(self) -> None:
        """Neither what was under way nor what waited for a server that is away."""
        self.receiver.answer = lambda _: DEAD
        for number in range(70):
            self.home.say(str(number))
        self._pass(3)
        self.receiver.transactions.clear()
        self.receiver.answer = lambda _: Answer()
        self._restart()
        self._pass(60)
        self.assertEqual(self.receiver.texts, [str(number) for number in range(70)])

    def test_a_crash_before_the_first_try_loses_nothing(self) -> None:
        """What the feed has, and no process has handled, is sent by the next one."""
        self.process.die()
        self.home.listeners.clear()
        self.home.say("unseen")
        self._restart()
        self.assertEqual(self.receiver.texts, ["unseen"])

    def test_confirmed_events_are_not_sent_again_after_a_restart(self) -> None:
        """The position is kept within seconds."""
        self.home.say("once")
        self._pass(10)
        self._restart()
        self._pass(10)
        self.assertEqual(self.receiver.texts, ["once"])

    def test_one_bad_event_does_not_block_the_rest(self) -> None:
        """A refusal is narrowed down to the event at fault, which is left out (security: F2)."""

        def answer(body: Any) -> Answer:
            bad = any(pdu["content"]["body"] == "17" for pdu in body["pdus"])
            return Answer(400, b'{"errcode":"M_BAD_JSON","error":"bad"}') if bad else Answer()

        self.receiver.answer = answer
        for number in range(120):
            self.home.say(str(number))
        self._pass(5)
        accepted = [
            pdu["content"]["body"]
            for _, body in self.receiver.transactions
            if answer(body).status == 200
            for pdu in body["pdus"]
        ]
        self.assertEqual(accepted, [str(number) for number in range(120) if number != 17])
        self.assertLess(len(self.receiver.transactions), 25)

    def test_a_400_of_something_that_is_no_matrix_server_drops_nothing(self) -> None:
        """Only a Matrix error says that the events are bad."""
        self.receiver.answer = lambda _: Answer(400, b"<html>")
        self.home.say("x")
        self._pass(5)
        self.receiver.answer = lambda _: Answer()
        self._pass(120)
        self.assertEqual(self.receiver.texts[-1], "x")

    def test_a_proxy_that_takes_less(self) -> None:
        """Its 413 has smaller transactions sent; one event that is too large is not left out for that."""
        self.receiver.answer = lambda _: DEAD
        for number in range(40):
            self.home.say(str(number))
        self._pass()
        taken: list[str] = []

        def answer(body: Any) -> Answer:
            if len(body["pdus"]) > 8:
                return Answer(413, b"<html>")
            taken.extend(pdu["content"]["body"] for pdu in body["pdus"])
            return Answer()

        self.receiver.answer = answer
        self._pass(60)
        self.assertEqual(taken, [str(number) for number in range(40)])
        self.receiver.answer = lambda _: Answer(413, b"<html>")
        self.home.say("large")
        self._pass(10)
        self.receiver.transactions.clear()
        self.receiver.answer = lambda _: Answer()
        self._pass(120)
        self.assertEqual(self.receiver.texts, ["large"])

    def test_a_server_that_forbids_is_left_in_peace(self) -> None:
        """403 for everything is tried again rarely, whatever else it sends us, and nothing is lost."""
        self.receiver.answer = lambda _: Answer(403, b'{"errcode":"M_FORBIDDEN","error":"no"}')
        self.home.say("x")
        for _ in range(10):
            self._pass(5)
            self.world.network.outcome(self.world.backoff.succeeded(THERE))
        self.assertEqual(len(self.receiver.transactions), 1)
        self.receiver.answer = lambda _: Answer()
        self._pass(60)
        self.assertEqual(self.receiver.texts, ["x", "x"])

    def test_retry_after_is_honoured(self) -> None:
        """The wait a server asks for is kept."""
        self.receiver.answer = lambda _: Answer(503, headers={"Retry-After": "600"})
        self.home.say("x")
        self._pass(590)
        self.assertEqual(len(self.receiver.transactions), 1)
        self.receiver.answer = lambda _: Answer()
        self._pass(20)
        self.assertEqual(len(self.receiver.transactions), 2)

    def test_an_invite_withdrawn_while_the_server_is_away(self) -> None:
        """A kick of an invited user reaches a server that is not in the room, also after a restart."""
        other = ServerName("other.example")
        receiver = Receiver(self.world.server(other, 3))
        receiver.answer = lambda _: DEAD
        draft = EventDraft(
            ROOM, "m.room.member", ALICE, {"membership": "leave"}, state_key="@u:other.example"
        )
        self.home.tell(self.home.store(draft))
        self._pass(3)
        receiver.transactions.clear()
        receiver.answer = lambda _: Answer()
        self._restart()
        self._pass(60)
        self.assertEqual(len(receiver.transactions), 1)
        self.assertEqual(self.world.database.rows("SELECT * FROM outbound_extras"), [])

    def test_an_event_that_comes_while_a_backlog_ends(self) -> None:
        """A destination that ends its backlog while an entry is being handed out misses nothing of it."""
        third = ServerName("third.example")
        Receiver(self.world.server(third, 3))
        self.receiver.answer = lambda _: DEAD
        self.home.say("backlog")
        self._pass(3)
        held: Deferred[None] = Deferred()
        edus = self.process.sending.records.edus
        add_extra = edus.add_extra

        async def slowly(server: ServerName, extra: Extra) -> None:
            await held
            await add_extra(server, extra)

        self.patch(type(edus), "add_extra", lambda _, server, extra: slowly(server, extra))
        content = {"membership": "leave", "body": "kick"}
        draft = EventDraft(ROOM, "m.room.member", ALICE, content, state_key="@u:third.example")
        self.home.tell(self.home.store(draft))
        self.receiver.answer = lambda _: Answer(200, b'{"pdus":{}}')
        self._pass(600)
        held.callback(None)
        self._pass(60)
        self.assertEqual(self.receiver.texts[-2:], ["backlog", "kick"])
