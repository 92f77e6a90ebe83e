"""The core, wired: events, heads, persister and feed over one database, as every process has it.

A part of the composition root that tests and bench use too; nothing here decides anything.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from attrs import frozen

from homeserver.clock import Clock
from homeserver.events.building import Author
from homeserver.events.creating import NewRooms
from homeserver.events.event_store import Events
from homeserver.events.heads import Heads
from homeserver.events.nids import Nids
from homeserver.events.persister import Persister
from homeserver.events.preparing import Preparation
from homeserver.events.room_state import RoomState
from homeserver.events.sending import LocalEvents
from homeserver.feed.following import Follower
from homeserver.feed.tail import Feed
from storage.database import Database, Dialect
from storage.feed_writers import Writers
from storage.trie_nodes import NodeCache, TrieReader

if TYPE_CHECKING:
    from storage.notifications import FeedNotifications

SHARE_OF_EVENTS = 0.3
SHARE_OF_NODES = 0.2
SHARE_OF_HEADS = 0.15
SHARE_OF_RING = 0.2
SHARE_OF_BODIES = 0.15
"""How the memory budget is shared; bodies are the client bytes that sync keeps."""


@frozen(eq=False)
class Core:
    """What all services stand on."""

    database: Database
    clock: Clock
    nids: Nids
    stored: Events
    nodes: NodeCache
    state: RoomState
    heads: Heads
    feed: Feed
    persister: Persister
    events: LocalEvents
    rooms: NewRooms
    author: Author


@frozen(eq=False)
class Following:
    """Hearing of what other processes write to the same database."""

    follower: Follower
    notifications: FeedNotifications

    def start(self) -> None:
        """Begin to follow."""
        self.follower.start()
        self.notifications.start()

    def stop(self) -> None:
        """Follow no more."""
        self.notifications.stop()
        self.follower.stop()


def make_core(database: Database, clock: Clock, author: Author, budget: int, writers: Writers) -> Core:
    """Build the core; `budget` is the memory for all caches in bytes, `writers` names this process."""
    nids = Nids(database)
    stored = Events(database, nids, int(budget * SHARE_OF_EVENTS))
    nodes = NodeCache(int(budget * SHARE_OF_NODES))
    state = RoomState(TrieReader(database, nodes), stored)
    heads = Heads(database, nids, state, author.server_name, int(budget * SHARE_OF_HEADS))
    feed = Feed(database, int(budget * SHARE_OF_RING))
    feed.add_cache(stored.apply)
    feed.add_cache(heads.apply)
    persister = Persister(database, feed, clock, writers=writers, gather=clock.soon)
    preparation = Preparation(nids, stored)
    events = LocalEvents(preparation, heads, state, persister, author, clock)
    rooms = NewRooms(preparation, persister, author)
    return Core(database, clock, nids, stored, nodes, state, heads, feed, persister, events, rooms, author)


def make_following(core: Core, dsn: str, reactor: Any, writers: Writers) -> Following | None:
    """Build what follows other writers; None on SQLite, which has one process alone."""
    if core.database.dialect is not Dialect.POSTGRES:
        return None
    from storage.notifications import FeedNotifications  # its driver takes 4 MB of memory

    follower = Follower(core.feed, core.clock)
    return Following(follower, FeedNotifications(dsn, reactor, writers, follower.moved))


def writer_name() -> str:
    """Make a name for this process that no other has."""
    return secrets.token_hex(8)
