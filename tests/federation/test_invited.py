"""Tests of invites from other servers to users of this one."""

from __future__ import annotations

from typing import Any

from attrs import evolve

from federation.resident.invited import Invitation
from federation.stripped import stripped_event, stripped_of
from protocol.errors import Forbidden, InvalidParam, MatrixError
from protocol.events import Event, EventDraft, Links, build_event, countersign
from protocol.identifiers import EventID, RoomID, ServerName, UserID
from protocol.room_versions import V11, V12, RoomVersion
from protocol.signing import SigningKey
from tests.federation.core import ALICE
from tests.federation.helpers import HERE, THERE, signing_key
from tests.federation.resident_helpers import BOB, EVE, EVE_SERVER, MEMBER, ResidentCase


class InvitationTests(ResidentCase):
    """Invites to our users."""

    ROOM = RoomID("!theirs:there.example")

    def _invite(
        self,
        *,
        sender: UserID = BOB,
        state_key: str = ALICE,
        membership: Any = "invite",
        event_type: str = MEMBER,
        version: RoomVersion = V11,
        room_id: RoomID | None = None,
        key: SigningKey | None = None,
        server: ServerName = THERE,
    ) -> Event:
        draft = EventDraft(room_id or self.ROOM, event_type, sender, {"membership": membership}, state_key)
        links = Links((EventID("$p"),), (EventID("$a"),), 5)
        return build_event(
            draft, version, links, now=self.world.now, server_name=server, key=key or self.there.key
        )

    def _take(self, event: Event, shown: list[Any] | None = None, /, **changes: Any) -> Event:
        invitation = Invitation(THERE, event.room_id, event.event_id, "11", event.pdu, shown or [])
        return self.world.network.outcome(
            self.invitations.take(evolve(invitation, **changes), self.world.now), 60
        )

    def test_our_signature_appears_in_exactly_one_case(self) -> None:
        """All memberships, senders, state keys: only the invite of ALICE by BOB is signed (security: F5)."""
        signed = []
        for membership in ("invite", "join", "leave", "ban", "knock", "", 5, None):
            for sender in (BOB, EVE, ALICE):
                for state_key in (ALICE, "@nobody:here.example", BOB, EVE, "", "alice", HERE):
                    for event_type in (MEMBER, "m.room.power_levels"):
                        event = self._invite(
                            membership=membership, sender=sender, state_key=state_key, event_type=event_type
                        )
                        try:
                            signed.append(self._take(event))
                        except MatrixError:
                            continue
        self.assertEqual(
            [(one.sender, one.state_key, one.membership) for one in signed], [(BOB, ALICE, "invite")]
        )
        self.assertEqual(set(signed[0].pdu["signatures"]), {HERE, THERE})
        self.assertEqual(len(self.placed.outside), 1)

    def test_path_and_event_must_agree(self) -> None:
        """Room and event ID of the path, and the room version (security: F3)."""
        event = self._invite()
        for changes in (
            {"room_id": RoomID("!other:there.example")},
            {"event_id": EventID("$other")},
            {"event": None},
            {"event": {**event.pdu, "content": {"membership": "invite", "displayname": "x"}}},
            {"room_version": "99"},
            {"room_version": "1"},
            {"origin": EVE_SERVER},
        ):
            with self.assertRaises(MatrixError):
                self._take(event, **changes)
        self.assertEqual(self.placed.outside, [])

    def test_forged_signatures(self) -> None:
        """Another key, another server's signature (security: F4)."""
        for event in (
            self._invite(key=signing_key(9)),
            self._invite(server=EVE_SERVER, key=self.eve.key),
            countersign(self._invite(server=EVE_SERVER, key=self.eve.key), EVE_SERVER, self.eve.key),
        ):
            with self.assertRaises(Forbidden):
                self._take(event)

    def test_nonsense_in_the_shown_state_is_left_out(self) -> None:
        """Whatever is shown, the invite stands, and only well-formed state is kept (security: F11)."""
        good = {"type": "m.room.name", "state_key": "", "sender": BOB, "content": {"name": "x"}, "extra": 1}
        nonsense = [
            5,
            None,
            [],
            "x",
            {},
            {**good, "type": 5},
            {**good, "state_key": None},
            {**good, "sender": "nonsense"},
            {**good, "sender": ["@x:y"]},
            {**good, "content": []},
            {**good, "content": "x"},
            {**good, "type": "x" * 300},
            {**good, "content": {"x": "y" * 70_000}},
            {"type": "m.room.name"},
        ]
        self._take(self._invite(), [*nonsense, good])
        kept = self.placed.outside[0][1]
        self.assertEqual(kept[0], {name: good[name] for name in ("type", "state_key", "sender", "content")})
        self.assertEqual([event["type"] for event in kept], ["m.room.name", MEMBER])
        self.assertEqual(len(stripped_of([good] * 1000)), 1)

    def test_in_version_12_the_room_proves_itself(self) -> None:
        """The create event must be there and make the room; all that is shown is of it (security: F19)."""
        draft = EventDraft(None, "m.room.create", BOB, {"room_version": "12"}, "")
        sign = {"now": self.world.now, "server_name": THERE, "key": self.there.key}
        create = build_event(draft, V12, Links((), (), 1), **sign)
        other = build_event(
            evolve(draft, content={"room_version": "12", "n": 1}), V12, Links((), (), 1), **sign
        )
        event = self._invite(version=V12, room_id=create.room_id)
        name = build_event(
            EventDraft(create.room_id, "m.room.name", BOB, {"name": "x"}, ""),
            V12,
            Links((create.event_id,), (), 2),
            **sign,
        )
        for shown in (
            [],
            [name.pdu],
            [other.pdu],
            [create.pdu, 5],
            [create.pdu, {**name.pdu, "signatures": {}}],
            [create.pdu, stripped_event(name)],
            [stripped_event(name)],
        ):
            with self.assertRaises(InvalidParam):
                self._take(event, shown, room_version="12")
        self._take(event, [create.pdu, name.pdu], room_version="12")
        self.assertEqual(len(self.placed.outside), 1)

    def test_in_version_12_servers_may_show_the_stripped_form(self) -> None:
        """As Dendrite does, and Synapse did: kept to be looked at, as in earlier versions."""
        draft = EventDraft(None, "m.room.create", BOB, {"room_version": "12"}, "")
        create = build_event(
            draft, V12, Links((), (), 1), now=self.world.now, server_name=THERE, key=self.there.key
        )
        event = self._invite(version=V12, room_id=create.room_id)
        self._take(event, [stripped_event(create), 5], room_version="12")
        kept = self.placed.outside[0][1]
        self.assertEqual([shown["type"] for shown in kept], ["m.room.create", MEMBER])

    def test_users_who_take_no_invites(self) -> None:
        """The invite is neither signed nor kept."""
        self.accounts.blocked = True
        with self.assertRaises(Forbidden):
            self._take(self._invite())
        self.assertEqual(self.placed.outside, [])

    def test_a_room_we_are_in(self) -> None:
        """Its ACL holds; the invite comes again through the room, so it is not kept (security: F9)."""
        room_id = self.core.room()
        self._take(self._invite(room_id=room_id))
        self.assertEqual(self.placed.outside, [])
        self.core.send(room_id, "m.room.server_acl", {"allow": ["*"], "deny": [THERE]}, "")
        with self.assertRaises(Forbidden):
            self._take(self._invite(room_id=room_id))
