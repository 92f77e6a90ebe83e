"""Tests of what memory makes of events that history has changed, in this worker and in others."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from attrs import frozen

from homeserver.events.received import Course
from homeserver.events.stored import Status
from homeserver.history.messages import PageRequest
from homeserver.history.relations import RelationsRequest
from homeserver.history.wiring import History, make_history
from homeserver.sync.feed import SessionFeed
from homeserver.sync.filters import ALL_EVENTS
from homeserver.sync.session import Session
from homeserver.sync.waiting import Waiters
from homeserver.sync.wiring import Core, Suppliers, make_readers, make_session_feed
from protocol.events import Event, EventDraft
from protocol.identifiers import DeviceID, RoomID
from protocol.room_versions import V11
from storage.database import Database
from storage.engines import open_database
from storage.feed import Kind
from storage.migrate import migrate
from storage.trie_nodes import NodeCache
from tests.homeserver.events.helpers import ALICE, NOW, Worker, membership, message, start_worker
from tests.homeserver.events.received_helpers import (
    CAROL,
    Peer,
    entries_of,
    incoming_of,
    receive,
    remote_in,
    stored_of,
    tip,
)
from tests.homeserver.sync.world import Suppliers_
from tests.storage.helpers import REACTOR, PostgresCase, SqliteCase


@frozen(eq=False)
class Client:
    """Alice on one worker: every way to read an event."""

    worker: Worker
    history: History
    feed: SessionFeed
    session: Session
    waiters: Waiters

    @classmethod
    async def of(cls, worker: Worker) -> Client:
        """Wire sync and history over a worker."""
        core = Core(worker.database, worker.feed, worker.nids, NodeCache(4_000_000))
        supply: Any = Suppliers_()
        readers = make_readers(core)
        feed = make_session_feed(core, readers, Suppliers(*[supply] * 8), epoch=1)
        session = Session(ALICE, await worker.nids.user(ALICE), DeviceID("DEV"))
        waiters = Waiters(worker.database, readers.rooms, worker.clock)
        worker.feed.add_session_listener(waiters.apply)
        return cls(worker, make_history(core, readers, supply), feed, session, waiters)

    async def contents(self, room_id: RoomID, event: Event, since: Any = None) -> list[Any]:
        """Give an event's content as each endpoint shows it."""
        asker = await self.history.askers.of(self.session, room_id, NOW)
        page = await self.history.messages.page(asker, PageRequest(None, None, True, 20, ALL_EVENTS))
        context = await self.history.events.context(asker, event.event_id, 4, ALL_EVENTS)
        parent = event.content.get("m.relates_to", {}).get("event_id")
        target = parent or event.event_id
        request = RelationsRequest(target, None, None, None, None, True, 5, False)
        synced = json.loads((await self.feed.delta(self.session, since, now=NOW)).to_json())
        found = [
            *json.loads(page.to_json())["chunk"],
            json.loads(context)["event"],
            json.loads(await self.history.events.event(asker, event.event_id)),
            *json.loads(await self.history.relations.children(asker, request))["chunk"],
            *synced["rooms"]["join"][room_id]["timeline"]["events"],
        ]
        return [each["content"] for each in found if each["event_id"] == event.event_id]


class ChangedPastTests:
    """What must hold on every engine."""

    database: Database
    assertEqual: Callable[..., None]
    assertNotEqual: Callable[..., None]

    async def others(self) -> list[Worker]:
        """Start further workers on the same database."""
        return []

    async def test_a_redaction_that_comes_as_history_is_seen_at_once(self) -> None:
        """A message read everywhere is redacted everywhere once history redacts it; nobody wakes."""
        await migrate(self.database)
        worker = await start_worker(self.database)
        incoming = incoming_of(worker)
        room = (await worker.room()).room
        remote = await remote_in(worker, room.nid, V11)
        await receive(
            incoming,
            room.nid,
            remote.put(membership(room.room_id, CAROL, "join"), await tip(worker, room.nid)),
        )
        root = await worker.events.send(message(room.room_id, "root"), now=NOW)
        link = {"rel_type": "m.reference", "event_id": root.event.event_id}
        content = {"msgtype": "m.text", "body": "regret", "m.relates_to": link}
        said = remote.build(EventDraft(room.room_id, "m.room.message", CAROL, content), [root.event])
        await receive(incoming, room.nid, said)
        clients = [await Client.of(each) for each in (worker, *await self.others())]
        before = (await clients[0].feed.delta(clients[0].session, None, now=NOW)).next_batch
        last = await worker.events.send(message(room.room_id, "later"), now=NOW)
        woken: list[int] = []
        for number, client in enumerate(clients):
            await client.worker.feed.catch_up()
            self.assertEqual(await client.contents(room.room_id, said), [content] * 5)
            client.waiters.subscribe(client.session.user_nid, lambda number=number: woken.append(number))  # type: ignore[misc]
        seen = (await clients[0].feed.delta(clients[0].session, None, now=NOW)).next_batch
        redaction = remote.build(
            EventDraft(room.room_id, "m.room.redaction", CAROL, {}, redacts=said.event_id), [said]
        )
        (outcome,) = await incoming.received.place(room.nid, [redaction], Course.PAST)
        self.assertEqual(outcome.status, Status.ACCEPTED)
        for client in clients:
            await client.worker.feed.catch_up()
            self.assertEqual(await client.contents(room.room_id, said), [{}] * 4)
            delta = json.loads((await client.feed.delta(client.session, seen, now=NOW)).to_json())
            self.assertEqual(delta.get("rooms", {}).get("join", {}), {})
            again = json.loads((await client.feed.delta(client.session, before, now=NOW)).to_json())
            (shown,) = again["rooms"]["join"][room.room_id]["timeline"]["events"]
            self.assertEqual(shown["event_id"], last.event.event_id)
        await worker.clock.sleep(0)
        self.assertEqual(woken, [])
        entry = (await entries_of(worker, room.nid))[-1]
        self.assertEqual(
            (entry.kind, entry.ref), (Kind.CHANGED, (await stored_of(worker, room.nid, said)).nid)
        )

    async def test_an_outlier_with_a_place_is_one_to_all(self) -> None:
        """What a worker remembers as an outlier has its place there, too, once history gave it one."""
        await migrate(self.database)
        worker = await start_worker(self.database)
        peer = Peer()
        incoming = incoming_of(worker, peer)
        room = (await worker.room()).room
        remote = await remote_in(worker, room.nid, V11)
        parents = await tip(worker, room.nid)
        join = remote.put(membership(room.room_id, CAROL, "join"), parents)
        await incoming.gaps.past.keep_outliers(await worker.nids.room_of(room.nid), [join])
        workers = [worker, *await self.others()]
        for each in workers:
            self.assertEqual((await stored_of(each, room.nid, join)).status, Status.OUTLIER)
        await incoming.received.place(room.nid, [join], Course.PAST)
        for each in workers:
            await each.feed.catch_up()
            self.assertEqual((await stored_of(each, room.nid, join)).status, Status.ACCEPTED)


class SqliteChangedPastTests(ChangedPastTests, SqliteCase):
    """One process on SQLite."""


class PostgresChangedPastTests(ChangedPastTests, PostgresCase):
    """Two workers on one PostgreSQL."""

    async def others(self) -> list[Worker]:
        """Start a second worker."""
        database = await open_database(self.url, REACTOR, pool_size=4)
        self.addCleanup(database.close)
        return [await start_worker(database, "two")]
