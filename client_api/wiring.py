"""All endpoints of the client API, listed once; `homeserver/app.py` gives the services."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from attrs import frozen

from client_api.account import Account
from client_api.account_data import AccountDataRoutes
from client_api.auth_fallback import AuthFallback
from client_api.confirming import Confirming
from client_api.devices import DeviceRoutes
from client_api.directory import Directory
from client_api.filters import FilterRoutes
from client_api.history import HistoryReads
from client_api.keys import Keys
from client_api.login import LoginRoutes
from client_api.membership import Membership
from client_api.moderation import Moderation
from client_api.pages import Pages
from client_api.presence import Presence
from client_api.profile import ProfileRoutes
from client_api.push_rules import PushRuleRoutes
from client_api.receipts import Receipts
from client_api.register import Register
from client_api.relations import RelationReads
from client_api.room_events import RoomEvents
from client_api.room_state import RoomStateReads
from client_api.rooms import Rooms as RoomRoutes
from client_api.sync import Sync
from client_api.to_device import ToDevice
from client_api.typing import TypingNotifications
from client_api.user_directory import UserDirectoryRoutes
from client_api.versions import Versions
from homeserver.accounts.wiring import AccountParts
from homeserver.config.sections import Config
from homeserver.core import Core
from homeserver.ephemeral.fully_read import FullyReadMarkers
from homeserver.ephemeral.wiring import Passing
from homeserver.history.wiring import History
from homeserver.http.rate_limits import RateLimiter
from homeserver.http.routing import Route
from homeserver.rooms.ports import RemoteDirectory
from homeserver.rooms.wiring import Rooms
from homeserver.sync.filters import Filters
from homeserver.sync.long_poll import LongPoll


class Family(Protocol):
    """A family of endpoints."""

    def routes(self) -> tuple[Route, ...]:
        """List what it serves."""
        ...


@frozen(eq=False)
class ClientParts:
    """The services that clients call."""

    core: Core
    rooms: Rooms
    accounts: AccountParts
    passing: Passing
    history: History
    polls: LongPoll
    remote: RemoteDirectory
    limiter: RateLimiter


def client_routes(parts: ClientParts, config: Config) -> tuple[Route, ...]:
    """Give every endpoint of the client API but the WebSocket's."""
    families = (*_account_families(parts, config), *_room_families(parts), *_sync_families(parts))
    return tuple(route for family in families for route in family.routes())


def web_routes(parts: ClientParts) -> tuple[Route, ...]:
    """Give the pages for people."""
    return Pages(parts.core.author.server_name).routes()


def _account_families(parts: ClientParts, config: Config) -> Iterator[Family]:
    accounts = parts.accounts
    confirming = Confirming(accounts.accounts, accounts.login, accounts.proof, parts.limiter)
    version = config.federation.default_room_version
    yield Versions(accounts.passwords, version, config.public_baseurl)
    yield Register(accounts.registration, accounts.sessions, accounts.proof)
    yield AuthFallback(accounts.proof, accounts.registration)
    yield LoginRoutes(accounts.login, accounts.sessions, accounts.keepsakes.devices, config.public_baseurl)
    yield Account(accounts.accounts, accounts.keepsakes.devices, confirming)
    yield DeviceRoutes(accounts.keepsakes.devices, confirming)
    yield ProfileRoutes(accounts.profiles)
    yield AccountDataRoutes(accounts.keepsakes.data, accounts.keepsakes.tags)
    yield PushRuleRoutes(accounts.keepsakes.push_rules)
    yield FilterRoutes(accounts.filters)
    yield UserDirectoryRoutes(accounts.directory)
    yield Moderation(parts.core.author.server_name, accounts.accounts)


def _room_families(parts: ClientParts) -> Iterator[Family]:
    rooms, core = parts.rooms, parts.core
    name = core.author.server_name
    yield RoomRoutes(name, rooms.creation, rooms.upgrades)
    yield RoomEvents(rooms.messages)
    yield Membership(rooms.memberships, rooms.inviting, rooms.aliases, rooms.forgetting)
    yield Directory(name, rooms.aliases, rooms.published, parts.remote, core.heads)
    yield HistoryReads(parts.history)
    yield RelationReads(parts.history)
    yield RoomStateReads(parts.history)


def _sync_families(parts: ClientParts) -> Iterator[Family]:
    passing, accounts, core = parts.passing, parts.accounts, parts.core
    yield Sync(parts.polls, Filters(), accounts.filters, passing.presences, accounts.sessions)
    yield Receipts(passing.receipts, FullyReadMarkers(accounts.keepsakes.data, core.nids, core.heads))
    yield TypingNotifications(passing.typing, core.nids)
    yield Presence(passing.presences, passing.ring, passing.sharing)
    yield ToDevice(passing.to_device)
    yield Keys(passing.keys, parts.polls)
