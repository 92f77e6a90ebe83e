"""Tests of third-party invites between two servers: from the notice of an identity server to the invite."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from federation.failures import Refused
from federation.outbound.audience import Audiences
from federation.outbound.room_servers import ServersAtState
from federation.requests import ServerRequest
from protocol.canonical_json import JsonObject, encode
from protocol.events import Event
from protocol.identifiers import RoomID, ServerName, UserID
from protocol.room_versions import V1, V6, V11, V12
from protocol.signing import encode_base64, sign_json
from tests.federation.core import ALICE
from tests.federation.helpers import HERE, THERE, signing_key
from tests.federation.plait import Plait

BOB = UserID("@bob:there.example")
EVE = UserID("@eve:eve.example")
IDENTITY = ServerName("id.example")
TOKEN = "token.of-the_invite="
KEY = signing_key(42, "ed25519:0")
VALIDITY = "https://id.example:8448/_matrix/identity/v2/pubkey/isvalid"
V1_PATH = "/_matrix/federation/v1"


class ThirdPartyCase(SynchronousTestCase):
    """Alice has invited an address of which an identity server says that it is Bob's."""

    def setUp(self) -> None:
        """Start both servers and the identity server."""
        self.here = Plait(Path(self.mktemp()))
        self.there = Plait(Path(self.mktemp()), THERE, beside=self.here)
        self.identity = self.here.world.server(IDENTITY, 7)
        self.identity.say("GET", "/_matrix/identity/v2/pubkey/isvalid", {"valid": True})
        self.room_id = self._room()

    def _room(self, version: Any = V11, name: str = "room") -> RoomID:
        room_id = self.here.core.room(version, rules={"join_rule": "invite"}, name=name)
        keys = [{"public_key": encode_base64(bytes(KEY.verify_key)), "key_validity_url": VALIDITY}]
        issued = {"display_name": "b...@e...", "public_keys": keys, **keys[0]}
        self.here.core.send(room_id, "m.room.third_party_invite", issued, TOKEN)
        return room_id

    def _signed(self, **changes: Any) -> JsonObject:
        return sign_json({"mxid": BOB, "token": TOKEN, **changes}, IDENTITY, KEY)

    def _put(self, to: ServerName, path: str, body: Mapping[str, Any], by: Plait | None = None) -> None:
        """Send a request: of a server, or without signature."""
        request = ServerRequest(to, "PUT", f"{V1_PATH}/{path}", encode(body))
        requests = (by or self.here).world.requests
        sending = requests.unsigned(request) if by is None else requests.signed(request)
        self.here.world.network.outcome(sending, 60)

    def _invite_of(self, room_id: RoomID) -> Event | None:
        return self.here.state(room_id).get(("m.room.member", BOB))

    def _notice(self, room_id: RoomID, /, **changes: Any) -> JsonObject:
        invite = {
            "medium": "email",
            "address": "bob@example.org",
            "mxid": BOB,
            "room_id": room_id,
            "sender": ALICE,
            "signed": self._signed(),
            **changes,
        }
        return {"medium": "email", "address": "bob@example.org", "mxid": BOB, "invites": [5, invite]}


class BindingTests(ThirdPartyCase):
    """`3pid/onbind`."""

    def test_a_binding_becomes_an_invite_of_another_servers_room(self) -> None:
        """Bob's server asks Alice's, which invites him; with that he joins, in every format of events."""
        for version in (V1, V6, V11, V12):
            room_id = self._room(version, f"v{version.id}")
            self._put(THERE, "3pid/onbind", self._notice(room_id))
            invite = self._invite_of(room_id)
            assert invite is not None
            self.assertEqual((invite.membership, invite.sender), ("invite", ALICE))
            told = {"display_name": "b...@e...", "signed": self._signed()}
            self.assertEqual(invite.content["third_party_invite"], told)
            self.assertEqual(set(invite.pdu["signatures"]), {HERE, THERE})
            self.there.join(BOB, room_id, HERE)
            self.assertEqual(self.here.state(room_id), self.there.state(room_id))

    def test_a_server_in_the_room_invites_its_user_itself(self) -> None:
        """Nobody else is asked; the event is the sender's, by this server, and all accept it."""
        carol = UserID("@carol:there.example")
        self.here.core.send(self.room_id, "m.room.join_rules", {"join_rule": "public"}, "")
        self.there.join(carol, self.room_id, HERE)
        self._put(THERE, "3pid/onbind", self._notice(self.room_id))
        invite = self.there.state(self.room_id)["m.room.member", BOB]
        self.assertEqual((invite.membership, invite.sender), ("invite", ALICE))
        core = self.there.core
        servers = ServersAtState(core.heads, core.state, core.stored)

        async def audience() -> object:
            room_nid = await core.nids.room(self.room_id)
            assert room_nid is not None
            stored = (await core.stored.by_id(room_nid, [invite.event_id]))[invite.event_id]
            return (await Audiences(THERE, servers).of(stored)).members

        self.assertEqual(self.here.world.network.outcome(audience()), {HERE})
        checked = self.here.world.network.outcome(self.here.checker.check(invite.pdu, V11))
        self.assertEqual(checked, invite)
        received = self.here.receiving.received.place(self._room_nid(), (invite,))
        (outcome,) = self.here.world.network.outcome(received)
        self.assertEqual(outcome.reason, "")
        self.assertEqual(self._invite_of(self.room_id), invite)

    def _room_nid(self) -> int:
        room_nid = self.here.world.network.outcome(self.here.core.nids.room(self.room_id))
        assert room_nid is not None
        return room_nid

    def test_notices_that_make_no_sense(self) -> None:
        """They are refused, or passed over one by one, and nobody is invited (security: S15)."""
        good = self._notice(self.room_id)
        bad = (
            {},
            {**good, "invites": {}},
            {**good, "mxid": 5},
            {**good, "mxid": EVE},
            {**good, "mxid": ALICE},
        )
        for body in bad:
            with self.assertRaises(Refused):
                self._put(THERE, "3pid/onbind", body)
        for changes in (
            {"mxid": EVE},
            {"room_id": 5},
            {"sender": "alice"},
            {"sender": BOB},
            {"signed": {}},
            {"signed": {**self._signed(), "mxid": EVE}},
            {"signed": {**self._signed(), "token": "other"}},
            {"signed": {"mxid": BOB, "token": TOKEN, "signatures": {}}},
        ):
            self._put(THERE, "3pid/onbind", self._notice(self.room_id, **changes))
            self.assertIsNone(self._invite_of(self.room_id), changes)


class ExchangeTests(ThirdPartyCase):
    """`exchange_third_party_invite`."""

    def _body(self, **changes: Any) -> JsonObject:
        content = {
            "membership": "invite",
            "third_party_invite": {"display_name": "bob", "signed": self._signed()},
        }
        body = {"type": "m.room.member", "room_id": self.room_id, "sender": ALICE, "state_key": BOB}
        return {**body, "content": content, **changes}

    def _refused(self, body: JsonObject, by: Plait | None = None, room_id: str | None = None) -> int:
        with self.assertRaises(Refused) as caught:
            path = f"exchange_third_party_invite/{room_id or self.room_id}"
            self._put(HERE, path, body, by or self.there)
        self.assertIsNone(self._invite_of(self.room_id))
        return caught.exception.http_status

    def test_what_disagrees_with_the_path_or_the_purpose_is_refused(self) -> None:
        """Room, type, membership, target and proof must be those of this invite (security: F3)."""
        other = self.here.core.room(name="other")
        content: Any = self._body()["content"]
        for changes in (
            {"room_id": other},
            {"room_id": None},
            {"type": "m.room.power_levels"},
            {"content": {**content, "membership": "join"}},
            {"content": {**content, "third_party_invite": 5}},
            {"content": {**content, "third_party_invite": {"signed": self._signed(mxid=EVE)}}},
            {"content": {**content, "third_party_invite": {"signed": self._signed(token=5)}}},
            {"sender": 5},
            {"state_key": None},
        ):
            self.assertEqual(self._refused(self._body(**changes)), 400, changes)

    def test_only_ones_own_users_by_ones_own_server(self) -> None:
        """Neither another server's user, nor in the name of one who is not here (security: F4)."""
        eve = {"state_key": EVE, "content": {"membership": "invite", "third_party_invite": {}}}
        proof = {"signed": self._signed(mxid=EVE)}
        eve["content"] = {"membership": "invite", "third_party_invite": proof}
        self.assertEqual(self._refused(self._body(**eve)), 403)
        self.assertEqual(self._refused(self._body(sender=BOB)), 403)
        self.assertEqual(self._refused(self._body(), room_id="!nowhere:here.example"), 404)

    def test_each_condition_of_the_proof(self) -> None:
        """Token, key and the word of the identity server must hold (security: S15)."""
        forged = sign_json({"mxid": BOB, "token": TOKEN}, IDENTITY, signing_key(9, "ed25519:0"))
        for signed in (forged, self._signed(token="other"), {**self._signed(), "extra": 1}):
            content = {"membership": "invite", "third_party_invite": {"signed": signed}}
            self.assertEqual(self._refused(self._body(content=content)), 403, signed)
        self.identity.say("GET", "/_matrix/identity/v2/pubkey/isvalid", {"valid": False})
        self.assertEqual(self._refused(self._body()), 403)
        del self.identity.answers["GET", "/_matrix/identity/v2/pubkey/isvalid"]
        self.assertEqual(self._refused(self._body()), 403)

    def test_the_key_in_the_state_is_what_is_asked_about(self) -> None:
        """At the address that the room names, and nowhere else (security: S15)."""
        self._put(HERE, f"exchange_third_party_invite/{self.room_id}", self._body(), self.there)
        self.assertIsNotNone(self._invite_of(self.room_id))
        public = encode_base64(bytes(KEY.verify_key)).replace("+", "%2B").replace("/", "%2F")
        asked = [one.uri for one in self.identity.asked]
        self.assertEqual(asked, [f"/_matrix/identity/v2/pubkey/isvalid?public_key={public}"])

    def test_who_is_banned_stays_out(self) -> None:
        """The rules have the last word."""
        ban = {"membership": "ban"}
        self.here.core.send(self.room_id, "m.room.member", ban, BOB)
        path = f"exchange_third_party_invite/{self.room_id}"
        with self.assertRaises(Refused) as caught:
            self._put(HERE, path, self._body(), self.there)
        self.assertEqual(caught.exception.http_status, 403)
