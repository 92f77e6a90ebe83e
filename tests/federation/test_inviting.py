"""Tests of inviting users of other servers."""

from __future__ import annotations

from typing import Any

from federation.failures import BadAnswer
from protocol.canonical_json import decode, encode
from protocol.errors import Forbidden, InviteBlocked, MatrixError, UnsupportedRoomVersion
from protocol.events import Event, EventDraft, Links, build_event, countersign
from protocol.identifiers import EventID, RoomID
from protocol.room_versions import V1, V11, RoomVersion
from tests.federation.core import ALICE
from tests.federation.helpers import HERE, THERE
from tests.federation.joining_helpers import BOB, V1_PATH, V2_PATH, RemoteCase
from tests.federation.network import Answer


class InviteTests(RemoteCase):
    """Inviting users of other servers."""

    def _invite(self, version: RoomVersion = V11) -> Event:
        draft = EventDraft(
            RoomID("!mine:here.example"), "m.room.member", ALICE, {"membership": "invite"}, BOB
        )
        links = Links((EventID("$p"),), (), 5)
        return build_event(
            draft, version, links, now=self.world.now, server_name=HERE, key=self.world.own.keys[0]
        )

    def _send(self, invite: Event) -> Event:
        return self.world.network.outcome(self.remote.invite(invite, [invite]))

    def test_the_invite_comes_back_signed_by_both(self) -> None:
        """And is the event that counts."""
        invite = self._invite()
        signed = countersign(invite, THERE, self.there.key)
        self.there.say("PUT", f"{V2_PATH}/invite/", {"event": signed.pdu})
        self.assertEqual(self._send(invite).raw, signed.raw)
        body: Any = decode(self.there.asked[-1].body)
        self.assertEqual(body, {"event": invite.pdu, "room_version": "11", "invite_room_state": [invite.pdu]})

    def test_another_event_is_refused(self) -> None:
        """What comes back must be what was sent (security: F6)."""
        invite = self._invite()
        for answer in ({}, {"event": 5}, {"event": {**invite.pdu, "content": {"membership": "join"}}}):
            self.there.say("PUT", f"{V2_PATH}/invite/", answer)
            with self.assertRaises(BadAnswer):
                self._send(invite)

    def test_old_servers_are_asked_the_old_way(self) -> None:
        """For room versions 1 and 2 alone."""
        old = self._invite(V1)
        signed = countersign(old, THERE, self.there.key)
        self.there.answers["PUT", f"{V1_PATH}/invite/"] = lambda _: Answer(
            200, b'[200,{"event":%b}]' % signed.raw
        )
        self.assertEqual(self._send(old).raw, signed.raw)
        body = self.there.asked[-1].body
        self.assertEqual(body, encode(decode(body)))
        self.assertEqual(decode(body), {**old.pdu, "unsigned": {"invite_room_state": [old.pdu]}})
        with self.assertRaises(MatrixError):
            self._send(self._invite())

    def test_refusals_are_told(self) -> None:
        """403 as such, anything else as 502 (security: C10)."""
        self.there.say("PUT", f"{V2_PATH}/invite/", {"errcode": "M_FORBIDDEN", "error": "no"}, 403)
        with self.assertRaises(Forbidden):
            self._send(self._invite())
        self.there.say("PUT", f"{V2_PATH}/invite/", {"errcode": "M_INVITE_BLOCKED"}, 403)
        with self.assertRaises(InviteBlocked):
            self._send(self._invite())

    def test_a_server_that_knows_the_version_not(self) -> None:
        """Its refusal has another name between servers than to clients."""
        answer = {"errcode": "M_INCOMPATIBLE_ROOM_VERSION", "room_version": "11"}
        self.there.say("PUT", f"{V2_PATH}/invite/", answer, 400)
        with self.assertRaises(UnsupportedRoomVersion):
            self._send(self._invite())
