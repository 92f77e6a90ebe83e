"""How the services of accounts hang together; `app.py` calls it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import frozen

from homeserver.accounts.account_data import AccountData, DefaultPushRules, DirectRooms, IgnoredUsers
from homeserver.accounts.accounts import Accounts
from homeserver.accounts.devices import Devices
from homeserver.accounts.filters import StoredFilters
from homeserver.accounts.interactive_auth import InteractiveAuth
from homeserver.accounts.jwt_login import OutsideTokens
from homeserver.accounts.last_seen import LastSeen
from homeserver.accounts.login import Login
from homeserver.accounts.passwords import Passwords
from homeserver.accounts.ports import JoinedRooms, RemoteProfiles
from homeserver.accounts.profiles import Profiles, ProfileStores
from homeserver.accounts.push_rules import UserPushRules
from homeserver.accounts.registration import NoteProfile, Registration, forgotten
from homeserver.accounts.room_settings import RoomSettings
from homeserver.accounts.rule_sets import RuleSets
from homeserver.accounts.session_cache import SessionCache
from homeserver.accounts.sessions import Sessions, SessionStores
from homeserver.accounts.tags import Tags
from homeserver.accounts.tickets import Tickets
from homeserver.accounts.token_key import TokenKey
from homeserver.accounts.upkeep import AccountUpkeep
from homeserver.accounts.user_directory import UserDirectory
from homeserver.config.sections import Config
from homeserver.core import Core
from homeserver.devices.news import DeviceNews
from homeserver.http.rate_limits import RateLimiter
from homeserver.threads import Threads

PASSWORD_THREADS = 1
"""One hash at a time: each takes 12 MiB, and a core that the reactor could use."""
MAX_WAITING_PASSWORDS = 200


@frozen(eq=False)
class Keepsakes:
    """What is kept for users, without which rooms cannot be wired."""

    last_seen: LastSeen
    devices: Devices
    data: AccountData
    ignored: IgnoredUsers
    direct: DirectRooms
    tags: Tags
    push_rules: UserPushRules
    rule_sets: RuleSets
    """The same rules, compiled, for whoever judges events."""
    settings: RoomSettings


def make_keepsakes(core: Core, default_rules: DefaultPushRules) -> Keepsakes:
    """Build devices and account data."""
    last_seen = LastSeen(core.database)
    data = AccountData(core.database, core.persister, core.nids, default_rules)
    ignored = IgnoredUsers(data)
    core.feed.add_cache(ignored.apply)
    news = DeviceNews(core.author.server_name, core.database, core.nids, core.clock)
    devices = Devices(core.database, core.persister, core.nids, news, last_seen)
    direct, push_rules, rule_sets = DirectRooms(data, core.nids), UserPushRules(data), RuleSets()
    core.feed.add_cache(rule_sets.apply)
    tags = Tags(data)
    settings = RoomSettings(core.nids, tags, push_rules, direct)
    return Keepsakes(last_seen, devices, data, ignored, direct, tags, push_rules, rule_sets, settings)


@frozen(eq=False)
class AccountParts:
    """All services of accounts."""

    keepsakes: Keepsakes
    accounts: Accounts
    passwords: Passwords
    sessions: Sessions
    tickets: Tickets
    proof: InteractiveAuth
    registration: Registration
    login: Login
    profiles: Profiles
    filters: StoredFilters
    directory: UserDirectory
    upkeep: AccountUpkeep
    workers: Threads


def never() -> bool:
    """Say no: a lone process hears of everything."""
    return False


@frozen(eq=False)
class Neighbours:
    """What accounts need of others."""

    rooms: JoinedRooms
    remote: RemoteProfiles
    limiter: RateLimiter
    token_seed: bytes
    is_behind: Callable[[], bool] = never
    """Tells that this process may not have heard of a logout; the database is asked then."""
    note_profile: NoteProfile = forgotten
    """Is told the profile of a new account, which rooms will want to know."""


def make_accounts(
    core: Core, keepsakes: Keepsakes, neighbours: Neighbours, config: Config, reactor: Any
) -> AccountParts:
    """Build the services of accounts."""
    database, persister, name = core.database, core.persister, core.author.server_name
    workers = Threads(reactor, "passwords", size=PASSWORD_THREADS, bound=MAX_WAITING_PASSWORDS)
    passwords = Passwords(workers, config.auth.password)
    key, cache = TokenKey(neighbours.token_seed, name), SessionCache()
    core.feed.add_cache(cache.apply)
    stores = SessionStores(database, persister, core.nids, cache, keepsakes.devices.news, keepsakes.last_seen)
    accounts = Accounts(database, persister, passwords, keepsakes.devices, neighbours.rooms)

    def note_new(user_nid: int, fields: Mapping[str, str]) -> None:
        neighbours.note_profile(user_nid, fields)
        keepsakes.rule_sets.note_new(user_nid)

    registration = Registration(database, passwords, config.registration, name, note_new)
    return AccountParts(
        keepsakes,
        accounts,
        passwords,
        Sessions(stores, key, config.auth.sessions, config.admins, neighbours.is_behind),
        Tickets(database, key),
        InteractiveAuth(database, key),
        registration,
        Login(name, accounts, passwords, OutsideTokens(config.auth.jwt), registration, neighbours.limiter),
        Profiles(name, ProfileStores(database, persister, core.nids), neighbours.rooms, neighbours.remote),
        StoredFilters(database),
        UserDirectory(database),
        AccountUpkeep(database, keepsakes.last_seen, core.clock),
        workers,
    )
