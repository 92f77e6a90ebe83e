"""The composition root: reads top to bottom how a homeserver is put together, started and stopped.

It alone may import anything. Parts with many pieces of their own are wired beside them: the core
(`core.py`), receiving (`events/wiring.py`), rooms, accounts, what passes, sync, history, federation.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Any

from attrs import frozen
from prometheus_client import CollectorRegistry
from twisted.logger import Logger

from client_api.websocket.wiring import WebSocketApi, WebSocketParts, make_websocket
from client_api.wiring import ClientParts, client_routes, web_routes
from federation.joining import Arrivals
from federation.missing_events import FetchedEvents
from federation.own_keys import OwnKeys
from federation.wiring import (
    Answering,
    Inbound,
    Outgoing,
    Requests,
    SpeakingRights,
    make_access,
    make_inbound,
    make_outgoing,
    make_remote_directories,
    make_remote_rooms,
    make_requests,
)
from homeserver.accounts.local_users import LocalUsers
from homeserver.accounts.push_rules import DefaultRules
from homeserver.accounts.wiring import AccountParts, Neighbours, make_accounts, make_keepsakes, never
from homeserver.clock import Clock
from homeserver.config.sections import Config, ListenerResource
from homeserver.core import SHARE_OF_BODIES, Following, make_core, make_following, writer_name
from homeserver.ephemeral.wiring import Outside, make_passing
from homeserver.epoch import FeedMark, settle_epoch
from homeserver.events.building import Author
from homeserver.events.wiring import make_receiving
from homeserver.history.wiring import make_history
from homeserver.http.dispatch import Doorkeepers
from homeserver.http.metrics import MetricsPage, RequestMetrics
from homeserver.http.rate_limits import RateLimiter
from homeserver.janitor import Janitor
from homeserver.key_files import KeyFile, load_or_make_keys, load_or_make_secret
from homeserver.listening import Doors, ListeningPort, close_listeners, open_listeners
from homeserver.rooms.wiring import Elsewhere, make_rooms
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
from storage.database import Database
from storage.engines import open_database
from storage.migrate import migrate

_log = Logger()


@frozen(eq=False)
class App:
    """A running homeserver."""

    database: Database
    ports: list[ListeningPort]
    outgoing: Outgoing
    inbound: Inbound
    requests: Requests
    accounts: AccountParts
    janitor: Janitor
    following: Following | None
    watchdog: Watchdog
    websocket: WebSocketApi

    async def stop(self) -> None:
        """Take no more connections, finish what is acknowledged, and close everything."""
        await close_listeners(self.ports)
        await self.websocket.stop()
        self.inbound.staged.stop()
        await self.outgoing.stop()
        await self.accounts.upkeep.stop()
        self.accounts.workers.stop()
        if self.following is not None:
            self.following.stop()
        self.janitor.stop()
        self.watchdog.stop()
        await self.requests.agent.close()
        await self.database.close()
        _log.info("stopped")


async def start_app(config: Config, folder: Path, reactor: Any) -> App:
    """Put a homeserver together and start it; `folder` is where relative paths begin."""
    data_dir = folder / config.data_dir
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    keys = load_or_make_keys(data_dir / "signing.key")
    token_seed = load_or_make_secret(data_dir / "token.key")
    url = database_url(config, data_dir)
    database = await open_database(url, reactor, pool_size=config.database.pool_size)
    await migrate(database)

    clock, writer = Clock(reactor), writer_name()
    server_name = ServerName(config.server_name)
    author = Author(server_name, keys.signing, classify)
    core = make_core(database, clock, author, config.caches.budget, writer)
    mark = FeedMark(data_dir / "feed.mark")
    epoch = await settle_epoch(database, mark, clock.now_ms())
    await core.feed.start()
    following = make_following(core, url, reactor, writer)

    own = _own_keys(server_name, keys)
    requests = make_requests(core, own, config.federation, config.outbound, reactor)
    outgoing = make_outgoing(core, requests, clock, writer)
    access = make_access(core)
    receiving = make_receiving(core, FetchedEvents(requests.client))
    arrivals = Arrivals(receiving.imports, receiving.gaps, core.nids)
    remote_rooms = make_remote_rooms(core, own, requests, arrivals, receiving.outside)
    remote_directories = make_remote_directories(requests)

    users = LocalUsers(database)
    keepsakes = make_keepsakes(core, DefaultRules())
    elsewhere = Elsewhere(remote_rooms, remote_directories, receiving.received)
    rooms = make_rooms(core, elsewhere, users, keepsakes.direct, config.federation.default_room_version)
    limiter = RateLimiter(config.rate_limits)
    is_behind = never if following is None else following.follower.is_behind
    neighbours = Neighbours(rooms.own_members, requests.queries, limiter, token_seed, is_behind)
    accounts = make_accounts(core, keepsakes, neighbours, config, reactor)

    outside = Outside(keepsakes.devices, requests.queries, SpeakingRights(access), _sender_of(outgoing))
    passing = make_passing(core, outside, presence=config.presence.enabled)

    masks = MaskCache()
    verdicts = UnreadVerdicts(keepsakes.rule_sets, masks)
    core.persister.write_beside(verdicts.rows)
    unread = UnreadCounter(database, verdicts)
    core.feed.add_cache(verdicts.apply)
    core.feed.add_cache(unread.apply)
    sync_core = sync_wiring.Core(database, core.feed, core.nids, core.nodes)
    budget = int(config.caches.budget * SHARE_OF_BODIES)
    readers = sync_wiring.make_readers(sync_core, bodies_budget=budget)
    suppliers = sync_wiring.Suppliers(
        passing.receipts,
        keepsakes.data,
        passing.to_device,
        passing.keys,
        passing.ring,
        keepsakes.ignored,
        unread,
    )
    session_feed = sync_wiring.make_session_feed(sync_core, readers, suppliers, epoch=epoch)
    history = make_history(sync_core, readers, keepsakes.ignored, receiving.gaps)
    waiters = Waiters(database, readers.rooms, clock)
    core.feed.add_session_listener(waiters.apply)
    passing.ring.on_typing(waiters.wake_room)
    polls = LongPoll(session_feed, waiters, clock)

    answering = Answering(
        receiving, rooms, users, accounts.profiles, passing.keys, passing.incoming.handlers()
    )
    inbound = make_inbound(core, own, requests, access, answering)
    parts = ClientParts(core, rooms, accounts, passing, history, polls, remote_directories, limiter)

    sockets = WebSocketParts(
        accounts.sessions,
        accounts.filters,
        session_feed,
        polls,
        waiters,
        rooms.conversations,
        limiter,
        passing.presences,
    )
    websocket = make_websocket(sockets, core.feed, clock, config)

    registry = CollectorRegistry()
    routes = {
        ListenerResource.CLIENT: (*client_routes(parts, config), *websocket.routes()),
        ListenerResource.WEB: web_routes(parts),
        ListenerResource.FEDERATION: inbound.routes if config.federation.enabled else (),
        ListenerResource.METRICS: MetricsPage(registry).routes() if config.metrics.enabled else (),
    }
    doorkeepers = Doorkeepers(accounts.sessions, requests.authentication, limiter)
    doors = Doors(doorkeepers, RequestMetrics(registry), clock, routes)
    janitor = Janitor(database, core.feed, mark, clock)
    if following is not None:
        following.start()
    janitor.start()
    watchdog = Watchdog(clock, registry)
    watchdog.start()
    accounts.upkeep.start()
    if config.federation.enabled:
        await outgoing.start()
        await inbound.staged.resume()
    ports = open_listeners(config, folder, doors, reactor)
    _log.info("{name} is ready", name=server_name)
    return App(
        database, ports, outgoing, inbound, requests, accounts, janitor, following, watchdog, websocket
    )


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
