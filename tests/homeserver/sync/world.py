"""A small server for tests of sync and history: rooms, users and events in a real database.

Events are real PDUs, hashed and signed; what the authorization rules and the persister do is done here by
hand, so that a test can also place forks, resolutions and rejected events where it wants them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import define, field

from homeserver.events.nids import Nids
from homeserver.events.relations import relation_of
from homeserver.events.stored import StoredEvent
from homeserver.feed.tail import Feed
from homeserver.sync.session import Session
from homeserver.sync.suppliers import (
    AccountDatum,
    KeyCounts,
    Receipt,
    ToDevicePage,
    UnreadCount,
)
from homeserver.sync.wiring import Core, Suppliers, make_readers, make_session_feed
from protocol.events import EventDraft, Links, build_event
from protocol.identifiers import DeviceID, EventID, RoomID, ServerName, StateKey, UserID
from protocol.room_versions import get_room_version
from protocol.signing import SigningKey
from storage import feed as feed_store
from storage.database import Database, Transaction
from storage.events import INSERT, REDACT, EventRow, Status
from storage.feed import Entry, Flag, HeadMark, Kind, NewEntry
from storage.memberships import BY_NAME, PUT_MEMBERSHIP
from storage.migrate import migrate
from storage.rows import run_all
from storage.state_trie import EMPTY_ROOT, StateRoot, apply
from storage.text import escape
from storage.transactions import Claim, TransactionKey, claim
from storage.trie_nodes import NodeCache, run_in_transaction
from tests.storage.helpers import insert_nodes

SERVER = ServerName("here.example")
KEY = SigningKey(b"k" * 32, "ed25519:1")
NOW = 1_700_000_000_000


@define
class Suppliers_:
    """Fakes of the other services, all empty at first."""

    receipts_by_room: dict[int, list[Receipt]] = field(factory=dict)
    data: dict[int, list[tuple[int, AccountDatum]]] = field(factory=dict)
    messages: dict[tuple[int, str], list[tuple[int, bytes]]] = field(factory=dict)
    typing_rooms: dict[int, tuple[int, tuple[UserID, ...]]] = field(factory=dict)
    ignored_by: dict[int, frozenset[UserID]] = field(factory=dict)
    counts_by: dict[tuple[int, int], UnreadCount] = field(factory=dict)
    ring: str = "r1"
    position: int = 0
    calls: int = 0

    async def of(self, *args: Any) -> Any:
        """Answer for receipts, ignored users or unread counts, by what is asked."""
        if isinstance(args[0], Session):
            session, rooms, *_ = args
            return {room: self.counts_by.get((session.user_nid, room), UnreadCount()) for room in rooms}
        if isinstance(args[0], int):
            return self.ignored_by.get(args[0], frozenset())
        return {
            room: [each for each in self.receipts_by_room.get(room, []) if refs is None or each.ref in refs]
            for room, refs in args[0].items()
        }

    def begins(self, user_nid: int) -> None:
        """Note nothing."""

    def arrived(self, user_nid: int, pos: int) -> None:
        """Note nothing."""

    async def changed(self, user_nid: int, refs: set[int]) -> Sequence[AccountDatum]:
        """Give account data by number."""
        return [datum for ref, datum in self.data.get(user_nid, []) if ref in refs]

    async def everything(self, user_nid: int) -> Sequence[AccountDatum]:
        """Give all account data."""
        return [datum for _, datum in self.data.get(user_nid, [])]

    async def one(self, user_nid: int, event_type: str) -> bytes | None:
        """Give one type."""
        return None

    async def after(self, session: Session, after: int, limit: int) -> ToDevicePage | None:
        """Give messages to a device."""
        all_of = self.messages.get((session.user_nid, session.device_id), [])
        found = [(ref, raw) for ref, raw in all_of if ref > after][:limit]
        return ToDevicePage([raw for _, raw in found], found[-1][0]) if found else None

    async def delete(self, session: Session, upto: int) -> None:
        """Drop messages to a device."""
        key = (session.user_nid, session.device_id)
        self.messages[key] = [(ref, raw) for ref, raw in self.messages.get(key, []) if ref > upto]

    async def counts(self, session: Session) -> KeyCounts:
        """Give key counts."""
        return KeyCounts({"signed_curve25519": 50}, [])

    def typing(self, room_nids: Sequence[int], after: int | None) -> Mapping[int, Sequence[UserID]]:
        """Give who types."""
        return {
            room: users
            for room, (n, users) in self.typing_rooms.items()
            if room in room_nids and (bool(users) if after is None else n > after)
        }

    async def presence(self, session: Session, after: int | None, wanted: object) -> Sequence[bytes]:
        """Give no presence."""
        return ()


@define(eq=False)
class World:
    """A database with rooms, and a session feed over it."""

    database: Database
    feed: Feed
    nids: Nids
    nodes: NodeCache
    supply: Suppliers_
    now: int = NOW
    next_nid: int = 1
    rooms: dict[int, Room] = field(factory=dict)

    @classmethod
    async def open(cls, database: Database) -> World:
        """Make the tables and start the feed's tail."""
        await migrate(database)
        feed = Feed(database, 4_000_000)
        await feed.start()
        return cls(database, feed, Nids(database), NodeCache(4_000_000), Suppliers_())

    def session_feed(self, *, epoch: int = 1) -> Any:
        """Give a session feed with caches of its own."""
        core = Core(self.database, self.feed, self.nids, self.nodes)
        supply: Any = self.supply
        suppliers = Suppliers(supply, supply, supply, supply, supply, supply, supply, supply)
        self.readers = make_readers(core)
        return make_session_feed(core, self.readers, suppliers, epoch=epoch)

    readers: Any = None
    more_rows: Any = None
    held: list[NewEntry] | None = None

    async def release(self) -> None:
        """Commit all that was held at once."""
        assert self.held is not None
        entries, self.held = self.held, None
        await self.commit(entries)

    async def session(self, user_id: str, device: str = "DEV") -> Session:
        """Give a session of a user."""
        user = UserID(user_id)
        return Session(user, await self.nids.user(user), DeviceID(device))

    async def commit(self, entries: Sequence[NewEntry], work: Any = None) -> list[Entry]:
        """Write rows and entries in one transaction, and let the tail have them.

        While something is `held`, entries are but added to it, to be committed together.
        """
        if self.held is not None:
            self.held += entries
            return []

        def write(tx: Transaction) -> int:
            if work is not None:
                work(tx)
            if self.more_rows is not None:
                run_all(tx, self.more_rows(tx, entries))
            return feed_store.append(tx, entries, "test").first

        first = await self.database.write(write)
        made = [entry.at(pos) for pos, entry in enumerate(entries, first)]
        await self.feed.deliver(made, 0)
        return made

    async def room(self, creator: str, *, visibility: str = "shared", version: str = "11") -> Room:
        """Make a room with a creator in it."""
        nid = len(self.rooms) + 1
        room = Room(self, nid, RoomID(f"!room{nid}:{SERVER}"), version)
        self.rooms[nid] = room
        await self.database.write(
            lambda tx: tx.execute(
                "INSERT INTO rooms (room_nid, room_id, version) VALUES (?, ?, ?)",
                (nid, room.room_id, version),
            )
        )
        await room.send(creator, "m.room.create", {"room_version": version}, "")
        await room.member(creator, creator, "join")
        await room.send(creator, "m.room.power_levels", {"users": {creator: 100}}, "")
        await room.send(creator, "m.room.history_visibility", {"history_visibility": visibility}, "")
        return room


@define(eq=False)
class Room:
    """A room: where its branch stands, and how to add to it."""

    world: World
    nid: int
    room_id: RoomID
    version: str
    root: StateRoot = EMPTY_ROOT
    depth: int = 0
    seq: int = 0
    extremities: tuple[StoredEvent, ...] = ()
    sent: list[StoredEvent] = field(factory=list)

    async def say(self, sender: str, body: str, **content: Any) -> StoredEvent:
        """Send a text message."""
        return await self.send(sender, "m.room.message", {"msgtype": "m.text", "body": body, **content})

    async def member(self, sender: str, target: str, membership: str, **content: Any) -> StoredEvent:
        """Change a membership."""
        return await self.send(sender, "m.room.member", {"membership": membership, **content}, target)

    async def redact(self, sender: str, target: StoredEvent) -> StoredEvent:
        """Redact an event."""
        return await self.send(sender, "m.room.redaction", {}, redacts=target)

    async def redact_in_past(self, target: StoredEvent) -> None:
        """Let history redact an event: caches hear of it, and nobody else."""
        self.seq += 1
        mark = HeadMark(self.seq, self.depth, tuple(each.nid for each in self.extremities))
        redaction = (target.nid, self.nid, target.nid)
        await self.world.commit(
            [NewEntry(Kind.CHANGED, 0, self.nid, None, target.nid, self.root, mark)],
            lambda tx: REDACT.run(tx, [redaction]),
        )

    async def send(
        self,
        sender: str,
        kind: str,
        content: Mapping[str, Any],
        state_key: str | None = None,
        *,
        redacts: StoredEvent | None = None,
        txn: tuple[Session, str] | None = None,
        fork: bool = False,
        root_before: StateRoot | None = None,
        resolved: Mapping[StateKey, int] | None = None,
        status: Status = Status.ACCEPTED,
    ) -> StoredEvent:
        """Add an event after the head, or beside it (`fork`), and commit it with its feed entry.

        `resolved` names further changes of the room's state that resolution makes with it.
        """
        world = self.world
        prev = self.extremities[:1] if fork else self.extremities
        world.now += 1000
        draft = EventDraft(
            self.room_id,
            kind,
            UserID(sender),
            content,
            state_key,
            None if redacts is None else redacts.event.event_id,
        )
        links = Links(tuple(each.event.event_id for each in prev), (), self.depth + (0 if fork else 1))
        event = build_event(
            draft, get_room_version(self.version), links, now=world.now, server_name=SERVER, key=KEY
        )
        world.next_nid += 1
        before = self.root if root_before is None else root_before
        relation = relation_of(event.content)
        thread = relation.relates_to if relation.is_thread else None
        stored = StoredEvent(
            event,
            world.next_nid,
            self.nid,
            status,
            before,
            links.depth,
            await world.nids.user(event.sender),
            0,
            thread,
        )
        member_nid = None
        if kind == "m.room.member" and state_key is not None:
            member_nid = await world.nids.user(UserID(state_key))
        changes: dict[StateKey, int | None] = dict(resolved or {})
        if state_key is not None and not fork:
            changes[kind, state_key] = stored.nid
        await self._commit(stored, changes, member_nid, redacts, txn, fork=fork)
        self.sent.append(stored)
        return stored

    async def _commit(
        self,
        stored: StoredEvent,
        changes: Mapping[StateKey, int | None],
        member_nid: int | None,
        redacts: StoredEvent | None,
        txn: tuple[Session, str] | None,
        *,
        fork: bool,
    ) -> None:
        """Write everything an event brings, then let the feed tell it."""
        event, relation = stored.event, relation_of(stored.event.content)
        row = EventRow(
            self.nid,
            stored.nid,
            event.event_id,
            int(stored.status),
            0,
            stored.depth,
            escape(event.type),
            None if event.state_key is None else escape(event.state_key),
            stored.sender_nid,
            event.origin_server_ts,
            stored.root_before,
            None,
            None,
            None,
            stored.event_class,
            stored.thread,
            relation.rel_type,
            relation.relates_to,
            None,
            event.raw,
        )
        made: list[StateRoot] = []

        def work(tx: Transaction) -> None:
            INSERT.run(tx, [row])
            applied = run_in_transaction(tx, self.nid, apply(self.nid, self.root, changes))
            insert_nodes(tx, self.nid, applied.nodes)
            made.append(applied.root)
            if member_nid is not None and not fork and event.membership is not None:
                local = event.state_key is not None and event.state_key.endswith(SERVER)
                put = (self.nid, member_nid, int(BY_NAME[event.membership]), stored.nid, int(local))
                PUT_MEMBERSHIP.run(tx, [put])
            if redacts is not None:
                REDACT.run(tx, [(stored.nid, self.nid, redacts.nid)])
            if txn is not None:
                key = TransactionKey.of(txn[0].user_nid, txn[0].device_id, ("send", self.room_id), txn[1])
                claim(tx, [Claim(key, NOW, self.nid, stored.nid, event.event_id)])

        if stored.status is not Status.ACCEPTED:
            await self.world.database.write(work)
            return
        # The trie first, in its own transaction, so that the entry can carry the root.
        await self.world.database.write(work)
        self.root, self.seq = made[0], self.seq + 1
        self.extremities = (*self.extremities, stored) if fork else (stored,)
        self.depth = max(self.depth, stored.depth)
        flags = (Flag.MEMBERSHIP if member_nid is not None else 0) | (
            Flag.REDACTION if redacts is not None else 0
        )
        mark = HeadMark(self.seq, self.depth, tuple(each.nid for each in self.extremities))
        await self.world.commit(
            [NewEntry(Kind.EVENT, int(flags), self.nid, member_nid, stored.nid, self.root, mark, stored)]
        )


def event_ids(events: Sequence[StoredEvent]) -> list[EventID]:
    """Give the IDs of events."""
    return [stored.event.event_id for stored in events]
