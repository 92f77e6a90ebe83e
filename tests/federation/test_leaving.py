"""Tests of leaving rooms, and knocking on them, through other servers."""

from __future__ import annotations

from federation.failures import BadAnswer
from tests.federation.core import ALICE
from tests.federation.helpers import THERE
from tests.federation.joining_helpers import BOB, V1_PATH, V2_PATH, RemoteCase, Their


class LeaveAndKnockTests(RemoteCase):
    """Leaving and knocking."""

    def setUp(self) -> None:
        """Make a room."""
        super().setUp()
        self.room = Their(self.world, self.there)

    def _say(self, membership: str, template: object = None) -> None:
        made = {
            "room_version": "11",
            "event": self.room.template(membership) if template is None else template,
        }
        self.there.say("GET", f"{V1_PATH}/make_{membership}/", made)
        self.there.say("PUT", f"{V2_PATH}/send_leave/", {})

    def _act(self, membership: str) -> None:
        assert self.room.room_id is not None
        action = self.remote.leave if membership == "leave" else self.remote.knock
        content = {"membership": membership, "reason": "x"}
        self.world.network.outcome(action(ALICE, self.room.room_id, [THERE], content), 120)

    def test_a_leave_is_handed_in_and_kept(self) -> None:
        """With the reason of the user."""
        self._say("leave")
        self._act("leave")
        (sent,) = self.room.sent("send_leave")
        self.assertEqual(sent["content"], {"membership": "leave", "reason": "x"})
        ((room_id, user_id, event),) = self.placed.left
        self.assertEqual((room_id, user_id), (self.room.room_id, ALICE))
        self.assertIsNotNone(event)

    def test_a_leave_counts_although_nobody_hears(self) -> None:
        """A dead or lying server does not keep a user in a room; nothing false is signed (security: F6)."""
        for template in (None, self.room.template("join"), self.room.template("leave", type="m.room.create")):
            self.placed.left.clear()
            self.there.answers.clear()
            if template is not None:
                self._say("leave", template)
            self._act("leave")
            self.assertEqual([event for _, _, event in self.placed.left], [None])
        self.assertEqual(self.room.sent("send_leave"), [])

    def test_a_knock_keeps_what_the_room_shows(self) -> None:
        """Nonsense among it is left out (security: F11)."""
        self._say("knock")
        shown = [
            5,
            {"type": "m.room.name", "state_key": "", "sender": BOB, "content": {"name": "n"}},
            {"a": 1},
        ]
        self.there.say("PUT", f"{V1_PATH}/send_knock/", {"knock_room_state": shown})
        self._act("knock")
        ((event, stripped),) = self.placed.outside
        self.assertEqual((event.membership, stripped), ("knock", [shown[1]]))
        for answer in ({}, {"knock_room_state": 5}):
            self.there.say("PUT", f"{V1_PATH}/send_knock/", answer)
            self._act("knock")
            self.assertEqual(self.placed.outside[-1][1], [])

    def test_a_template_of_a_knock_for_anything_else_is_not_signed(self) -> None:
        """As for joins (security: F6)."""
        for template in (self.room.template("join"), self.room.template("knock", sender=BOB)):
            self._say("knock", template)
            with self.assertRaises(BadAnswer):
                self._act("knock")
        self.assertEqual(self.room.sent("send_knock"), [])
