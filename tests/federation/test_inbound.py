"""Tests of the transactions that other servers send us."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, gatherResults

from federation.inbound.transactions import Transaction
from federation.resident.access import ACL
from homeserver.events.commit_batch import commit_batch
from homeserver.events.stored import Status
from protocol.errors import BadJson
from protocol.events import EventDraft
from protocol.identifiers import RoomID
from protocol.room_versions import V12
from storage import memberships, staging
from storage.memberships import Membership
from tests.federation.inbound_helpers import DAVE, STRANGER, InboundCase, start
from tests.homeserver.events.helpers import ALICE, BOB, NOW, membership, message
from tests.homeserver.events.received_helpers import (
    CAROL,
    OTHER,
    entries_of,
    remote_room,
    stored_of,
    tip,
)
from tests.storage.helpers import PostgresCase, SqliteCase


class InboundTests(InboundCase):
    """What must hold on every engine."""

    async def test_a_transaction_is_placed_and_answered_once(self) -> None:
        """The same transaction again, also at the same time, has the same answer and no further effect."""
        here, room, remote = await self.begin()
        said = self.said(remote, room, "hello", await tip(here.worker, room.nid))
        content = {"edu_type": "m.test", "content": {"n": 1}}
        both = await gatherResults(
            [Deferred.fromCoroutine(here.send([said.pdu], [content], "same")) for _ in range(2)]
        )
        both.append(await here.send([said.pdu], [content], "same"))
        self.assertEqual(both, [{"pdus": {said.event_id: {}}}] * 3)
        self.assertEqual(here.edus, [{"n": 1}])
        self.assertEqual(await tip(here.worker, room.nid), [said])

    async def test_an_ordinary_transaction_is_one_commit(self) -> None:
        """Events that are news, of one warm room, are placed and answered by one write without a read."""
        here, room, remote = await self.begin()
        await here.send([self.said(remote, room, "warm", await tip(here.worker, room.nid)).pdu])
        said = self.said(remote, room, "hot", await tip(here.worker, room.nid))
        here.database.works.clear()
        self.assertEqual(await here.send([said.pdu], (), "hot"), {"pdus": {said.event_id: {}}})
        self.assertEqual(here.database.works, [commit_batch])
        self.assertEqual(
            await self.database.read(staging.answer, OTHER, "hot"),
            b'{"pdus":{"%b":{}}}' % said.event_id.encode(),
        )

    async def test_a_repetition_after_a_restart_has_the_same_answer(self) -> None:
        """Another process knows that a transaction was answered, and how, whatever stands in it now."""
        here, room, remote = await self.begin()
        parents = await tip(here.worker, room.nid)
        said, late = self.said(remote, room, "one", parents), self.said(remote, room, "two", parents)
        refused = remote.build(message(room.room_id, "no", DAVE), parents)
        first = await here.send([said.pdu, refused.pdu], (), "same")
        self.assertEqual(first["pdus"][said.event_id], {})
        self.assertIn("error", first["pdus"][refused.event_id])
        again = await start(self.database)
        for pdus in ([said.pdu, refused.pdu], [refused.pdu], [late.pdu]):
            self.assertEqual(await again.send(pdus, (), "same"), first)
        self.assertEqual(await tip(again.worker, room.nid), [said])

    async def test_what_is_known_is_not_placed_again(self) -> None:
        """An event in another transaction, to a process that has just begun, is answered and not doubled."""
        here, room, remote = await self.begin()
        said = self.said(remote, room, "one", await tip(here.worker, room.nid))
        await here.send([said.pdu])
        again = await start(self.database)
        before = len(await entries_of(again.worker, room.nid))
        after = self.said(remote, room, "two", [said])
        answer = await again.send([said.pdu, after.pdu], (), "another")
        self.assertEqual(answer, {"pdus": {said.event_id: {}, after.event_id: {}}})
        self.assertEqual(await tip(again.worker, room.nid), [after])
        self.assertEqual(len(await entries_of(again.worker, room.nid)), before + 1)

    async def test_a_redaction_waits_for_its_target(self) -> None:
        """The target of a redaction that came first is redacted as it comes."""
        here, room, remote = await self.begin()
        parents = await tip(here.worker, room.nid)
        said = self.said(remote, room, "regretted", parents)
        redaction = remote.build(
            EventDraft(room.room_id, "m.room.redaction", CAROL, {}, redacts=said.event_id), parents
        )
        await here.send([redaction.pdu])
        await here.send([said.pdu])
        redactor = await stored_of(here.worker, room.nid, redaction)
        self.assertEqual((await stored_of(here.worker, room.nid, said)).redacted_by, redactor.nid)

    async def test_any_broken_pdu_costs_itself_alone(self) -> None:
        """A broken PDU is dropped or answered with an error, the rest is placed (security: F2)."""
        here, room, remote = await self.begin()
        parents = await tip(here.worker, room.nid)
        good = [self.said(remote, room, str(n), parents) for n in range(30)]
        broken: list[Any] = [None, 7, "pdu", [], {}, {"room_id": room.room_id}, {"room_id": 3}]
        for name, value in (
            ("type", 5),
            ("sender", "nobody"),
            ("content", []),
            ("depth", "deep"),
            ("depth", -1),
            ("prev_events", {}),
            ("auth_events", [1]),
            ("hashes", None),
            ("signatures", {}),
            ("signatures", {OTHER: {"ed25519:2": "AAAA"}}),
            ("origin_server_ts", 1.5),
            ("room_id", "!nowhere:else.test"),
        ):
            broken.append({**good[0].pdu, name: value})
        pdus: list[Any] = [event.pdu for event in good]
        for index, pdu in enumerate(broken):
            pdus.insert(index * 2, pdu)
        answer = await here.send(pdus)
        for event in good:
            self.assertEqual(answer["pdus"][event.event_id], {})
            self.assertEqual((await stored_of(here.worker, room.nid, event)).status, Status.ACCEPTED)

    async def test_too_much_in_a_transaction_is_refused(self) -> None:
        """More than 50 PDUs or 100 EDUs, or no lists at all, are an error of the whole."""
        here, _, _ = await self.begin()
        bodies: tuple[dict[str, Any], ...] = (
            {"pdus": [{}] * 51},
            {"edus": [{}] * 101},
            {"pdus": {}},
            {"edus": 3},
        )
        for body in bodies:
            with_error = False
            try:
                Transaction.of(OTHER, "t", body)
            except BadJson:
                with_error = True
            self.assertTrue(with_error)
        self.assertEqual(await here.send([]), {"pdus": {}})

    async def test_edus_harm_no_neighbours(self) -> None:
        """A failing handler, an unknown type and nonsense are passed over (security: F2)."""
        here, _, _ = await self.begin()
        edus = [
            {"edu_type": "m.test", "content": {"fail": True}},
            {"edu_type": "m.other", "content": {}},
            7,
            {"edu_type": ["m.test"]},
            {"edu_type": "m.test", "content": {"good": True}},
        ]
        self.assertEqual(await here.send([], edus), {"pdus": {}})
        self.assertEqual(here.edus, [{"good": True}])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    async def test_edus_alone_need_no_record(self) -> None:
        """A transaction without PDUs neither reads nor writes: its answer is always the same."""
        here, _, _ = await self.begin()
        here.database.works.clear()
        self.assertEqual(
            await here.send([], [{"edu_type": "m.test", "content": {"n": 1}}], "same"), {"pdus": {}}
        )
        self.assertEqual((here.edus, here.database.works), ([{"n": 1}], []))

    async def test_a_denied_server_and_a_stranger_place_nothing(self) -> None:
        """PDUs of a denied server get an error each; those of rooms we are not in are dropped."""
        here, room, remote = await self.begin()
        acl = EventDraft(room.room_id, "m.room.server_acl", ALICE, {"allow": ["*"], "deny": [OTHER]}, "")
        await here.worker.events.send(acl, now=NOW)
        denied = self.said(remote, room, "denied", await tip(here.worker, room.nid))
        answer = await here.send([denied.pdu])
        self.assertIn("error", answer["pdus"][denied.event_id])
        elsewhere = remote.build(message(RoomID("!elsewhere:other.test"), "x", CAROL), [denied])
        self.assertEqual(await here.send([elsewhere.pdu]), {"pdus": {}})

    async def test_a_denied_server_has_no_friend_to_speak_for_it(self) -> None:
        """Its events are refused whoever hands them in (security: F9)."""
        here, room, remote = await self.begin()
        said = self.said(remote, room, "by a friend", await tip(here.worker, room.nid))
        self.assertEqual(await here.send([said.pdu], origin=STRANGER), {"pdus": {said.event_id: {}}})
        acl = {"allow": ["*"], "deny": [OTHER]}
        await here.worker.events.send(EventDraft(room.room_id, "m.room.server_acl", ALICE, acl, ""), now=NOW)
        again = self.said(remote, room, "by a friend again", await tip(here.worker, room.nid))
        own = await here.worker.events.send(message(room.room_id, "ours"), now=NOW)
        answer = await here.send([again.pdu, own.event.pdu], origin=STRANGER)
        self.assertIn("denied", answer["pdus"][again.event_id]["error"])
        self.assertEqual(await here.worker.stored.by_id(room.nid, (again.event_id,)), {})

    async def test_a_redacted_acl_is_in_force(self) -> None:
        """A moderator elsewhere who redacts the ACL shuts nobody out: it denies whom it denied."""
        here, room, remote = await self.begin()
        levels = {"users": {ALICE: 100, CAROL: 50}, "events_default": 0}
        acl = {"allow": ["*"], "deny": [STRANGER]}
        for draft in (
            EventDraft(room.room_id, "m.room.power_levels", ALICE, levels, ""),
            EventDraft(room.room_id, "m.room.server_acl", ALICE, acl, ""),
        ):
            last = await here.worker.events.send(draft, now=NOW)
            remote.state[last.event.key] = last.event
        redacts = EventDraft(room.room_id, "m.room.redaction", CAROL, {}, redacts=last.event.event_id)
        redaction = remote.build(redacts, [last.event])
        self.assertEqual(await here.send([redaction.pdu]), {"pdus": {redaction.event_id: {}}})
        head = await here.worker.heads.get(room.nid)
        self.assertEqual(dict((await head.shown([ACL]))[ACL].content), {})
        allowed = [await here.transactions.access.allows(each, head) for each in (OTHER, STRANGER)]
        self.assertEqual(allowed, [True, False])

    async def test_an_invite_is_withdrawn_by_its_server(self) -> None:
        """A leave of an invited user comes by transaction, though we are not in the room."""
        here, _, _ = await self.begin()
        remote, timeline = remote_room(V12)
        room_id = timeline[0].room_id
        invite = remote.put(membership(room_id, BOB, "invite", CAROL), timeline[-1:])
        await here.incoming.record_outside(V12, invite, [], now=NOW)
        kick = remote.build(membership(room_id, BOB, "leave", CAROL), [invite])
        self.assertEqual(await here.send([kick.pdu]), {"pdus": {kick.event_id: {}}})
        room_nid = await here.worker.nids.room(room_id)
        assert room_nid is not None
        row = await self.database.read(memberships.membership_of, room_nid, await here.worker.nids.user(BOB))
        assert row is not None
        self.assertEqual(row.membership, Membership.LEAVE)


class SqliteInbound(InboundTests, SqliteCase):
    """On SQLite."""


class PostgresInbound(InboundTests, PostgresCase):
    """On PostgreSQL."""
