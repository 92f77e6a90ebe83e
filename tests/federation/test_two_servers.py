"""Two whole servers in one process: handshakes over the wire, from route to database on both sides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from federation.own_keys import LIFE
from federation.requests import ServerRequest
from protocol.canonical_json import decode, dumps
from protocol.errors import Forbidden, MatrixError
from protocol.events import EventDraft
from protocol.identifiers import UserID
from protocol.room_versions import ROOM_VERSIONS, V7, V10, V11
from tests.federation.helpers import HERE, THERE
from tests.federation.plait import Plait

BOB = UserID("@bob:there.example")
MEMBER = "m.room.member"


class TwoServersTests(SynchronousTestCase):
    """Alice's server has the rooms, Bob's comes in."""

    def setUp(self) -> None:
        """Start both."""
        self.here = Plait(Path(self.mktemp()))
        self.there = Plait(Path(self.mktemp()), THERE, beside=self.here)
        self.alice = self.here.core.admin

    def _get(self, work: Any, seconds: float = 120) -> Any:
        return self.here.world.network.outcome(work, seconds)

    def test_a_room_of_each_version_is_joined(self) -> None:
        """Both servers have the same state afterwards."""
        for version in ROOM_VERSIONS.values():
            room_id = self.here.core.room(version, name=f"v{version.id}")
            self.there.join(BOB, room_id, HERE)
            ours, theirs = self.here.state(room_id), self.there.state(room_id)
            self.assertEqual(ours, theirs, version.id)
            self.assertEqual(ours[MEMBER, BOB].membership, "join")
            self.assertEqual({k: e.raw for k, e in ours.items()}, {k: e.raw for k, e in theirs.items()})

    def test_a_private_room_is_joined_by_invite(self) -> None:
        """The invite is signed by both, kept there, and opens the room."""
        room_id = self.here.core.room(rules={"join_rule": "invite"})
        with self.assertRaises(Forbidden):
            self.there.join(BOB, room_id, HERE)
        self._invite(room_id)
        (row,) = self.there.world.database.rows("SELECT COUNT(*) FROM stripped_states")
        self.assertEqual(row[0], 1)
        self.there.join(BOB, room_id, HERE)
        self.assertEqual(self.here.state(room_id), self.there.state(room_id))

    def _invite(self, room_id: Any) -> None:
        core = self.here.core

        async def invite() -> None:
            room_nid = await core.nids.room(room_id)
            assert room_nid is not None
            draft = EventDraft(room_id, MEMBER, self.alice, {"membership": "invite"}, BOB)
            event = await core.unplaced.build(room_nid, draft, self.here.world.now)
            state = list(self.shown)
            signed = await self.here.remote.invite(event, state)
            await self.here.receiving.received.place_own(room_nid, signed, now=self.here.world.now)

        self.shown = self.here.core.state_of(room_id)
        self._get(invite())

    def test_an_invite_is_rejected(self) -> None:
        """The leave reaches the room."""
        room_id = self.here.core.room(rules={"join_rule": "invite"})
        self._invite(room_id)
        self._get(self.there.remote.leave(BOB, room_id, [HERE], {"membership": "leave"}))
        self.assertEqual(self.here.state(room_id)[MEMBER, BOB].membership, "leave")

    def test_a_knock(self) -> None:
        """It is in the room, and what the room shows is kept there."""
        room_id = self.here.core.room(V7, {"join_rule": "knock"})
        self._get(self.there.remote.knock(BOB, room_id, [HERE], {"membership": "knock", "reason": "hi"}))
        self.assertEqual(self.here.state(room_id)[MEMBER, BOB].content["reason"], "hi")

    def test_a_restricted_join(self) -> None:
        """Membership of one room opens another; the join bears both signatures on both servers."""
        first = self.here.core.room(V11, name="first")
        self.there.join(BOB, first, HERE)
        allow = [{"type": "m.room_membership", "room_id": first}]
        second = self.here.core.room(V10, {"join_rule": "restricted", "allow": allow}, name="second")
        self.there.join(BOB, second, HERE)
        for server in (self.here, self.there):
            join = server.state(second)[MEMBER, BOB]
            self.assertEqual(set(join.pdu["signatures"]), {HERE, THERE})
            self.assertEqual(join.content["join_authorised_via_users_server"], self.alice)

    def test_a_denied_server_is_refused_at_the_door(self) -> None:
        """By the ACL of the room (security: F9)."""
        room_id = self.here.core.room()
        self.here.core.send(room_id, "m.room.server_acl", {"allow": ["*"], "deny": [THERE]}, "")
        with self.assertRaises(Forbidden):
            self.there.join(BOB, room_id, HERE)

    def test_keys_and_version_are_told_to_anybody(self) -> None:
        """Without a signature; whatever else is asked needs one."""
        requests = self.there.world.requests
        for uri in (
            "/_matrix/federation/v1/version",
            "/_matrix/key/v2/server",
            "/_matrix/key/v2/server/ed25519%3A1",
            "/_matrix/key/v2/query/here.example",
            "/_matrix/key/v2/query/there.example?minimum_valid_until_ts=5",
        ):
            self.assertTrue(self._get(requests.unsigned(ServerRequest(HERE, "GET", uri))))
        with self.assertRaises(MatrixError):
            uri = "/_matrix/federation/v1/make_join/!r:here.example/@bob:there.example"
            self._get(requests.unsigned(ServerRequest(HERE, "GET", uri)))

    def test_the_notary_gives_documents_with_both_signatures(self) -> None:
        """What was signed comes unaltered, with our signature; invented names cost little (security: K6)."""
        requests = self.there.world.requests
        names = {f"s{number}.example": {} for number in range(900)}
        body = dumps({"server_keys": {THERE: {}, HERE: {}, "bad name": {}, **names}})
        request = ServerRequest(HERE, "POST", "/_matrix/key/v2/query", body, seconds=100)
        asked = len(self.here.world.resolver.asked)
        answer = self._get(requests.unsigned(request), 200)
        documents = {document["server_name"]: document for document in answer["server_keys"]}
        self.assertEqual(set(documents), {HERE, THERE})
        self.assertEqual(set(documents[THERE]["signatures"]), {HERE, THERE})
        own = decode(self.there.world.own.document(self.there.world.now))
        assert isinstance(own, dict)
        self.assertEqual(documents[THERE]["verify_keys"], own["verify_keys"])
        hosts = {name for name in self.here.world.resolver.asked[asked:] if name.startswith("s")}
        self.assertLessEqual(len(hosts), 50)

    def test_the_notary_asks_again_for_keys_that_end_too_soon(self) -> None:
        """Of a server asked for by its name alone, too: by `minimum_valid_until_ts`."""
        requests, now = self.there.world.requests, self.here.world.now
        uri = f"/_matrix/key/v2/query/{THERE}"

        def valid_until(query: str) -> int:
            answer = self._get(requests.unsigned(ServerRequest(HERE, "GET", uri + query)))
            return int(answer["server_keys"][0]["valid_until_ts"])

        first = valid_until("")
        self.here.world.network.advance(LIFE * 3 / 4 / 1000)
        self.assertEqual(valid_until(""), first)
        self.assertGreater(valid_until(f"?minimum_valid_until_ts={now + LIFE + 1}"), first)
