"""Tests of receiving: a remote server's events come into a local room, in order, as forks, forged or late."""

from __future__ import annotations

from attrs import evolve

from homeserver.events.stored import Status
from protocol.canonical_json import JsonObject
from protocol.checks import parse_pdu
from protocol.errors import Forbidden
from protocol.events import Event, EventDraft
from protocol.hashes import content_hash, essential_bytes
from protocol.identifiers import EventID, UserID
from protocol.limits import MAX_DEPTH
from protocol.room_versions import ROOM_VERSIONS, V1
from protocol.signing import add_signature, encode_base64
from storage.feed import Flag, Kind
from storage.migrate import migrate
from tests.homeserver.events.helpers import ALICE, BOB, NOW, membership, message, start_worker
from tests.homeserver.events.received_helpers import (
    CAROL,
    DAVE,
    OTHER,
    OTHER_KEY,
    ReceivingCase,
    entries_of,
    incoming_of,
    receive,
    remote_in,
    stored_of,
    tip,
)
from tests.storage.helpers import PostgresCase, SqliteCase


def _renamed(event: Event, event_id: EventID, redacts: EventID) -> Event:
    """Give a redaction of room version 1 another ID and another target, signed anew."""
    pdu: JsonObject = {**event.pdu, "event_id": event_id, "redacts": redacts}
    del pdu["signatures"]
    pdu["hashes"] = {"sha256": encode_base64(content_hash(pdu, V1))}
    signature = OTHER_KEY.sign(essential_bytes(pdu, V1))
    return parse_pdu(add_signature(pdu, OTHER, OTHER_KEY.key_id, signature), V1).event


class ReceivingTests(ReceivingCase):
    """What must hold on every engine."""

    async def test_a_remote_user_joins_and_speaks_in_every_version(self) -> None:
        """A received join and message move head, members, servers and feed like local ones."""
        await migrate(self.database)
        worker = await start_worker(self.database)
        incoming = incoming_of(worker)
        for version in ROOM_VERSIONS.values():
            room = (await worker.room(version)).room
            remote = await remote_in(worker, room.nid, version)
            join = remote.put(membership(room.room_id, CAROL, "join"), await tip(worker, room.nid))
            said = remote.build(message(room.room_id, "hello", CAROL), [join])
            for event in (join, said):
                outcome = await receive(incoming, room.nid, event)
                self.assertEqual((outcome.status, outcome.reason), (Status.ACCEPTED, ""))
            head = await worker.heads.get(room.nid)
            self.assertEqual(dict(head.servers), {"plait.test": 1, "other.test": 1})
            self.assertEqual(await tip(worker, room.nid), [said])
            entries = await entries_of(worker, room.nid)
            self.assertEqual([entry.kind for entry in entries], [Kind.EVENT] * 7)
            self.assertEqual(entries[-2].flags, Flag.MEMBERSHIP)
            answer = await worker.events.send(message(room.room_id, "hi"), now=NOW)
            self.assertEqual(answer.event.prev_events, (said.event_id,))

    async def test_an_event_known_already_keeps_its_status(self) -> None:
        """The same event again is answered by its status, and has one entry in the feed."""
        worker, incoming, room, remote = await self.begin()
        said = remote.build(message(room.room_id, "hello", CAROL), await tip(worker, room.nid))
        for _ in range(2):
            self.assertEqual((await receive(incoming, room.nid, said)).status, Status.ACCEPTED)
        refs = [entry.ref for entry in await entries_of(worker, room.nid)]
        self.assertEqual(len(refs), len(set(refs)))

    async def test_a_fork_becomes_a_second_extremity_and_a_local_event_joins_both(self) -> None:
        """A message beside a local one is a fork; the next event names both as parents."""
        worker, incoming, room, remote = await self.begin()
        before = await tip(worker, room.nid)
        local = await worker.events.send(message(room.room_id, "local"), now=NOW)
        said = remote.build(message(room.room_id, "remote", CAROL), before)
        self.assertEqual((await receive(incoming, room.nid, said)).status, Status.ACCEPTED)
        self.assertEqual(set(await tip(worker, room.nid)), {local.event, said})
        joined = await worker.events.send(message(room.room_id, "both"), now=NOW)
        self.assertEqual(set(joined.event.prev_events), {local.event.event_id, said.event_id})

    async def test_what_the_state_before_forbids_is_rejected_and_stays_so(self) -> None:
        """An event its sender may not send is rejected for ever and has no entry (security: S1)."""
        worker, incoming, room, remote = await self.begin()
        parents = await tip(worker, room.nid)
        topic = EventDraft(room.room_id, "m.room.topic", CAROL, {"topic": "mine"}, "")
        forbidden = remote.build(topic, parents)
        entries = len(await entries_of(worker, room.nid))
        for _ in range(2):
            self.assertEqual((await receive(incoming, room.nid, forbidden)).status, Status.REJECTED)
        self.assertEqual(len(await entries_of(worker, room.nid)), entries)
        self.assertEqual(await tip(worker, room.nid), parents)
        child = remote.build(message(room.room_id, "after it", CAROL), [forbidden])
        self.assertEqual((await receive(incoming, room.nid, child)).status, Status.ACCEPTED)
        self.assertEqual(await tip(worker, room.nid), [child])

    async def test_naming_a_rejected_event_as_authority_is_rejection(self) -> None:
        """Power levels that were rejected give nobody any power (security: S1)."""
        worker, incoming, room, remote = await self.begin()
        parents = await tip(worker, room.nid)
        levels = EventDraft(room.room_id, "m.room.power_levels", CAROL, {"users": {CAROL: 100}}, "")
        grab = remote.build(levels, parents)
        self.assertEqual((await receive(incoming, room.nid, grab)).status, Status.REJECTED)
        topic = EventDraft(room.room_id, "m.room.topic", CAROL, {"topic": "mine"}, "")
        use = remote.build(topic, parents, {**remote.state, grab.key: grab})
        self.assertEqual((await receive(incoming, room.nid, use)).status, Status.REJECTED)

    async def test_authority_of_another_room_counts_nothing(self) -> None:
        """An event that names another room's power levels is not accepted (security: S2)."""
        worker, incoming, room, remote = await self.begin()
        other = (await worker.room()).room
        head = await worker.heads.get(other.nid)
        levels = (await head.state([("m.room.power_levels", "")]))["m.room.power_levels", ""]
        topic = EventDraft(room.room_id, "m.room.topic", CAROL, {"topic": "mine"}, "")
        forged = remote.build(topic, await tip(worker, room.nid), {**remote.state, levels.key: levels})
        outcome = await receive(incoming, room.nid, forged)
        self.assertTrue(outcome.status is None or outcome.status is Status.REJECTED)
        self.assertNotIn(
            ("m.room.topic", ""), await worker.state.all(room.nid, (await worker.heads.get(room.nid)).root)
        )

    async def test_what_only_the_present_forbids_is_soft_failed(self) -> None:
        """A message of a banned user from before the ban is kept and told to nobody (security: F20)."""
        worker, incoming, room, remote = await self.begin()
        before = await tip(worker, room.nid)
        await worker.events.send(membership(room.room_id, CAROL, "ban", ALICE), now=NOW)
        entries = len(await entries_of(worker, room.nid))
        banned = await tip(worker, room.nid)
        for number in range(5):
            late = remote.build(message(room.room_id, f"late {number}", CAROL), before)
            self.assertEqual((await receive(incoming, room.nid, late)).status, Status.SOFT_FAILED)
        self.assertEqual(len(await entries_of(worker, room.nid)), entries)
        self.assertEqual(await tip(worker, room.nid), banned)
        sent = await worker.events.send(message(room.room_id, "still here"), now=NOW)
        self.assertEqual(sent.event.prev_events, (banned[0].event_id,))

    async def test_an_event_without_parents_is_rejected(self) -> None:
        """A second beginning of a room moves nothing (security: S12)."""
        worker, incoming, room, remote = await self.begin()
        create = remote.build(
            EventDraft(room.room_id, "m.room.create", CAROL, {"room_version": "11"}, ""), []
        )
        before = await tip(worker, room.nid)
        self.assertEqual((await receive(incoming, room.nid, create)).status, Status.REJECTED)
        self.assertEqual(await tip(worker, room.nid), before)

    async def test_depth_is_no_poison(self) -> None:
        """An event that claims the greatest depth is placed after its parents, like any (security: F13)."""
        worker, incoming, room, remote = await self.begin()
        parents = await tip(worker, room.nid)
        poison = remote.build(message(room.room_id, "deep", CAROL), parents, depth=MAX_DEPTH)
        outcome = await receive(incoming, room.nid, poison)
        assert outcome.stored is not None
        self.assertEqual(outcome.stored.depth, parents[0].depth + 1)
        sent = await worker.events.send(message(room.room_id, "after"), now=NOW)
        self.assertEqual(sent.event.depth, parents[0].depth + 2)

    async def test_redactions_in_a_circle_end(self) -> None:
        """Where senders choose event IDs, redactions may redact themselves and each other (security: S8)."""
        worker, incoming, room, remote = await self.begin(V1)
        for size in (1, 2, 60):
            ids = [EventID(f"$ring{size}n{number}:{OTHER}") for number in range(size)]
            parents = await tip(worker, room.nid)
            ring: list[Event] = []
            for number, event_id in enumerate(ids):
                draft = EventDraft(room.room_id, "m.room.redaction", CAROL, {}, redacts=EventID("$x:y"))
                built = remote.build(draft, ring[-1:] or parents)
                ring.append(_renamed(built, event_id, ids[number - 1]))
            for event in ring:
                outcome = await receive(incoming, room.nid, event)
                self.assertEqual((outcome.status, outcome.reason), (Status.ACCEPTED, ""))
            worker.stored.forget_room(room.nid)
            for number, event in enumerate(ring):
                stored = await stored_of(worker, room.nid, event)
                redaction = await stored_of(worker, room.nid, ring[(number + 1) % size])
                expected = None if size == 1 else redaction.nid  # of itself it makes nothing
                self.assertEqual(stored.redacted_by, expected, (size, number))
        answer = await worker.events.send(message(room.room_id, "still here"), now=NOW)
        self.assertEqual(answer.event.prev_events, (ring[-1].event_id,))

    async def test_many_forks_leave_few_extremities(self) -> None:
        """However many forks come, the extremities stay bounded (security: S11)."""
        worker, incoming, room, remote = await self.begin()
        parents = await tip(worker, room.nid)
        forks = [remote.build(message(room.room_id, str(n), CAROL), parents) for n in range(60)]
        outcomes = await incoming.received.place(room.nid, forks)
        self.assertEqual({outcome.status for outcome in outcomes}, {Status.ACCEPTED})
        self.assertEqual(len((await worker.heads.get(room.nid)).extremities), 20)
        sent = await worker.events.send(message(room.room_id, "joined"), now=NOW)
        self.assertEqual((await worker.heads.get(room.nid)).extremities, (sent.nid,))

    async def test_what_forks_that_had_to_go_have_set_is_not_lost(self) -> None:
        """When another server joins those that are left, the states of the rest are still in the room's."""
        worker, incoming, room, remote = await self.begin()
        parents = await tip(worker, room.nid)
        users = [UserID(f"@{n}:other.test") for n in range(24)]
        forks = [remote.build(membership(room.room_id, user, "join"), parents) for user in users]
        await incoming.received.place(room.nid, forks)
        left = await tip(worker, room.nid)
        joined = remote.build(message(room.room_id, "joined", CAROL), left)
        after = remote.build(message(room.room_id, "after", CAROL), [joined])
        for event in (joined, after):
            self.assertEqual((await receive(incoming, room.nid, event)).status, Status.ACCEPTED)
            head = await worker.heads.get(room.nid)
            self.assertEqual(len(head.extremities), 1)
            self.assertEqual(dict(head.servers), {"plait.test": 1, "other.test": 25})
            found = await head.state([("m.room.member", user) for user in users])
            self.assertEqual(len(found), len(users))

    async def test_what_our_users_say_stands_on_what_they_have_done_before(self) -> None:
        """Their branches are kept when others must go: without a join behind it, a message is refused."""
        worker, incoming, room, remote = await self.begin()
        parents = await tip(worker, room.nid)
        ours = remote.build(membership(room.room_id, BOB, "join"), parents)
        forks = [remote.build(message(room.room_id, str(n), CAROL), parents) for n in range(30)]
        await incoming.received.place(room.nid, [ours, *forks])
        sent = await worker.events.send(message(room.room_id, "hi", BOB), now=NOW)
        self.assertIn(ours.event_id, sent.event.prev_events)
        self.assertEqual(len(sent.event.prev_events), 20)

    async def test_forks_of_state_follow_the_resolved_state(self) -> None:
        """Memberships follow the difference of resolved states, also where another's event decides."""
        worker, incoming, room, remote = await self.begin()
        before = await tip(worker, room.nid)
        dave = remote.build(membership(room.room_id, DAVE, "join"), before)
        self.assertEqual((await receive(incoming, room.nid, dave)).status, Status.ACCEPTED)
        rename = remote.build(
            EventDraft(
                room.room_id, "m.room.member", CAROL, {"membership": "join", "displayname": "C"}, CAROL
            ),
            before,
        )
        self.assertEqual((await receive(incoming, room.nid, rename)).status, Status.ACCEPTED)
        head = await worker.heads.get(room.nid)
        self.assertEqual(dict(head.servers), {"plait.test": 1, "other.test": 2})
        state = await head.state([("m.room.member", CAROL), ("m.room.member", DAVE)])
        self.assertEqual(set(state.values()), {rename, dave})

    async def test_a_membership_changed_by_resolution_is_told_to_its_user(self) -> None:
        """When a fork's ban undoes another's join, that user has an entry of a state change."""
        worker, incoming, room, remote = await self.begin()
        forked = await tip(worker, room.nid)
        dave = remote.build(membership(room.room_id, DAVE, "join"), forked)
        self.assertEqual((await receive(incoming, room.nid, dave)).status, Status.ACCEPTED)
        rules = EventDraft(room.room_id, "m.room.join_rules", ALICE, {"join_rule": "invite"}, "")
        closing = remote.build(rules, forked)
        self.assertEqual((await receive(incoming, room.nid, closing)).status, Status.ACCEPTED)
        head = await worker.heads.get(room.nid)
        self.assertEqual(dict(head.servers), {"plait.test": 1, "other.test": 1})
        *_, event, change = await entries_of(worker, room.nid)
        dave_nid = await worker.nids.user(DAVE)
        self.assertEqual((event.kind, event.user_nid), (Kind.EVENT, None))
        self.assertEqual((change.kind, change.user_nid), (Kind.STATE, dave_nid))
        self.assertEqual((change.flags, change.root, change.head), (Flag.MEMBERSHIP, event.root, event.head))

    async def test_a_redaction_may_come_before_its_target(self) -> None:
        """Redaction and target apply in either order of arrival, if the sender may (security: S10)."""
        worker, incoming, room, remote = await self.begin()
        before = await tip(worker, room.nid)
        said = remote.build(message(room.room_id, "regret", CAROL), before)
        first = remote.build(message(room.room_id, "another", CAROL), before)
        redaction = remote.build(
            EventDraft(room.room_id, "m.room.redaction", CAROL, {}, redacts=said.event_id), [first]
        )
        for event in (first, redaction, said):
            self.assertEqual((await receive(incoming, room.nid, event)).status, Status.ACCEPTED)
        redactor = await stored_of(worker, room.nid, redaction)
        self.assertEqual((await stored_of(worker, room.nid, said)).redacted_by, redactor.nid)
        spoken = await worker.events.send(message(room.room_id, "mine"), now=NOW)
        foreign = remote.build(
            EventDraft(room.room_id, "m.room.redaction", CAROL, {}, redacts=spoken.event.event_id),
            await tip(worker, room.nid),
        )
        self.assertEqual((await receive(incoming, room.nid, foreign)).status, Status.ACCEPTED)
        self.assertIsNone((await stored_of(worker, room.nid, spoken.event)).redacted_by)

    async def test_one_bad_event_harms_none_beside_it(self) -> None:
        """A rejected event and one that lacks its parents harm none of their group (security: F2)."""
        worker, incoming, room, remote = await self.begin()
        parents = await tip(worker, room.nid)
        good = [remote.build(message(room.room_id, str(n), CAROL), parents) for n in range(3)]
        topic = EventDraft(room.room_id, "m.room.topic", CAROL, {"topic": "mine"}, "")
        bad = remote.build(topic, parents)
        absent = remote.build(message(room.room_id, "absent", CAROL), parents)
        orphan = remote.build(message(room.room_id, "orphan", CAROL), [absent])
        outcomes = await incoming.received.place(room.nid, [good[0], bad, good[1], orphan, good[2]])
        statuses = [outcome.status for outcome in outcomes]
        accepted = Status.ACCEPTED
        self.assertEqual(statuses, [accepted, Status.REJECTED, accepted, None, accepted])
        self.assertEqual(outcomes[3].missing, {absent.event_id})

    async def test_a_lost_race_ends_in_a_fork(self) -> None:
        """Another worker's commits do not keep an event out: it is placed under the lock, as it is."""
        worker, incoming, room, remote = await self.begin()
        rival = await start_worker(self.database, "two")
        parents = await tip(worker, room.nid)
        for number in range(3):
            await rival.events.send(message(room.room_id, f"rival {number}"), now=NOW)
        said = remote.build(message(room.room_id, "late", CAROL), parents)
        outcome = await receive(incoming, room.nid, said)
        self.assertEqual(outcome.status, Status.ACCEPTED)
        await rival.feed.catch_up()
        self.assertEqual(len((await rival.heads.get(room.nid)).extremities), 2)
        self.assertIn(said, await tip(rival, room.nid))

    async def test_own_events_others_have_seen_are_placed_and_sent_on(self) -> None:
        """An own event placed as it is bears the flag by which it is sent out; a refused one raises."""
        worker, incoming, room, remote = await self.begin()
        event = remote.build(membership(room.room_id, DAVE, "join"), await tip(worker, room.nid))
        await incoming.place_own(room.nid, event, now=NOW)
        entry = (await entries_of(worker, room.nid))[-1]
        self.assertEqual(entry.flags, Flag.FEDERATE | Flag.MEMBERSHIP)
        topic = EventDraft(room.room_id, "m.room.topic", CAROL, {"topic": "mine"}, "")
        refused = remote.build(topic, await tip(worker, room.nid))
        try:
            await incoming.place_own(room.nid, refused, now=NOW)
        except Forbidden:
            pass
        else:
            raise AssertionError("it was placed")

    async def test_a_too_long_identifier_is_kept_as_rejected(self) -> None:
        """An event over the byte limit alone is remembered as rejected."""
        worker, incoming, room, remote = await self.begin()
        said = remote.build(message(room.room_id, "long", CAROL), await tip(worker, room.nid))
        long = evolve(said, too_long=True)
        self.assertEqual((await receive(incoming, room.nid, long)).status, Status.REJECTED)
        self.assertEqual((await receive(incoming, room.nid, said)).status, Status.REJECTED)


class SqliteReceiving(ReceivingTests, SqliteCase):
    """On SQLite."""


class PostgresReceiving(ReceivingTests, PostgresCase):
    """On PostgreSQL."""
