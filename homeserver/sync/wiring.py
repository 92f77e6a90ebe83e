"""How the parts of sync hang together; `app.py`, tests and bench call it, so that all have the same.

Listeners are registered here in the order they must follow the feed: what renders before what wakes.
"""

from __future__ import annotations

from attrs import frozen

from homeserver.events.nids import Nids
from homeserver.feed.tail import Feed
from homeserver.history.aggregations import Aggregations
from homeserver.history.visibility import Visibility
from homeserver.sync.bodies import Bodies
from homeserver.sync.device_lists import DeviceListChanges
from homeserver.sync.feed import Parts, SessionFeed
from homeserver.sync.invites import Invites
from homeserver.sync.live import LiveRooms
from homeserver.sync.memberships import UserRooms
from homeserver.sync.one_hop import OneHop, Reads
from homeserver.sync.personal_parts import PersonalParts
from homeserver.sync.room_parts import RoomParts
from homeserver.sync.rooms_of_delta import RoomsOfDelta
from homeserver.sync.sent_members import SentMembers
from homeserver.sync.sharing import SharedRooms
from homeserver.sync.shown_rooms import ShownRooms
from homeserver.sync.states import States
from homeserver.sync.summary import Summaries
from homeserver.sync.suppliers import (
    AccountData,
    Deliveries,
    DeviceKeys,
    Ephemeral,
    IgnoredUsers,
    Receipts,
    ToDevice,
    UnreadCounts,
)
from storage.database import Database
from storage.trie_nodes import NodeCache


@frozen(eq=False)
class Suppliers:
    """The services that sync takes parts from."""

    receipts: Receipts
    account_data: AccountData
    to_device: ToDevice
    keys: DeviceKeys
    ephemeral: Ephemeral
    ignored: IgnoredUsers
    unread: UnreadCounts
    deliveries: Deliveries


@frozen(eq=False)
class Core:
    """The parts of the core that sync reads."""

    database: Database
    feed: Feed
    nids: Nids
    nodes: NodeCache


@frozen(eq=False)
class Readers:
    """What reads events for clients: shared by sync and history."""

    bodies: Bodies
    states: States
    visibility: Visibility
    aggregations: Aggregations
    rooms: UserRooms
    hop: OneHop


def make_readers(core: Core, *, bodies_budget: int = 12 * 1024 * 1024) -> Readers:
    """Build what sync and history share, and let it follow the feed."""
    bodies = Bodies(core.database, bodies_budget)
    states = States(core.database, core.nodes)
    visibility = Visibility(states, bodies)
    rooms = UserRooms(core.database, core.feed)
    core.feed.add_cache(bodies.apply)
    core.feed.add_cache(rooms.apply)
    aggregations = Aggregations(core.database, bodies, visibility)
    hop = OneHop(core.database, bodies, core.nodes)
    return Readers(bodies, states, visibility, aggregations, rooms, hop)


def make_session_feed(core: Core, readers: Readers, suppliers: Suppliers, *, epoch: int) -> SessionFeed:
    """Build the session feed."""
    database, bodies, states = core.database, readers.bodies, readers.states
    shared, summaries, sent = SharedRooms(), Summaries(database), SentMembers()
    core.feed.add_cache(shared.apply)
    core.feed.add_cache(summaries.apply)
    reads = Reads(database, bodies, states, readers.visibility, readers.aggregations)
    room_parts = RoomParts(reads, readers.hop, shared, summaries, sent, suppliers.unread)
    invites = Invites(database, bodies, states)
    rooms = RoomsOfDelta(
        database, bodies, room_parts, invites, suppliers.receipts, suppliers.deliveries, summaries
    )
    lists = DeviceListChanges(database, core.nids, states)
    personal = PersonalParts(suppliers.account_data, suppliers.to_device, suppliers.keys, lists)
    live = LiveRooms(core.feed, shared, sent, suppliers.unread)
    parts = Parts(personal, live, ShownRooms(database, bodies, states), rooms, sent)
    return SessionFeed(
        core.feed,
        database,
        readers.rooms,
        parts,
        suppliers.ephemeral,
        suppliers.ignored,
        suppliers.deliveries,
        epoch,
    )
