"""A whole federating server over a network in memory: core, federation, routes, a site with TLS."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from random import SystemRandom
from typing import Any, cast

from attrs import frozen
from prometheus_client import CollectorRegistry

from federation.authentication import ServerAuthentication
from federation.client import FederationClient
from federation.handshakes import Handshakes
from federation.identity_keys import IdentityKeys
from federation.inviting import Inviting
from federation.joining import Arrivals, Joining
from federation.knocking import Knocking
from federation.leaving import Leaving
from federation.missing_events import FetchedEvents
from federation.notary import Notary
from federation.pdus import PduChecker
from federation.policy import PolicyRequests
from federation.queries import FederationQueries
from federation.remote_rooms import RemoteDirectories, RemoteMemberships
from federation.resident.access import RoomAccess
from federation.resident.invited import Invitations
from federation.resident.making import Templates
from federation.resident.rooms_given import JoinedRooms
from federation.resident.taking import Submissions
from federation.resident.third_party import ThirdPartyInvites
from federation.routes.handshakes import HandshakeRoutes
from federation.routes.invites import InviteRoutes
from federation.routes.queries import QueryRoutes
from federation.routes.server_keys import ServerKeys
from federation.routes.third_party import ThirdPartyRoutes
from federation.routes.version import Version
from homeserver.config.sections import RateLimits
from homeserver.events.auth_chains import AuthChains
from homeserver.events.gaps import Gaps
from homeserver.events.importing import RoomImport
from homeserver.events.outliers import OutlierJudge
from homeserver.events.outside import OutsideMemberships
from homeserver.events.past import Past
from homeserver.events.placing import Placing
from homeserver.events.policed import PolicedEvents, SignedEvents
from homeserver.events.policy import PolicyServers
from homeserver.events.received_store import Store
from homeserver.events.receiving import ReceivedEvents
from homeserver.events.resolution import Resolver
from homeserver.events.texts import EventTexts
from homeserver.http.client_address import TrustedProxies
from homeserver.http.dispatch import Dispatcher, Doorkeepers
from homeserver.http.metrics import RequestMetrics
from homeserver.http.rate_limits import RateLimiter
from homeserver.http.request import ServerSettings
from homeserver.http.routing import RouteTable
from homeserver.http.site import HttpSite
from homeserver.rooms.inviting import RemoteInvites
from homeserver.rooms.published import Published
from homeserver.rooms.third_party import IssuedInvites
from protocol.errors import UnknownToken
from protocol.events import Event
from protocol.identifiers import RoomID, ServerName, UserID
from tests.federation.core import Core, run_now
from tests.federation.helpers import HERE, World


class Everybody:
    """All users of this server exist, and take invites."""

    async def exists(self, user_id: UserID) -> bool:
        """Say yes."""
        return True

    async def require_allowed(self, sender: UserID, target: UserID, room_id: RoomID) -> None:
        """Allow it."""


class NoProfiles:
    """Nobody has a name or a picture."""

    async def member_fields(self, user_id: UserID) -> Mapping[str, str]:
        """Give nothing."""
        return {}


class NoTokens:
    """No client has a token."""

    async def requester(self, token: str, *, ip: str, user_agent: str, now: int) -> Any:
        """Refuse."""
        raise UnknownToken("no")


@frozen
class Receiving:
    """The parts of the core that take in events of others."""

    received: ReceivedEvents
    imports: RoomImport
    outside: OutsideMemberships
    gaps: Gaps
    chains: AuthChains


class Plait:
    """A server, reachable by its name on the network of its world."""

    def __init__(self, directory: Path, name: ServerName = HERE, beside: Plait | None = None) -> None:
        """Wire everything and listen."""
        self.world = World(directory, name=name, beside=None if beside is None else beside.world)
        self.core = Core(self.world)
        self.checker = PduChecker(self.world.ring, run_now)
        self.client = FederationClient(self.world.requests, self.checker)
        self.policies = PolicyServers(
            self.core.heads, self.core.stored, PolicyRequests(self.world.requests), name
        )
        self.receiving = self._receiving()
        self.signed = SignedEvents(
            self.core.unplaced, self.policies, self.receiving.received, self.core.stored
        )
        self.events = PolicedEvents(self.core.events, self.signed, self.core.nids, self.world.database)
        self.remote = self._remote()
        invites = RemoteInvites(self.signed, self.remote)
        identity_keys = IdentityKeys(self.world.agent)
        self.issued = IssuedInvites(name, self.events, invites, NoProfiles(), identity_keys)
        self.published = Published(self.world.database, self.core.nids, self.core.heads)
        self.directories = RemoteDirectories(FederationQueries(self.world.requests))
        self.world.listen(name, self._site())

    def _receiving(self) -> Receiving:
        core, world = self.core, self.world
        store = Store(world.database, core.nids, core.state, core.heads, core.persister, world.clock)
        received = ReceivedEvents(store, Placing(Resolver(), core.author), self.policies)
        judge = OutlierJudge(core.author, world.clock)
        past = Past(store, received, judge, core.author)
        fetch = FetchedEvents(self.client)
        return Receiving(
            received,
            RoomImport(store, received, judge, core.author),
            OutsideMemberships(store, core.author),
            Gaps(received, past, fetch, core.nids, core.heads, world.clock, world.name),
            AuthChains(world.database, core.stored, core.nids),
        )

    def _remote(self) -> RemoteMemberships:
        world, receiving, random = self.world, self.receiving, SystemRandom()
        handshakes = Handshakes(world.requests, self.checker)
        arrivals = Arrivals(receiving.imports, receiving.gaps, self.core.nids)
        identity, clock = world.own.identity, world.clock
        return RemoteMemberships(
            Joining(identity, handshakes, arrivals, clock, random),
            Knocking(identity, handshakes, receiving.outside, clock, random),
            Leaving(identity, handshakes, receiving.outside, clock, random),
            Inviting(handshakes),
        )

    def _site(self) -> HttpSite:
        core, world, receiving = self.core, self.world, self.receiving
        identity, everybody = world.own.identity, Everybody()
        access, unasked = RoomAccess(core.nids, core.heads), cast(Any, None)
        families = (
            ServerKeys(world.own, Notary(world.own, world.ring)),
            Version("1"),
            HandshakeRoutes(
                Templates(world.name, access, core.unplaced, core.restricted),
                Submissions(identity, access, self.checker, core.restricted, receiving.gaps),
                JoinedRooms(world.name, core.state, receiving.chains, EventTexts(world.database, core.nids)),
            ),
            ThirdPartyRoutes(
                ThirdPartyInvites(world.name, access, everybody, everybody, self.issued, world.requests)
            ),
            QueryRoutes(world.name, unasked, unasked, self.published, access, True),
            InviteRoutes(
                Invitations(identity, access, self.checker, everybody, everybody, receiving.outside)
            ),
        )
        table = RouteTable(route for family in families for route in family.routes())
        servers = ServerAuthentication(world.name, world.ring, world.backoff, world.clock)
        keepers = Doorkeepers(NoTokens(), servers, RateLimiter(RateLimits(enabled=False)))
        dispatcher = Dispatcher(table, keepers, RequestMetrics(CollectorRegistry()), world.clock, 1000)
        return HttpSite(ServerSettings(dispatcher, world.clock, max_body=1 << 20, proxies=TrustedProxies(())))

    def join(self, user_id: UserID, room_id: RoomID, via: ServerName) -> None:
        """Join a room through another server."""
        self.world.network.outcome(self.remote.join(user_id, room_id, [via], {"membership": "join"}), 120)

    def state(self, room_id: RoomID) -> dict[tuple[str, str], Event]:
        """Give the state of a room as this server has it."""
        return {event.key: event for event in self.core.state_of(room_id)}
