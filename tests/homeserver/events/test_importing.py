"""Tests of taking rooms over: what a resident server gives on joining, whole, broken, forged, and again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define, evolve

from homeserver.clock import Clock
from homeserver.events import importing, receiving
from homeserver.events.received import Course, ImportedRoom
from homeserver.events.stored import Status
from protocol.errors import Forbidden
from protocol.events import Event, EventDraft
from protocol.identifiers import UserID
from protocol.limits import MAX_DEPTH
from protocol.room_versions import ROOM_VERSIONS, V11, V12, RoomVersion
from storage import memberships, stripped_states
from storage.database import Database
from storage.feed import Flag, Kind
from storage.memberships import Membership
from storage.migrate import migrate
from storage.state_trie import EMPTY_ROOT
from tests.homeserver.events.helpers import BOB, NOW, Worker, membership, message, start_worker
from tests.homeserver.events.incoming import IncomingEvents
from tests.homeserver.events.received_helpers import (
    CAROL,
    DAVE,
    OTHER,
    Remote,
    chain_of,
    entries_of,
    imported,
    incoming_of,
    receive,
    remote_room,
    stored_of,
    tip,
)
from tests.storage.helpers import REACTOR, PostgresCase, SqliteCase


def joined(version: RoomVersion, members: int = 3) -> tuple[Remote, list[Event], ImportedRoom]:
    """Make a room of the other server and the answer to Bob's join."""
    users = [UserID(f"@user{number}:other{number % 7}.test") for number in range(members)]
    remote, timeline = remote_room(version, users)
    join = remote.build(membership(timeline[0].room_id, BOB, "join"), timeline[-1:])
    return remote, timeline, imported(remote, timeline, join)


@define
class CountingTimers:
    """The reactor's timers, with a count of the turns given to others."""

    turns: int = 0

    def seconds(self) -> float:
        """Give the time."""
        return REACTOR.seconds()

    def callLater(self, delay: float, callable: Callable[..., object], *args: object) -> Any:
        """Call later."""
        self.turns += delay == 0
        return REACTOR.callLater(delay, callable, *args)


class ImportingTests:
    """What must hold on every engine."""

    database: Database
    patch: Callable[..., object]
    assertEqual: Callable[..., None]
    assertTrue: Callable[..., None]
    assertIn: Callable[..., None]
    assertIsNone: Callable[..., None]

    async def begin(self) -> tuple[Worker, IncomingEvents]:
        """Make the tables and wire one worker."""
        await migrate(self.database)
        worker = await start_worker(self.database)
        return worker, incoming_of(worker)

    async def refused(self, incoming: IncomingEvents, given: ImportedRoom) -> None:
        """See that a room is not taken over."""
        try:
            await incoming.import_room(given, now=NOW)
        except Forbidden:
            return
        raise AssertionError("the room was taken over")

    async def test_the_rooms_own_beginning_comes_as_history(self) -> None:
        """The create event, known as an authority, is accepted when history reaches it, and all after it."""
        worker, incoming = await self.begin()
        for version in (V11, V12):
            _, timeline, given = joined(version)
            room_nid = await incoming.import_room(given, now=NOW)
            outcomes = await incoming.received.place(room_nid, timeline, Course.PAST)
            self.assertEqual([one.status for one in outcomes], [Status.ACCEPTED] * len(timeline))
            create = await stored_of(worker, room_nid, timeline[0])
            self.assertEqual((create.status, create.root_before), (Status.ACCEPTED, EMPTY_ROOT))

    async def test_two_users_who_join_at_a_time_take_the_room_over_once(self) -> None:
        """The second join is an event like others: to take the room over anew would undo the first."""
        worker, incoming = await self.begin()
        remote, timeline, given = joined(V11)
        other = UserID("@other:plait.test")
        second = remote.build(membership(given.room_id, other, "join"), timeline[-1:])
        room_nid = await incoming.import_room(given, now=NOW)
        self.assertIsNone(await incoming.rooms.take(evolve(given, join=second)))
        self.assertEqual(list((await worker.heads.get(room_nid)).local_members), [BOB])

    async def test_a_room_of_every_version_is_taken_over_and_spoken_in(self) -> None:
        """After the import the room has its state, members, servers, one entry, and Bob can speak in it."""
        worker, incoming = await self.begin()
        for version in ROOM_VERSIONS.values():
            remote, timeline, given = joined(version)
            await self._take(worker, incoming, given, remote, timeline)

    async def _take(
        self,
        worker: Worker,
        incoming: IncomingEvents,
        given: ImportedRoom,
        remote: Remote,
        timeline: list[Event],
    ) -> None:
        room_nid = await incoming.import_room(given, now=NOW)
        head = await worker.heads.get(room_nid)
        self.assertEqual(list(head.local_members), [BOB])
        self.assertEqual(
            dict(head.servers),
            {OTHER: 1, "other0.test": 1, "other1.test": 1, "other2.test": 1, "plait.test": 1},
        )
        state = await worker.state.all_events(room_nid, head.root)
        self.assertEqual(
            {key: stored.event for key, stored in state.items()},
            {**remote.state, given.join.key: given.join},
        )
        (entry,) = await entries_of(worker, room_nid)
        self.assertEqual((entry.kind, entry.flags), (Kind.EVENT, Flag.MEMBERSHIP))
        said = await worker.events.send(message(given.room_id, "hello", BOB), now=NOW)
        self.assertEqual(said.event.prev_events, (given.join.event_id,))
        answer = remote.build(message(given.room_id, "hi", CAROL), [said.event])
        self.assertEqual((await receive(incoming, room_nid, answer)).status, Status.ACCEPTED)
        chain = await chain_of(worker, room_nid, said.event.event_id)
        self.assertTrue({given.join} < chain <= {given.join, *timeline})

    async def test_a_large_room_is_taken_over_in_pieces(self) -> None:
        """Others have their turn again and again at every step, and nothing is lost (security: D7)."""
        self.patch(importing, "AT_ONCE", 10)
        self.patch(receiving, "ORDERED_A_TURN", 10)
        await migrate(self.database)
        worker, timers = await start_worker(self.database), CountingTimers()
        worker.clock = Clock(timers)
        remote, _, given = joined(V11, 230)
        room_nid = await incoming_of(worker).import_room(given, now=NOW)
        self.assertTrue(timers.turns >= 23 * 4, timers.turns)
        head = await worker.heads.get(room_nid)
        self.assertEqual(sum(head.servers.values()), 232)
        state = await worker.state.all_events(room_nid, head.root)
        self.assertEqual(
            {key: stored.event for key, stored in state.items()},
            {**remote.state, given.join.key: given.join},
        )

    async def test_one_broken_event_is_left_out_of_a_room(self) -> None:
        """A forged state event and one without its authority cost themselves alone (security: F2, S2)."""
        worker, incoming = await self.begin()
        remote, timeline, given = joined(V12)
        room_id = given.room_id
        user = UserID("@user0:other0.test")
        topic = remote.build(
            EventDraft(room_id, "m.room.topic", user, {"topic": "forged"}, ""), timeline[-1:]
        )
        lost = remote.build(membership(room_id, DAVE, "join"), timeline[-1:])
        name = EventDraft(room_id, "m.room.name", DAVE, {"name": "nowhere"}, "")
        orphan = remote.build(name, timeline[-1:], {**remote.state, lost.key: lost})
        room_nid = await incoming.import_room(evolve(given, state=[*given.state, topic, orphan]), now=NOW)
        head = await worker.heads.get(room_nid)
        keys = await worker.state.all(room_nid, head.root)
        self.assertTrue(("m.room.topic", "") not in keys and ("m.room.name", "") not in keys)
        self.assertEqual((await stored_of(worker, room_nid, topic)).status, Status.REJECTED)
        said = remote.build(message(room_id, "hi", user), [given.join])
        self.assertEqual((await receive(incoming, room_nid, said)).status, Status.ACCEPTED)

    async def test_a_room_that_does_not_allow_the_join_is_not_taken_over(self) -> None:
        """Without the rules that let Bob in, nothing of the room is kept as a room we are in."""
        worker, incoming = await self.begin()
        _, _, given = joined(V11)
        closed = [event for event in given.state if event.type != "m.room.join_rules"]
        await self.refused(incoming, evolve(given, state=closed))
        await self.refused(incoming, evolve(given, state=closed[1:]))
        room_nid = await worker.nids.room(given.room_id)
        assert room_nid is not None
        self.assertEqual(await entries_of(worker, room_nid), [])

    async def test_a_room_once_left_is_taken_over_again(self) -> None:
        """On a second join the tables follow from what they were to what the room is now."""
        worker, incoming = await self.begin()
        remote, timeline, given = joined(V12)
        room_nid = await incoming.import_room(given, now=NOW)
        await worker.events.send(membership(given.room_id, BOB, "leave"), now=NOW)
        (left,) = await tip(worker, room_nid)
        remote.state[left.key] = left
        dave = remote.put(membership(given.room_id, DAVE, "join"), [left])
        gone = UserID("@user0:other0.test")
        away = remote.put(membership(given.room_id, gone, "leave"), [dave])
        join = remote.build(membership(given.room_id, BOB, "join"), [away])
        again = imported(remote, [*timeline, left, dave, away], join)
        self.assertEqual(await incoming.import_room(again, now=NOW), room_nid)
        head = await worker.heads.get(room_nid)
        self.assertEqual(dict(head.servers), {OTHER: 2, "other1.test": 1, "other2.test": 1, "plait.test": 1})
        self.assertEqual(await self.database.read(memberships.servers, room_nid), dict(head.servers))
        self.assertEqual(list(head.local_members), [BOB])

    async def test_history_goes_on_before_a_join_whose_parent_is_known_without_a_place(self) -> None:
        """A parent that is here as an authority alone is asked for as one that is not here at all."""
        worker, incoming = await self.begin()
        remote, timeline, given = joined(V12)
        room_nid = await incoming.import_room(given, now=NOW)
        await worker.events.send(membership(given.room_id, BOB, "leave"), now=NOW)
        (left,) = await tip(worker, room_nid)
        remote.state[left.key] = left
        outlier = timeline[-2]
        self.assertIsNone((await stored_of(worker, room_nid, outlier)).root_before)
        join = remote.build(membership(given.room_id, BOB, "join"), [outlier, left])
        await incoming.import_room(imported(remote, [*timeline, left], join), now=NOW)
        missing = await incoming.gaps.past.gaps_below(room_nid, MAX_DEPTH)
        self.assertEqual(set(missing), {timeline[-1].event_id, outlier.event_id})

    async def test_while_we_are_in_the_room_its_state_is_not_believed_again(self) -> None:
        """A second local user's join through another server is an event like others (security: F6)."""
        worker, incoming = await self.begin()
        remote, timeline, given = joined(V12)
        room_nid = await incoming.import_room(given, now=NOW)
        remote.state[given.join.key] = given.join
        eve = UserID("@eve:plait.test")
        join = remote.build(membership(given.room_id, eve, "join"), [given.join])
        lie = remote.build(
            EventDraft(given.room_id, "m.room.topic", CAROL, {"topic": "lie"}, ""), [given.join]
        )
        lying = evolve(imported(remote, timeline, join), state=[*given.state, lie])
        self.assertEqual(await incoming.import_room(lying, now=NOW), room_nid)
        head = await worker.heads.get(room_nid)
        self.assertEqual(set(head.local_members), {BOB, eve})
        self.assertTrue(("m.room.topic", "") not in await worker.state.all(room_nid, head.root))

    async def test_an_invite_from_outside_is_told_and_can_be_followed(self) -> None:
        """An invite to an unknown room is an entry for its user alone; a join may follow."""
        worker, incoming = await self.begin()
        remote, timeline, _ = joined(V12)
        room_id = timeline[0].room_id
        invite = remote.put(membership(room_id, BOB, "invite", CAROL), timeline[-1:])
        shown = [{"type": "m.room.name", "state_key": "", "content": {"name": "Theirs"}, "sender": CAROL}]
        await incoming.record_outside(V12, invite, shown, now=NOW)
        room_nid = await worker.nids.room(room_id)
        assert room_nid is not None
        (entry,) = await entries_of(worker, room_nid)
        bob = await worker.nids.user(BOB)
        self.assertEqual((entry.kind, entry.user_nid, entry.root), (Kind.INVITE, bob, None))
        self.assertIn(room_nid, await self.database.read(stripped_states.of_user, bob, [room_nid]))
        join = remote.build(membership(room_id, BOB, "join"), [invite])
        await incoming.import_room(imported(remote, [*timeline, invite], join), now=NOW)
        self.assertEqual(list((await worker.heads.get(room_nid)).local_members), [BOB])

    async def test_an_invite_can_be_rejected_or_withdrawn(self) -> None:
        """Leaving ends an invite whether or not others hear; others end only what they began."""
        worker, incoming = await self.begin()
        remote, timeline, _ = joined(V12)
        room_id = timeline[0].room_id
        invite = remote.put(membership(room_id, BOB, "invite", CAROL), timeline[-1:])

        async def state_of_bob() -> int | None:
            room_nid = await worker.nids.room(room_id)
            assert room_nid is not None
            row = await self.database.read(memberships.membership_of, room_nid, await worker.nids.user(BOB))
            return None if row is None else row.membership

        await incoming.record_outside(V12, invite, [], now=NOW)
        self.assertEqual(await state_of_bob(), Membership.INVITE)
        room = await worker.nids.known_room(room_id)
        assert room is not None
        stranger = remote.build(membership(room_id, BOB, "leave", UserID("@user0:other0.test")), [invite])
        self.assertEqual(await incoming.outside.withdraw(room, stranger), False)
        kick = remote.build(membership(room_id, BOB, "leave", CAROL), [invite])
        self.assertEqual(await incoming.outside.withdraw(room, kick), True)
        self.assertEqual(await state_of_bob(), Membership.LEAVE)
        again = remote.build(membership(room_id, BOB, "invite", CAROL), [kick])
        await incoming.record_outside(V12, again, [], now=NOW)
        await incoming.record_leave(room_id, BOB, None, now=NOW)
        self.assertEqual(await state_of_bob(), Membership.LEAVE)

    async def test_a_knock_is_ended_by_servers_that_the_room_shows(self) -> None:
        """A knock ends by the server of somebody the stripped state names, and by no other (security: F6)."""
        worker, incoming = await self.begin()
        remote, timeline, _ = joined(V12)
        room_id = timeline[0].room_id
        user = UserID("@user0:other0.test")
        knock = remote.put(membership(room_id, BOB, "knock"), timeline[-1:])
        kick = remote.build(membership(room_id, BOB, "leave", user), [knock])
        for name, ended in (("nowhere.test", False), ("other0.test", True)):
            member = {"type": "m.room.member", "state_key": f"@x:{name}", "content": {}, "sender": CAROL}
            await incoming.record_outside(V12, knock, [member, {"sender": 3}, {"type": "x"}], now=NOW)
            room = await worker.nids.known_room(room_id)
            assert room is not None
            self.assertEqual(await incoming.outside.withdraw(room, kick), ended)
            row = await self.database.read(memberships.membership_of, room.nid, await worker.nids.user(BOB))
            assert row is not None
            self.assertEqual(row.membership, Membership.LEAVE if ended else Membership.KNOCK)

    async def test_a_big_room_is_taken_over(self) -> None:
        """Three hundred members come in with one commit, on chains no longer than they need."""
        worker, incoming = await self.begin()
        _, _, given = joined(V12, 300)
        room_nid = await incoming.import_room(given, now=NOW)
        head = await worker.heads.get(room_nid)
        self.assertEqual(sum(head.servers.values()), 302)


class SqliteImporting(ImportingTests, SqliteCase):
    """On SQLite."""


class PostgresImporting(ImportingTests, PostgresCase):
    """On PostgreSQL."""
