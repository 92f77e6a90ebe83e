"""The composition root: reads top to bottom how a homeserver is put together, started and stopped.

It alone may import anything. Parts with many pieces of their own are wired beside them: the core
(`core.py`), receiving (`events/wiring.py`), rooms, accounts, what passes, sync, history, federation.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any

from attrs import frozen
from prometheus_client import CollectorRegistry
from twisted.logger import Logger

from client_api.websocket.wiring import WebSocketApi, WebSocketParts, make_websocket
from client_api.wiring import ClientParts, client_routes, web_routes
from federation.identity_keys import IdentityKeys
from federation.joining import Arrivals
from federation.missing_events import FetchedEvents
from federation.own_keys import OwnKeys
from federation.remote_rooms import RemoteDirectories
from federation.resident.access import RoomAccess
from federation.wiring import (
    Answering,
    Inbound,
    Outgoing,
    Requests,
    SpeakingRights,
    make_access,
    make_agent,
    make_inbound,
    make_outgoing,
    make_policies,
    make_remote_directories,
    make_remote_rooms,
    make_requests,
)
from homeserver.accounts.local_users import LocalUsers
from homeserver.accounts.push_rules import DefaultRules
from homeserver.accounts.wiring import AccountParts, Neighbours, make_accounts, make_keepsakes, never
from homeserver.clock import Clock
from homeserver.config.sections import Config, ListenerResource
from homeserver.core import SHARE_OF_BODIES, Core, Following, make_core, make_following, writer_name
from homeserver.ephemeral.wiring import Outside, Passing, make_passing
from homeserver.epoch import FeedMark, settle_epoch
from homeserver.events.building import Author
from homeserver.events.policy import PolicyServers
from homeserver.events.wiring import Receiving, make_receiving
from homeserver.history.wiring import History, make_history
from homeserver.http.dispatch import Doorkeepers
from homeserver.http.metrics import MetricsPage, RequestMetrics
from homeserver.http.rate_limits import RateLimiter
from homeserver.http.routing import Route
from homeserver.janitor import Janitor
from homeserver.key_files import KeyFile, load_or_make_keys, load_or_make_secret
from homeserver.listening import Doors, ListeningPort, close_listeners, open_listeners
from homeserver.reactor import TurnReactor
from homeserver.rooms.wiring import Elsewhere, Kept, Rooms, make_rooms
from homeserver.sync import wiring as sync_wiring
from homeserver.sync.long_poll import LongPoll
from homeserver.sync.waiting import Waiters
from homeserver.unread.counts import UnreadCounter
from homeserver.unread.evaluation import UnreadVerdicts
from homeserver.unread.rules import MaskCache
from homeserver.watchdog import Watchdog
from protocol.canonical_json import JsonObject, encode
from protocol.identifiers import ServerName
from protocol.server_keys import OldKey
from protocol.unread import classify
from storage.engines import open_database
from storage.feed_writers import Writers
from storage.migrate import migrate

_log = Logger()


@frozen(eq=False)
class Foundation:
    """What everything stands on: the core over an open database, and who this server is."""

    config: Config
    folder: Path
    reactor: Any
    core: Core
    own: OwnKeys
    token_seed: bytes
    mark: FeedMark
    epoch: int
    writer: str
    following: Following | None
    figures: CollectorRegistry
    """What is measured."""


@frozen(eq=False)
class Talk:
    """Talk with other servers."""

    requests: Requests
    outgoing: Outgoing
    access: RoomAccess
    policies: PolicyServers
    receiving: Receiving
    directories: RemoteDirectories


@frozen(eq=False)
class Services:
    """What clients and servers call."""

    users: LocalUsers
    rooms: Rooms
    accounts: AccountParts
    passing: Passing
    limiter: RateLimiter


@frozen(eq=False)
class Sight:
    """What clients see: sync, history, the push over WebSockets."""

    history: History
    polls: LongPoll
    websocket: WebSocketApi


@frozen(eq=False)
class App:
    """A running homeserver."""

    base: Foundation
    talk: Talk
    rooms: Rooms
    accounts: AccountParts
    inbound: Inbound
    websocket: WebSocketApi
    janitor: Janitor
    ports: list[ListeningPort]

    async def stop(self) -> None:
        """Take no more connections, finish what is acknowledged, and close everything."""
        await close_listeners(self.ports)
        await self.websocket.stop()
        self.inbound.staged.stop()
        self.rooms.merging.stop()
        await self.talk.outgoing.stop()
        await self.accounts.upkeep.stop()
        self.accounts.workers.stop()
        if self.base.following is not None:
            self.base.following.stop()
        self.janitor.stop()
        await self.talk.requests.agent.close()
        await self.base.core.database.close()
        _log.info("stopped")


async def start_app(config: Config, folder: Path, reactor: Any) -> App:
    """Put a homeserver together and start it; `folder` is where relative paths begin."""
    base = await _lay_foundation(config, folder, reactor)
    talk = _open_talk(base)
    services = _make_services(base, talk)
    sight = _open_sight(base, talk, services)
    inbound = _make_inbound(base, talk, services)
    figures = base.figures
    routes = _routes(base, talk, services, sight, inbound) | {
        ListenerResource.METRICS: MetricsPage(figures).routes() if config.metrics.enabled else ()
    }
    clock, accounts = base.core.clock, services.accounts
    doorkeepers = Doorkeepers(accounts.sessions, talk.requests.authentication, services.limiter)
    doors = Doors(doorkeepers, RequestMetrics(figures), clock, routes)
    janitor = Janitor(base.core.database, base.core.feed, base.mark, clock)
    if base.following is not None:
        base.following.start()
    janitor.start()
    if isinstance(reactor, TurnReactor):
        reactor.tell_turns(Watchdog(figures).turned)
    accounts.upkeep.start()
    if config.federation.enabled:
        await talk.outgoing.start()
        await inbound.staged.resume()
    ports = open_listeners(config, folder, doors, reactor)
    _log.info("{name} is ready", name=config.server_name)
    return App(base, talk, services.rooms, accounts, inbound, sight.websocket, janitor, ports)


async def _lay_foundation(config: Config, folder: Path, reactor: Any) -> Foundation:
    """Read or make the keys, open and migrate the database, and build the core on it."""
    data_dir = folder / config.data_dir
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    keys = load_or_make_keys(data_dir / "signing.key")
    token_seed = load_or_make_secret(data_dir / "token.key")
    url = database_url(config, data_dir)
    database = await open_database(url, reactor, pool_size=config.database.pool_size)
    await migrate(database)
    clock, writers = Clock(reactor), Writers(writer_name())
    author = Author(ServerName(config.server_name), keys.signing, classify)
    core = make_core(database, clock, author, config.caches.budget, writers)
    mark = FeedMark(data_dir / "feed.mark")
    epoch = await settle_epoch(database, mark, clock.now_ms())
    await core.feed.start()
    following = make_following(core, url, reactor, writers)
    own = _own_keys(author.server_name, keys)
    figures = CollectorRegistry()
    return Foundation(
        config, folder, reactor, core, own, token_seed, mark, epoch, writers.own, following, figures
    )


def _open_talk(base: Foundation) -> Talk:
    """Build what asks other servers, sends to them, and places what they send."""
    core, config = base.core, base.config
    agent = make_agent(config.outbound, base.folder, base.reactor)
    requests = make_requests(core, base.own, config.federation, agent, base.reactor)
    policies = make_policies(core, requests)
    return Talk(
        requests,
        make_outgoing(core, requests, core.clock, base.writer),
        make_access(core),
        policies,
        make_receiving(core, FetchedEvents(requests.client), policies),
        make_remote_directories(requests),
    )


def _make_services(base: Foundation, talk: Talk) -> Services:
    """Build rooms, accounts, and what passes."""
    core, config, receiving, requests = base.core, base.config, talk.receiving, talk.requests
    users, limiter = LocalUsers(core.database), RateLimiter(config.rate_limits)
    keepsakes = make_keepsakes(core, DefaultRules())
    arrivals = Arrivals(receiving.imports, receiving.gaps, core.nids)
    remote_rooms = make_remote_rooms(core, base.own, requests, arrivals, receiving.outside)
    elsewhere = Elsewhere(
        remote_rooms, talk.directories, talk.policies, receiving.received, IdentityKeys(requests.agent)
    )
    kept, version = Kept(keepsakes.direct, keepsakes.settings), config.federation.default_room_version
    rooms = make_rooms(core, elsewhere, users, kept, version)
    is_behind = never if base.following is None else base.following.follower.is_behind
    note = rooms.profiles.note
    neighbours = Neighbours(rooms.own_members, requests.queries, limiter, base.token_seed, is_behind, note)
    accounts = make_accounts(core, keepsakes, neighbours, config, base.reactor)
    outside = Outside(
        keepsakes.devices,
        requests.queries,
        SpeakingRights(talk.access),
        _sender_of(talk.outgoing),
        keepsakes.ignored,
    )
    passing = make_passing(
        core,
        outside,
        presence=config.presence.enabled,
        delivery_members=config.limits.delivery_status_members,
    )
    return Services(users, rooms, accounts, passing, limiter)


def _open_sight(base: Foundation, talk: Talk, services: Services) -> Sight:
    """Build sync, history and WebSockets, and let them follow the feed."""
    core, passing, accounts = base.core, services.passing, services.accounts
    keepsakes = accounts.keepsakes
    verdicts = UnreadVerdicts(keepsakes.rule_sets, MaskCache(), core.author.server_name)
    unread = UnreadCounter(core.database, verdicts)
    core.persister.write_beside(verdicts.rows)
    core.feed.add_cache(verdicts.apply)
    core.feed.add_cache(unread.apply)
    sync_core = sync_wiring.Core(core.database, core.feed, core.nids, core.nodes)
    budget = int(base.config.caches.budget * SHARE_OF_BODIES)
    readers = sync_wiring.make_readers(sync_core, bodies_budget=budget)
    suppliers = sync_wiring.Suppliers(
        passing.receipts,
        keepsakes.data,
        passing.to_device,
        passing.keys,
        passing.ring,
        keepsakes.ignored,
        unread,
        passing.deliveries,
    )
    session_feed = sync_wiring.make_session_feed(sync_core, readers, suppliers, epoch=base.epoch)
    waiters = Waiters(core.database, readers.rooms, core.clock)
    core.feed.add_session_listener(waiters.apply)
    passing.wake_by(waiters.wake_room)
    polls = LongPoll(session_feed, waiters, core.clock)
    sockets = WebSocketParts(
        accounts.sessions,
        accounts.filters,
        session_feed,
        polls,
        waiters,
        services.rooms.conversations,
        services.limiter,
        passing.presences,
        accounts.tickets,
    )
    return Sight(
        make_history(sync_core, readers, keepsakes.ignored, talk.receiving.gaps),
        polls,
        make_websocket(sockets, core.feed, core.clock, base.config, base.figures),
    )


def _make_inbound(base: Foundation, talk: Talk, services: Services) -> Inbound:
    """Build what answers other servers."""
    passing = services.passing
    answering = Answering(
        talk.receiving,
        services.rooms,
        services.users,
        services.accounts.profiles,
        passing.keys,
        passing.incoming.handlers(),
        base.writer,
        base.config.federation.public_rooms,
    )
    return make_inbound(base.core, base.own, talk.requests, talk.access, answering)


def _routes(
    base: Foundation, talk: Talk, services: Services, sight: Sight, inbound: Inbound
) -> dict[ListenerResource, Sequence[Route]]:
    """List what each resource of a listener serves."""
    config = base.config
    parts = ClientParts(
        base.core,
        services.rooms,
        services.accounts,
        services.passing,
        sight.history,
        sight.polls,
        talk.directories,
        services.limiter,
    )
    return {
        ListenerResource.CLIENT: (*client_routes(parts, config), *sight.websocket.routes()),
        ListenerResource.WEB: web_routes(parts),
        ListenerResource.FEDERATION: inbound.routes if config.federation.enabled else (),
    }


def database_url(config: Config, data_dir: Path) -> str:
    """Give the database's URL; a relative SQLite file lies in the data folder."""
    prefix, url = "sqlite:///", config.database.url
    if not url.startswith(prefix) or url.startswith(prefix + "/"):
        return url
    return f"{prefix}{(data_dir / url.removeprefix(prefix)).absolute()}"


def _own_keys(server_name: ServerName, keys: KeyFile) -> OwnKeys:
    old = [OldKey(expired.key_id, expired.key, expired.expired_ts) for expired in keys.expired]
    return OwnKeys(server_name, [keys.signing], old)


def _sender_of(outgoing: Outgoing) -> Any:
    """Give what queues passing EDUs: of several under one key the last counts."""

    def send(servers: Iterable[ServerName], edu_type: str, key: Hashable, content: JsonObject) -> None:
        edu = encode({"edu_type": edu_type, "content": content})
        for server in servers:
            outgoing.passing.put(server, key, edu)

    return send
