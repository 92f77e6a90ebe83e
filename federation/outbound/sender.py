"""The sender: follows the feed and hands each event built here to the destinations it goes to.

Entries are handled one after another, so that every destination sees them in the order of the feed. What
is handled but not confirmed is held by the destinations; the position kept for a shard stands before it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence

from attrs import define, field, frozen
from twisted.internet.defer import DeferredLock
from twisted.logger import Logger

from federation.outbound.audience import Audiences
from federation.outbound.catch_up import SCAN, PendingPdu, may_go_out
from federation.outbound.destination import Destination, Sending
from federation.outbound.shards import Shards
from federation.ports import EventReader, FeedSource
from homeserver.background import run_in_background
from homeserver.clock import Timer
from homeserver.events.stored import StoredEvent
from homeserver.sync.spans import is_straight
from protocol.identifiers import ServerName
from storage.catch_up import CatchUpStore
from storage.federation_shards import shard_of
from storage.feed import Entry, Flag, Kind
from storage.outbound_edus import Extra

KEEP = 5.0
"""Seconds between two writings of the positions and renewals of the leases."""
FAULT_PAUSE = 5.0
"""Seconds before an entry is tried again after a fault of ours, such as the database being away."""

log = Logger()


@frozen
class Sources:
    """Where the sender reads what it sends."""

    feed: FeedSource
    events: EventReader
    audiences: Audiences
    owed: CatchUpStore


@define(eq=False)
class FederationSender:
    """Sends what this server builds."""

    sources: Sources
    shards: Shards
    _sending: Sending | None = field(default=None, init=False)
    _destinations: dict[ServerName, Destination] = field(factory=dict, init=False)
    _entries: deque[Entry] = field(factory=deque, init=False)
    _seen: int = field(default=0, init=False)
    _dispatched: int = field(default=0, init=False)
    _dispatching: bool = field(default=False, init=False)
    _timer: Timer | None = field(default=None, init=False)
    _stopped: bool = field(default=True, init=False)
    _renewing: DeferredLock = field(factory=DeferredLock, init=False)

    def dispatched(self) -> int:
        """Give the feed position up to which destinations were given their events."""
        return self._dispatched

    async def start(self, sending: Sending) -> None:
        """Begin at the end of the feed; what came before is read back by shards and destinations."""
        self._sending = sending
        self._stopped = False
        self._seen = self._dispatched = self.sources.feed.position
        self.sources.feed.add_session_listener(self._hear)
        sending.backoff.on_recovery(self._recovered)
        await self._renew()
        self._arm()

    async def stop(self) -> None:
        """Send no more, keep the positions, and let other processes take over."""
        self._stopped = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        # What is renewed or taken over just now ends before, or it would hold shards and send for ever after.
        await self._renewing.acquire()
        try:
            for destination in list(self._destinations.values()):
                destination.stop()
            await self.shards.release(self._position_of)
        finally:
            self._renewing.release()

    def wake(self, server: ServerName) -> None:
        """See whether there is something to send to `server`, such as an EDU."""
        if not self._stopped and self.shards.owns(server):
            self._destination(server).poke()

    def _hear(self, entries: Sequence[Entry]) -> None:
        """Note entries of the feed."""
        for entry in entries:
            built_here = entry.kind == Kind.EVENT and entry.flags & Flag.FEDERATE
            if built_here or entry.kind == Kind.OUTBOUND_EDU:
                self._entries.append(entry)
        self._seen = entries[-1].pos
        if self._stopped:
            return
        if not self._dispatching:
            self._dispatching = True
            run_in_background(self._dispatch(), "federation dispatch")

    async def _dispatch(self) -> None:
        """Handle the entries noted, in order."""
        sending = self._parts()
        try:
            while self._entries and not self._stopped:
                entry = self._entries[0]
                try:
                    await self._handle(entry)
                except Exception:
                    log.failure("an entry of the feed cannot be sent yet", pos=entry.pos)
                    await sending.clock.sleep(FAULT_PAUSE)
                    continue
                self._entries.popleft()
                self._dispatched = entry.pos
            self._dispatched = max(
                self._dispatched, self._entries[0].pos - 1 if self._entries else self._seen
            )
        finally:
            self._dispatching = False

    async def _handle(self, entry: Entry) -> None:
        """Hand one entry to its destinations.

        From the first destination on nothing here waits: one that is behind passes the event over, and reads
        back all up to `_dispatched`, which moves right after.
        """
        if entry.kind == Kind.OUTBOUND_EDU:
            await self._wake_for_edu(entry)
            return
        stored = await self._load(entry)
        if stored is None or not may_go_out(stored):
            return
        audience = await self.sources.audiences.of(stored)
        if is_straight(entry) and entry.root is not None and entry.root != stored.root_before:
            self.sources.audiences.follow(stored, entry.root)
        named = [server for server in audience.named if self.shards.owns(server)]
        for server in named:
            extra = Extra(entry.pos, stored.room_nid, stored.nid)
            await self._parts().records.edus.add_extra(server, extra)
        for servers, is_extra in ((audience.members, False), (named, True)):
            pdu = PendingPdu(entry.pos, stored.event, is_extra=is_extra)
            for server in servers:
                if self.shards.owns(server):
                    self._destination(server).add(pdu)

    async def _wake_for_edu(self, entry: Entry) -> None:
        """Wake the destination for which an EDU waits."""
        servers: Iterable[ServerName] = ()
        if isinstance(entry.payload, str):
            servers = (ServerName(entry.payload),)
        elif entry.ref is not None:
            servers = await self._parts().records.edus.servers_of([entry.ref])
        for server in servers:
            for source in self._parts().sources:
                source.queued(server)
            self.wake(server)

    async def _load(self, entry: Entry) -> StoredEvent | None:
        """Give the event of an entry."""
        if isinstance(entry.payload, StoredEvent):
            return entry.payload
        assert entry.room_nid is not None and entry.ref is not None
        return (await self.sources.events.by_nid(entry.room_nid, [entry.ref])).get(entry.ref)

    def _destination(self, server: ServerName) -> Destination:
        destination = self._destinations.get(server)
        if destination is None:
            destination = Destination(server, self._parts(), self.dispatched, self._idle)
            self._destinations[server] = destination
        return destination

    def _idle(self, destination: Destination) -> None:
        """Forget a destination, unless another has taken its place, or what it holds is still to be kept."""
        if not self._stopped and self._destinations.get(destination.server) is destination:
            del self._destinations[destination.server]

    def _recovered(self, server: ServerName) -> None:
        destination = self._destinations.get(server)
        if destination is not None:
            destination.recovered()

    def _parts(self) -> Sending:
        assert self._sending is not None, "the sender is not started"
        return self._sending

    async def _renew(self) -> None:
        """Keep the positions and renew the leases; take over shards gained, let go of those lost."""
        await self._renewing.acquire()
        try:
            if self._stopped:
                return
            gained = await self.shards.renew(self._position_of)
            for server, destination in list(self._destinations.items()):
                if not self.shards.owns(server):
                    destination.stop()
                    self._idle(destination)
            await self._take_over(gained)
        finally:
            self._renewing.release()

    async def _take_over(self, gained: Mapping[int, int]) -> None:
        """Go on where the shards stood: their own positions, the destinations behind, the EDUs waiting."""
        if not gained:
            return
        records = self._parts().records
        upto, first = self._dispatched, min(gained.values())
        # All is read before any begins: one that begins writes its position over the one to be read.
        behind = await records.destinations.behind()
        owed = await self._keep_extras(gained, first, upto)
        if first < upto:
            owed.update(await self.sources.owed.servers_owed(first, upto))
        waiting = await records.edus.waiting()
        for server in [*owed, *(server for server in behind if server not in owed)]:
            shard = shard_of(server)
            if shard in gained:
                positions = [gained[shard]] if server in owed else []
                positions += [behind[server]] if server in behind else []
                self._destination(server).begin_behind(min(positions))
        self._wake_all(gained, waiting)
        self.shards.settle(gained)

    async def _keep_extras(self, gained: Mapping[int, int], first: int, upto: int) -> set[ServerName]:
        """Keep what is owed to servers outside of rooms since the shards' positions, and give these servers.

        Whoever held a shard may have died, or lost it, before it handed these events out.
        """
        found: set[ServerName] = set()
        audiences = self.sources.audiences
        while first < upto:
            moves = await self.sources.owed.memberships(first, upto, SCAN)
            for move in moves:
                stored = (await self.sources.events.by_nid(move.room_nid, [move.event_nid])).get(
                    move.event_nid
                )
                if stored is None or not may_go_out(stored) or not audiences.names_others(stored.event):
                    continue
                for server in (await audiences.of(stored)).named:
                    if move.pos > gained.get(shard_of(server), upto):
                        extra = Extra(move.pos, move.room_nid, move.event_nid)
                        await self._parts().records.edus.add_extra(server, extra)
                        found.add(server)
            first = moves[-1].pos if len(moves) == SCAN else upto
        return found

    def _wake_all(self, gained: Mapping[int, int], servers: Iterable[ServerName]) -> None:
        for server in servers:
            if shard_of(server) in gained:
                self._destination(server).poke()

    def _position_of(self, shard: int) -> int:
        """Give the feed position up to which nothing of a shard waits in memory alone."""
        held = [
            destination.holds
            for server, destination in self._destinations.items()
            if shard_of(server) == shard and destination.holds is not None
        ]
        return min([self._dispatched, *[position for position in held if position is not None]])

    def _arm(self) -> None:
        """Have positions and leases seen to in a while."""
        self._timer = self._parts().clock.call_later(
            KEEP, lambda: run_in_background(self._tend(), "keeping federation positions")
        )

    async def _tend(self) -> None:
        """Write the positions and renew the leases."""
        try:
            await self._renew()
        finally:
            if not self._stopped:
                self._arm()
