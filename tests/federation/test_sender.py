"""Tests of what is sent to other servers, and to whom."""

from __future__ import annotations

from attrs import evolve

from homeserver.events.stored import Status
from protocol.canonical_json import decode, encode
from protocol.events import EventDraft, event_of
from protocol.identifiers import EventID, ServerName
from protocol.room_versions import V5
from tests.federation.helpers import HERE
from tests.federation.sender_helpers import ALICE, BOB, ROOM, Receiver, SenderCase


class LiveTests(SenderCase):
    """While the other server answers."""

    def test_events_arrive_in_order(self) -> None:
        """Each once, in the order of the feed, at most 50 in a transaction."""
        for number in range(120):
            self.home.say(str(number))
        self._pass()
        self.assertEqual(self.receiver.texts, [str(number) for number in range(120)])
        self.assertTrue(all(len(body["pdus"]) <= 50 for _, body in self.receiver.transactions))
        self.assertEqual(self.receiver.transactions[0][1]["origin"], HERE)

    def test_the_body_is_canonical(self) -> None:
        """What is joined from bytes is what canonical JSON would give."""
        self.home.say("ü")
        self._pass()
        asked = next(asked for asked in self.there.asked if asked.method == "PUT")
        self.assertEqual(encode(decode(asked.body)), asked.body)

    def test_servers_outside_the_room_get_nothing(self) -> None:
        """Nor does this server send to itself."""
        self.world.server("other.example", 3)
        self.home.say("x", room_nid=2)
        self._pass()
        self.assertEqual(self.receiver.transactions, [])

    def test_a_kicked_user_s_server_gets_the_kick(self) -> None:
        """Also when it has no other member, or was only invited; the kick of a remote admin is not ours."""
        other = ServerName("other.example")
        receiver = Receiver(self.world.server(other, 3))
        draft = EventDraft(
            ROOM, "m.room.member", ALICE, {"membership": "leave"}, state_key="@u:other.example"
        )
        self.home.tell(self.home.store(draft))
        self._pass()
        self.assertEqual(len(receiver.transactions), 1)
        self.assertEqual(self.world.database.rows("SELECT * FROM outbound_extras"), [])

    def test_an_event_does_not_go_back_to_its_sender(self) -> None:
        """The join of a remote user goes to the others alone."""
        draft = EventDraft(ROOM, "m.room.member", BOB, {"membership": "join"}, state_key=BOB)
        self.home.tell(self.home.store(draft))
        self._pass()
        self.assertEqual(self.receiver.transactions, [])

    def test_rejected_and_soft_failed_events_are_not_sent(self) -> None:
        """Only accepted events go out."""
        for status in (Status.REJECTED, Status.SOFT_FAILED, Status.OUTLIER):
            stored = self.home.store(EventDraft(ROOM, "m.room.message", ALICE, {"body": "x"}))
            self.home.tell(evolve(stored, status=status))
        self._pass()
        self.assertEqual(self.receiver.transactions, [])

    def test_odd_events_of_old_rooms_are_kept_out(self) -> None:
        """An event that strict peers cannot read is not sent, and the queue drains (security: F1)."""
        for number in ("1.5", "9007199254740992", "1e400"):
            raw = b'{"content":{"body":%b},"type":"m.room.message"}' % number.encode()
            pdu = self.home.store(EventDraft(ROOM, "m.room.message", ALICE, {"body": "x"})).event.pdu
            odd = event_of(pdu, raw, V5, EventID("$odd" + number))
            self.home.tell(evolve(self.home.store(EventDraft(ROOM, "x", ALICE, {})), event=odd))
        self.home.say("good")
        self._pass()
        self.assertEqual(self.receiver.texts, ["good"])
