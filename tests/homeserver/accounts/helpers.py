"""Accounts over a real database, as one process has them."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field, frozen

from homeserver.accounts.registration import Newcomer
from homeserver.accounts.sessions import DeviceWish, Granted
from homeserver.accounts.wiring import AccountParts, Neighbours, make_accounts, make_keepsakes, never
from homeserver.clock import Clock
from homeserver.config.sections import Auth, Config, RateLimits, Registration, RegistrationMode
from homeserver.core import Core, make_core
from homeserver.events.building import Author
from homeserver.http.rate_limits import RateLimiter
from protocol.canonical_json import JsonObject
from protocol.errors import NotFound
from protocol.identifiers import ServerName, UserID
from protocol.signing import SigningKey
from protocol.unread import classify
from storage.accounts import AccountRow
from storage.database import Database
from storage.feed_writers import Writers
from storage.migrate import migrate
from tests.storage.helpers import REACTOR

SERVER = ServerName("plait.test")
NOW = 1_700_000_000_000
SEED = b"\7" * 32
PASSWORD = "correct horse"
BUDGET = 8 * 1024 * 1024


@define
class Rooms:
    """Notes what rooms are told."""

    changed: list[UserID] = field(factory=list)
    left: list[UserID] = field(factory=list)

    async def profile_changed(self, user_id: UserID, *, now: int) -> None:
        """Note it."""
        self.changed.append(user_id)

    async def leave_all(self, user_id: UserID, *, now: int) -> None:
        """Note it."""
        self.left.append(user_id)


class NoServers:
    """Knows one user of another server."""

    async def query_profile(self, user_id: UserID, field: str | None) -> JsonObject:
        """Tell of `@remote:far.test`."""
        if user_id != "@remote:far.test":
            raise NotFound("There is no such user")
        return {"displayname": "Remote"}


class Rules:
    """Default push rules that are easy to tell."""

    def content(self, user_id: UserID) -> bytes:
        """Give hardly anything."""
        return b'{"global":{}}'


@frozen(eq=False)
class World:
    """Everything accounts are made of."""

    config: Config
    core: Core
    rooms: Rooms
    parts: AccountParts
    limiter: RateLimiter

    async def register(self, name: str = "alice", *, admin: bool = False) -> AccountRow:
        """Make an account."""
        return await self.parts.registration.register(Newcomer(name, PASSWORD, is_admin=admin), NOW)

    async def login(
        self, account: AccountRow, device_id: str = "PHONE", *, refreshable: bool = False, now: int = NOW
    ) -> Granted:
        """Begin a session."""
        return await self.parts.sessions.begin(account, DeviceWish(device_id, None, refreshable), now)

    def stop(self) -> None:
        """End the threads."""
        self.parts.workers.stop()


OPEN = Registration(mode=RegistrationMode.OPEN)


async def make_world(
    database: Database,
    *,
    registration: Registration = OPEN,
    auth: Auth | None = None,
    rate_limits: RateLimits | None = None,
    writer: str = "one",
    is_behind: Callable[[], bool] = never,
) -> World:
    """Wire accounts over a database, which is migrated if need be."""
    await migrate(database)
    config = Config(
        server_name=SERVER,
        registration=registration,
        auth=auth or Auth(),
        rate_limits=rate_limits or RateLimits(enabled=False),
        public_baseurl="https://matrix.plait.test/",
    )
    author = Author(SERVER, SigningKey(b"\1" * 32, "ed25519:1"), classify)
    core = make_core(database, Clock(REACTOR), author, BUDGET, Writers(writer))
    await core.feed.start()
    rooms, limiter = Rooms(), RateLimiter(config.rate_limits)
    neighbours = Neighbours(rooms, NoServers(), limiter, SEED, is_behind)
    parts = make_accounts(core, make_keepsakes(core, Rules()), neighbours, config, REACTOR)
    return World(config, core, rooms, parts, limiter)
