"""Tests of what other servers read from us."""

from __future__ import annotations

from protocol.errors import Forbidden, MatrixError, NotFound
from protocol.events import EventDraft
from protocol.identifiers import EventID, ServerName, UserID
from protocol.room_versions import V11, V12
from tests.federation.inbound_helpers import STRANGER, InboundCase, start
from tests.homeserver.events.helpers import ALICE, BOB, NOW, membership, message
from tests.homeserver.events.received_helpers import (
    CAROL,
    OTHER,
    entries_of,
    remote_in,
    tip,
)
from tests.storage.helpers import PostgresCase, SqliteCase


class ReadingTests(InboundCase):
    """What must hold on every engine."""

    async def test_reads_tell_a_stranger_nothing(self) -> None:
        """An event of a room one is not in is as unknown as one that is nowhere (security: F10)."""
        here, room, _ = await self.begin()
        secret = (await here.worker.room(V11)).room
        (inside,) = await tip(here.worker, secret.nid)
        (shared,) = await tip(here.worker, room.nid)
        nowhere = EventID("$" + "A" * 43)
        reads = here.reads
        unknown = await self.refused(NotFound, reads.event(OTHER, nowhere))
        self.assertEqual(await self.refused(NotFound, reads.event(OTHER, inside.event_id)), unknown)
        self.assertEqual(await self.refused(NotFound, reads.event(STRANGER, shared.event_id)), unknown)
        for ask in (reads.state_before, reads.auth_chain):
            absent = await self.refused(NotFound, ask(OTHER, room.room_id, nowhere))
            wrong = await self.refused(NotFound, ask(OTHER, room.room_id, inside.event_id))
            self.assertEqual(wrong, absent)
            await self.refused(Forbidden, ask(STRANGER, room.room_id, shared.event_id))
        await self.refused(Forbidden, reads.backfill(OTHER, secret.room_id, [inside.event_id], 10))
        self.assertEqual(list(await reads.backfill(OTHER, room.room_id, [inside.event_id], 10)), [])
        self.assertEqual(await reads.event(OTHER, shared.event_id), shared)

    async def test_history_is_walked_within_bounds(self) -> None:
        """Backfill goes back from the latest, missing events stop at the earliest (security: F14)."""
        here, room, remote = await self.begin()
        (join,) = await tip(here.worker, room.nid)
        line = [join]
        for number in range(30):
            line.append(self.said(remote, room, str(number), line[-1:]))
        await here.send([event.pdu for event in line[1:]])
        back = await here.reads.backfill(OTHER, room.room_id, [line[-1].event_id], 5)
        self.assertEqual(list(back), line[:-6:-1])
        between = ([line[10].event_id], [line[14].event_id])
        self.assertEqual(list(await here.reads.missing(OTHER, room.room_id, between, 10)), line[11:14])
        above = await here.reads.missing(OTHER, room.room_id, ([], [line[20].event_id]), 10, line[17].depth)
        self.assertEqual(list(above), line[17:20])
        cut = await here.reads.missing(OTHER, room.room_id, ([], [line[-1].event_id]), 10_000)
        self.assertEqual(list(cut), line[-21:-1])
        many = [EventID(f"${n}") for n in range(10_000)]
        await self.refused(MatrixError, here.reads.missing(OTHER, room.room_id, (many, []), 10))
        await self.refused(MatrixError, here.reads.backfill(OTHER, room.room_id, many, 10))

    async def test_what_a_server_may_not_see_is_redacted(self) -> None:
        """Messages from before its users joined are given without content (security: F10)."""
        here = await start(self.database)
        room = (await here.worker.room(V11)).room
        hidden = {"history_visibility": "joined"}
        draft = EventDraft(room.room_id, "m.room.history_visibility", ALICE, hidden, "")
        await here.worker.events.send(draft, now=NOW)
        secret = await here.worker.events.send(message(room.room_id, "secret"), now=NOW)
        remote = await remote_in(here.worker, room.nid, V11)
        join = remote.put(membership(room.room_id, CAROL, "join"), [secret.event])
        await here.send([join.pdu])
        after = await here.worker.events.send(message(room.room_id, "hello"), now=NOW)
        found = await here.reads.backfill(OTHER, room.room_id, [after.event.event_id], 3)
        contents = [dict(event.content) for event in found]
        self.assertEqual(contents[0], dict(after.event.content))
        self.assertEqual(contents[2], {})

    async def test_a_server_named_like_a_port_sees_nothing_of_others(self) -> None:
        """`8448` is a server name, and users of `far.test:8448` are not its own (security: F10)."""
        here = await start(self.database)
        room = (await here.worker.room(V11)).room
        hidden = {"history_visibility": "joined"}
        draft = EventDraft(room.room_id, "m.room.history_visibility", ALICE, hidden, "")
        await here.worker.events.send(draft, now=NOW)
        dora = UserID("@dora:far.test:8448")
        joining = {"membership": "join", "displayname": "Dora"}
        join = await here.worker.events.send(
            EventDraft(room.room_id, "m.room.member", dora, joining, dora), now=NOW
        )
        secret = await here.worker.events.send(message(room.room_id, "secret"), now=NOW)
        sight = here.reads.sight
        own = await sight.shown(ServerName("far.test:8448"), [join, secret])
        self.assertEqual(own, [join.event, secret.event])
        others = await sight.shown(ServerName("8448"), [join, secret])
        self.assertEqual([dict(event.content) for event in others], [{"membership": "join"}, {}])

    async def test_the_state_before_an_event_has_its_auth_chain(self) -> None:
        """State and auth chain are those before the event, whatever happened since."""
        here, room, _ = await self.begin()
        (join,) = await tip(here.worker, room.nid)
        await here.worker.events.send(membership(room.room_id, BOB, "join"), now=NOW)
        before = await here.reads.state_before(OTHER, room.room_id, join.event_id)
        state = await here.worker.stored.by_nid(room.nid, before.state)
        chain = await here.worker.stored.by_nid(room.nid, before.auth_chain)
        self.assertEqual(len(state), 5)
        self.assertNotIn(join, [each.event for each in state.values()])
        self.assertTrue(
            {each.event.type for each in chain.values()}
            == {"m.room.create", "m.room.member", "m.room.power_levels"}
        )
        self.assertTrue(len(await entries_of(here.worker, room.nid)) > 5)

    async def test_auth_chains_hold_the_create_event_that_no_event_names(self) -> None:
        """In version 12 the room ID stands for the create event; Dendrite refuses rooms without it there."""
        here = await start(self.database)
        room = (await here.worker.room(V12)).room
        remote = await remote_in(here.worker, room.nid, V12)
        join = remote.put(membership(room.room_id, CAROL, "join"), await tip(here.worker, room.nid))
        await here.send([join.pdu])
        create = remote.state["m.room.create", ""]
        _, chain = await here.reads.auth_chain(OTHER, room.room_id, join.event_id)
        before = await here.reads.state_before(OTHER, room.room_id, join.event_id)
        for nids in (chain, before.auth_chain):
            types = [each.event.type for each in (await here.worker.stored.by_nid(room.nid, nids)).values()]
            self.assertEqual(types.count("m.room.create"), 1)
        self.assertEqual((await here.reads.auth_chain(OTHER, room.room_id, create.event_id))[1], [])


class SqliteReading(ReadingTests, SqliteCase):
    """On SQLite."""


class PostgresReading(ReadingTests, PostgresCase):
    """On PostgreSQL."""
