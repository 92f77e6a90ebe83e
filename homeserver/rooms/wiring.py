"""How the services of rooms hang together; `app.py` calls it."""

from __future__ import annotations

from random import SystemRandom

from attrs import frozen

from homeserver.core import Core
from homeserver.events.policed import PolicedEvents, SignedEvents
from homeserver.events.policy import PolicyServers
from homeserver.events.receiving import ReceivedEvents
from homeserver.events.unplaced import Unplaced
from homeserver.rooms.aliases import Aliases
from homeserver.rooms.annotations import Annotations
from homeserver.rooms.conversations import Conversations
from homeserver.rooms.creation import Creation
from homeserver.rooms.forgetting import Forgetting
from homeserver.rooms.inviting import Inviting, LocalUsers, RemoteInvites
from homeserver.rooms.membership import Memberships
from homeserver.rooms.merging import Merging
from homeserver.rooms.messages import Messages
from homeserver.rooms.own_members import MemberFields, OwnMembers
from homeserver.rooms.pairs import PairRooms
from homeserver.rooms.ports import DirectRooms, RemoteDirectory, RemoteRooms, RoomSettings
from homeserver.rooms.published import Published
from homeserver.rooms.restricted import RestrictedJoins
from homeserver.rooms.succession import Succession
from homeserver.rooms.third_party import IssuedInvites, KeyValidity
from homeserver.rooms.upgrades import Upgrades
from homeserver.rooms.vias import Vias


@frozen(eq=False)
class Elsewhere:
    """Other servers, and what needs them."""

    rooms: RemoteRooms
    directory: RemoteDirectory
    policies: PolicyServers
    received: ReceivedEvents
    identity_keys: KeyValidity


@frozen(eq=False)
class Rooms:
    """All services of rooms."""

    events: PolicedEvents
    unplaced: Unplaced
    restricted: RestrictedJoins
    aliases: Aliases
    published: Published
    inviting: Inviting
    issued: IssuedInvites
    creation: Creation
    memberships: Memberships
    messages: Messages
    upgrades: Upgrades
    forgetting: Forgetting
    conversations: Conversations
    own_members: OwnMembers
    profiles: MemberFields
    merging: Merging


@frozen(eq=False)
class Kept:
    """What users keep of rooms."""

    direct: DirectRooms
    settings: RoomSettings


def make_rooms(
    core: Core, elsewhere: Elsewhere, users: LocalUsers, kept: Kept, default_version: str
) -> Rooms:
    """Build the services of rooms."""
    server_name, heads, nids = core.author.server_name, core.heads, core.nids
    unplaced = Unplaced(heads, core.author)
    signed = SignedEvents(unplaced, elsewhere.policies, elsewhere.received, core.stored)
    events = PolicedEvents(core.events, signed, nids, core.database)
    profiles = MemberFields(core.database, nids)
    core.feed.add_cache(profiles.apply)
    aliases = Aliases(server_name, core.database, nids, heads, elsewhere.directory)
    published = Published(core.database, nids, heads)
    invites = RemoteInvites(signed, elsewhere.rooms)
    inviting = Inviting(heads, nids, events, invites, profiles, users)
    creation = Creation(server_name, default_version, core.rooms, inviting, aliases, published, profiles)
    restricted = RestrictedJoins(server_name, heads, nids)
    succession = Succession(heads, kept.settings)
    vias = Vias(server_name, core.database, nids, core.stored)
    memberships = Memberships(heads, nids, events, elsewhere.rooms, profiles, restricted, vias, succession)
    merging = Merging(events, heads, core.clock, SystemRandom())
    core.feed.add_session_listener(merging.apply)
    forgetting = Forgetting(core.database, nids, core.persister)
    pairs = PairRooms(core.database, nids, core.feed, core.clock)
    return Rooms(
        events,
        unplaced,
        restricted,
        aliases,
        published,
        inviting,
        IssuedInvites(server_name, events, invites, profiles, elsewhere.identity_keys),
        creation,
        memberships,
        Messages(events, aliases, Annotations(core.database, nids)),
        Upgrades(heads, nids, core.state, events, creation, aliases, published, succession),
        forgetting,
        Conversations(server_name, heads, pairs, creation, memberships, kept.direct),
        OwnMembers(memberships, forgetting),
        profiles,
        merging,
    )
