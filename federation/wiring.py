"""How the parts of federation hang together: outgoing requests, incoming routes, and the sender.

`homeserver/app.py` gives what stands outside this layer, and gets back what the services ask for.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from random import SystemRandom
from typing import Any, Protocol

from attrs import frozen
from twisted.internet.defer import DeferredSemaphore
from twisted.internet.threads import deferToThreadPool
from twisted.names.client import createResolver

from federation.authentication import ServerAuthentication
from federation.backoff import Backoff
from federation.client import FederationClient, Transactions
from federation.discovery import Discovery
from federation.handshakes import Handshakes
from federation.inbound.edus import EduHandler, Edus
from federation.inbound.reading import GraphReads
from federation.inbound.sight import Sight
from federation.inbound.staged import StagedPdus
from federation.inbound.transactions import InboundTransactions
from federation.inviting import Inviting
from federation.joining import Arrivals, Joining
from federation.key_fetching import MAX_ASKED_AT_ONCE, KeyFetcher, Notary
from federation.key_ring import KeyRing
from federation.knocking import Knocking
from federation.leaving import Leaving
from federation.notary import Notary as KeyNotary
from federation.outbound.audience import Audiences
from federation.outbound.catch_up import CatchUp
from federation.outbound.destination import Records, Sending
from federation.outbound.edus import DurableEdus, PassingEdus
from federation.outbound.room_servers import ServersAtState
from federation.outbound.sender import FederationSender, Sources
from federation.outbound.shards import Shards
from federation.own_keys import OwnKeys
from federation.pdus import PduChecker
from federation.policy import PolicyRequests
from federation.ports import OutsideMemberships
from federation.queries import FederationQueries
from federation.remote_rooms import RemoteDirectories, RemoteMemberships
from federation.requests import ServerRequests
from federation.resident.access import RoomAccess
from federation.resident.invited import Invitations
from federation.resident.making import Templates
from federation.resident.rooms_given import JoinedRooms
from federation.resident.taking import Submissions
from federation.resident.third_party import ThirdPartyInvites
from federation.routes.events import EventRoutes
from federation.routes.handshakes import HandshakeRoutes
from federation.routes.invites import InviteRoutes
from federation.routes.queries import Profiles, QueryRoutes
from federation.routes.server_keys import ServerKeys
from federation.routes.third_party import ThirdPartyRoutes
from federation.routes.transactions import TransactionRoutes
from federation.routes.user_keys import UserKeyRoutes, UserKeys
from federation.routes.version import Version
from federation.well_known import WellKnown
from homeserver.accounts.local_users import LocalUsers
from homeserver.clock import Clock
from homeserver.config.sections import Federation, Outbound
from homeserver.core import Core
from homeserver.events.policy import PolicyServers
from homeserver.events.texts import EventTexts
from homeserver.events.wiring import Receiving
from homeserver.http.addresses import IpPolicy
from homeserver.http.agent import OutboundAgent
from homeserver.http.dialing import Dialer
from homeserver.http.dns import SystemResolver
from homeserver.http.outbound_tls import OutboundTls
from homeserver.http.routing import Route
from homeserver.rooms.wiring import Rooms
from protocol.identifiers import KeyID, RoomID, ServerName
from protocol.signing import VerifyKey, decode_base64
from storage.catch_up import CatchUpStore
from storage.destinations import DestinationStore
from storage.federation_shards import ShardStore
from storage.outbound_edus import OutboundEduStore
from storage.server_keys import ServerKeyStore

MAX_SENDING_AT_ONCE = 50
"""Transactions under way to all destinations together."""


@frozen(eq=False)
class Requests:
    """Requests to other servers, and what proves theirs."""

    agent: OutboundAgent
    backoff: Backoff
    requests: ServerRequests
    ring: KeyRing
    checker: PduChecker
    client: FederationClient
    queries: FederationQueries
    handshakes: Handshakes
    authentication: ServerAuthentication


def make_requests(
    core: Core, own: OwnKeys, federation: Federation, agent: OutboundAgent, reactor: Any
) -> Requests:
    """Build what speaks to other servers and checks what they say."""
    clock, random, identity = core.clock, SystemRandom(), own.identity
    allowed = federation.allow_list
    allow_list = None if allowed is None else frozenset(map(ServerName, allowed))
    if not federation.enabled:
        allow_list = frozenset()
    backoff = Backoff(DestinationStore(core.database), clock, int(federation.max_backoff * 1000), random)
    resolver = SystemResolver(reactor.nameResolver, createResolver())
    discovery = Discovery(WellKnown(agent, clock), resolver, clock, random)
    requests = ServerRequests(
        identity, agent, discovery, backoff, clock, allow_list, federation.request_timeout
    )
    slots = DeferredSemaphore(MAX_ASKED_AT_ONCE)
    fetcher = KeyFetcher(requests, clock, _notaries(federation), slots)
    ring = KeyRing(own, ServerKeyStore(core.database), fetcher, clock)

    def on_thread(work: Any, *args: Any, **kwargs: Any) -> Any:
        return deferToThreadPool(reactor, reactor.getThreadPool(), work, *args, **kwargs)

    checker = PduChecker(ring, on_thread)
    return Requests(
        agent,
        backoff,
        requests,
        ring,
        checker,
        FederationClient(requests, checker),
        FederationQueries(requests),
        Handshakes(requests, checker),
        ServerAuthentication(identity.server_name, ring, backoff, clock, allow_list),
    )


def make_agent(outbound: Outbound, folder: Path, reactor: Any) -> OutboundAgent:
    """Build the one agent for all outgoing requests; relative paths begin at `folder`."""
    policy = IpPolicy.of(outbound.ip_denylist, outbound.ip_allowlist)
    tls = OutboundTls.of([folder / file for file in outbound.extra_ca_files], outbound.verify_certificates)
    resolver = SystemResolver(reactor.nameResolver, createResolver())
    return OutboundAgent(reactor, Dialer(reactor, resolver, policy, tls))


def make_remote_rooms(
    core: Core, own: OwnKeys, requests: Requests, arrivals: Arrivals, outside: OutsideMemberships
) -> RemoteMemberships:
    """Build what acts in rooms through other servers."""
    clock, random, identity = core.clock, SystemRandom(), own.identity
    handshakes = requests.handshakes
    return RemoteMemberships(
        Joining(identity, handshakes, arrivals, clock, random),
        Knocking(identity, handshakes, outside, clock, random),
        Leaving(identity, handshakes, outside, clock, random),
        Inviting(handshakes),
    )


def make_policies(core: Core, requests: Requests) -> PolicyServers:
    """Build what asks the policy servers of rooms."""
    asking = PolicyRequests(requests.requests)
    return PolicyServers(core.heads, core.stored, asking, core.author.server_name)


def make_remote_directories(requests: Requests) -> RemoteDirectories:
    """Build what asks other servers for names of rooms."""
    return RemoteDirectories(requests.queries)


@frozen(eq=False)
class SpeakingRights:
    """Tells which servers a room's ACL lets speak."""

    access: RoomAccess

    async def may_speak(self, origin: ServerName, room_id: RoomID) -> bool:
        """Tell whether the room is here and takes what the server says."""
        head = await self.access.find(room_id)
        return head is not None and await self.access.allows(origin, head)


@frozen(eq=False)
class Outgoing:
    """What this server sends, and the EDUs that pass."""

    sender: FederationSender
    passing: PassingEdus
    sending: Sending

    async def start(self) -> None:
        """Begin to send."""
        await self.sender.start(self.sending)

    async def stop(self) -> None:
        """Send no more."""
        await self.sender.stop()


def make_outgoing(core: Core, requests: Requests, clock: Clock, holder: str) -> Outgoing:
    """Build the sender; `holder` names this process to others on the same database."""
    database, own_name = core.database, core.author.server_name
    audiences = Audiences(own_name, ServersAtState(core.heads, core.state, core.stored))
    edus, owed = OutboundEduStore(database), CatchUpStore(database)
    sender = FederationSender(
        Sources(core.feed, core.stored, audiences, owed), Shards(ShardStore(database), holder, clock)
    )
    passing = PassingEdus()
    passing.on_waiting(sender.wake)
    sending = Sending(
        own_name,
        Transactions(requests.requests, DeferredSemaphore(MAX_SENDING_AT_ONCE)),
        requests.backoff,
        Records(DestinationStore(database), edus, CatchUp(owed, edus, core.stored, audiences)),
        (DurableEdus(edus), passing),
        clock,
        lambda: secrets.token_urlsafe(12),
    )
    return Outgoing(sender, passing, sending)


@frozen(eq=False)
class Inbound:
    """What other servers may ask of this one."""

    staged: StagedPdus
    routes: tuple[Route, ...]


@frozen(eq=False)
class Answering:
    """What answers other servers need of the services."""

    receiving: Receiving
    rooms: Rooms
    users: LocalUsers
    profiles: Profiles
    keys: UserKeys
    edus: Mapping[str, EduHandler]
    holder: str
    """The name of this process to others on the same database."""
    public_rooms: bool
    """Whether other servers may see the published rooms."""


def make_access(core: Core) -> RoomAccess:
    """Build what tells which servers may see and speak in rooms."""
    return RoomAccess(core.nids, core.heads)


def make_inbound(
    core: Core, own: OwnKeys, requests: Requests, access: RoomAccess, answering: Answering
) -> Inbound:
    """Build what other servers ask for."""
    identity, own_name, checker = own.identity, own.server_name, requests.checker
    receiving, rooms = answering.receiving, answering.rooms
    received, outside = receiving.gaps, receiving.outside
    staged = StagedPdus(core.database, core.nids, received, core.clock, answering.holder)
    transactions = InboundTransactions(
        core.database,
        access,
        checker,
        receiving.received,
        outside,
        staged,
        Edus(answering.edus),
    )
    reads = GraphReads(core.database, core.state, receiving.chains, Sight(access, core.state))
    submissions = Submissions(identity, access, checker, rooms.restricted, received)
    invitations = Invitations(identity, access, checker, answering.users, answering.users, outside)
    third_party = ThirdPartyInvites(
        own_name, access, answering.users, answering.users, rooms.issued, requests.requests
    )
    templates = Templates(own_name, access, rooms.unplaced, rooms.restricted)
    texts = EventTexts(core.database, core.nids)
    families: tuple[Family, ...] = (
        Version(metadata.version("plait")),
        ServerKeys(own, KeyNotary(own, requests.ring)),
        TransactionRoutes(transactions),
        EventRoutes(own_name, reads, texts),
        HandshakeRoutes(templates, submissions, JoinedRooms(own_name, core.state, receiving.chains, texts)),
        InviteRoutes(invitations),
        ThirdPartyRoutes(third_party),
        QueryRoutes(
            own_name, rooms.aliases, answering.profiles, rooms.published, access, answering.public_rooms
        ),
        UserKeyRoutes(own_name, answering.keys),
    )
    return Inbound(staged, tuple(route for family in families for route in family.routes()))


class Family(Protocol):
    """A family of routes."""

    def routes(self) -> tuple[Route, ...]:
        """List what it serves."""
        ...


def _notaries(federation: Federation) -> Sequence[Notary]:
    return [
        Notary(ServerName(each.server_name), _keys_of(each.verify_keys))
        for each in federation.trusted_key_servers
    ]


def _keys_of(listed: Mapping[str, str]) -> Mapping[KeyID, VerifyKey]:
    return {KeyID(key_id): VerifyKey(decode_base64(text)) for key_id, text in listed.items()}
