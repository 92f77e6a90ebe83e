"""Sessions: begun by a login, named by access tokens, renewed by refresh tokens, ended everywhere at once.

A session has generations. A refresh begins a new one; the one before it stays good until the new one is
first used, since the answer may have been lost. A refresh token older than that is stolen goods: the whole
session ends.

Source: client-server-api/_index.md, "Using access tokens", "Refreshing access tokens", "Soft logout";
security L4, L5, L13.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Sequence

from attrs import frozen

from homeserver.accounts.last_seen import INTERVAL_MS, LastSeen
from homeserver.accounts.requester import Requester
from homeserver.accounts.session_cache import CachedToken, SessionCache
from homeserver.accounts.standing import check_active, check_may_log_in
from homeserver.accounts.token_key import SessionClaims, TokenKey, hash_refresh_token, make_refresh_token
from homeserver.config.sections import Sessions as Lifetimes
from homeserver.devices.news import DeviceChange, DeviceNews
from homeserver.events.nids import Nids
from homeserver.events.persister import Persister
from homeserver.events.write import Write
from protocol.errors import Forbidden, InvalidParam, UnknownToken, UserDeactivated
from protocol.identifiers import DeviceID, UserID
from storage import accounts, devices, sessions
from storage.accounts import AccountRow
from storage.database import Database, Transaction
from storage.devices import SeenRow
from storage.feed import Kind, NewEntry
from storage.sessions import RefreshRow, SessionRow

MAX_DEVICES = 500
MAX_DEVICE_ID = 255
MAX_DISPLAY_NAME = 100
_DEVICE_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@frozen
class DeviceWish:
    """The device a client wants to log in as."""

    device_id: str | None = None
    display_name: str | None = None
    refreshable: bool = False

    def check(self) -> None:
        """See that ID and name are within bounds; raises InvalidParam."""
        if self.device_id is not None and not 0 < len(self.device_id.encode()) <= MAX_DEVICE_ID:
            raise InvalidParam(f"device_id must have 1 to {MAX_DEVICE_ID} bytes")
        check_display_name(self.display_name)


@frozen
class Granted:
    """Tokens for a device."""

    user_id: UserID
    device_id: DeviceID
    access_token: str
    expires_in_ms: int | None = None
    refresh_token: str | None = None

    def fields(self) -> dict[str, object]:
        """Give the tokens as an answer has them."""
        found: dict[str, object] = {"access_token": self.access_token}
        if self.expires_in_ms is not None:
            found["expires_in_ms"] = self.expires_in_ms
        if self.refresh_token is not None:
            found["refresh_token"] = self.refresh_token
        return found


@frozen(eq=False)
class SessionStores:
    """Where sessions are kept."""

    database: Database
    persister: Persister
    nids: Nids
    cache: SessionCache
    news: DeviceNews
    last_seen: LastSeen


class Sessions:
    """Begins, checks, renews and ends sessions."""

    def __init__(
        self,
        stores: SessionStores,
        key: TokenKey,
        lifetimes: Lifetimes,
        admins: Collection[str],
        is_behind: Callable[[], bool],
    ) -> None:
        """Make tokens with `key`; `admins` are administrators by configuration.

        `is_behind` tells that this worker may not have heard of a logout; the database is asked then.
        """
        self._stores = stores
        self._key = key
        self._lifetimes = lifetimes
        self._admins = frozenset(admins)
        self._is_behind = is_behind

    async def begin(self, account: AccountRow, wish: DeviceWish, now: int) -> Granted:
        """Log an account in on a device; a session the device had ends.

        Raises:
            UserDeactivated, UserLocked: the account may not log in.
            Forbidden: its password is not what it was when it was looked up.
            InvalidParam: the wish is out of bounds.
        """
        check_may_log_in(account)
        wish.check()
        device_id = wish.device_id or _make_device_id()
        if wish.device_id is not None:
            await self._end_session_of(account.user_nid, device_id)
        refresh_token = make_refresh_token() if wish.refreshable else None
        kept = None if refresh_token is None else self._kept(refresh_token, now)
        changes = self._stores.cache.changes
        session, replaced, account, unseen = await self._stores.database.write(
            _begin, account, device_id, wish.display_name, kept, now
        )
        if replaced:  # another login on the device at the same time: its token may be in memory
            await self._stores.persister.commit(Write(entries=tuple(_ended(other) for other in replaced)))
        if unseen:
            await self._drop_devices(account.user_nid, unseen)
        claims = SessionClaims(session.session_nid, session.gen, None)
        granted = self._grant(account, device_id, claims, refresh_token, now)
        expires = None if granted.expires_in_ms is None else now + granted.expires_in_ms
        self._remember(granted.access_token, CachedToken(self._requester(account, session), expires), changes)
        return granted

    async def refresh(self, refresh_token: str, now: int) -> Granted:
        """Give new tokens for a refresh token.

        Raises UnknownToken for one that is unknown, expired or used too often, UserDeactivated, UserLocked.
        """
        fresh = make_refresh_token()
        found = await self._stores.database.write(
            _refresh, hash_refresh_token(refresh_token), self._kept(fresh, now), now
        )
        if found is None:
            raise UnknownToken("This refresh token is not known here", soft_logout=False)
        session, account, is_stolen = found
        if is_stolen:
            await self._end((session,))
            raise UnknownToken("This refresh token was used before: the session is over", soft_logout=False)
        # Other workers must hear of it, and this one must look again: older tokens may be dead now.
        await self._stores.persister.commit(Write(entries=(_ended(session),)))
        claims = SessionClaims(session.session_nid, session.gen, None)
        return self._grant(account, session.device_id, claims, fresh, now)

    async def requester(self, token: str, *, ip: str, user_agent: str, now: int) -> Requester:
        """Give whose access token this is; raises UnknownToken."""
        cached = self._stores.cache.get(token, now)
        if cached is None or self._is_behind():
            cached = await self._check(token, now)
        requester = cached.requester
        if now - cached.seen >= INTERVAL_MS:
            cached.seen = now
            self._stores.last_seen.note(SeenRow(requester.user_nid, requester.device_id, now, ip, user_agent))
        return requester

    def expires(self, token: str, now: int) -> int | None:
        """Tell when an access token ends, in milliseconds; None: with its session. Raises UnknownToken."""
        return self._key.read(token, now).expires

    async def _check(self, token: str, now: int) -> CachedToken:
        """Check a token against its session in the database."""
        claims = self._key.read(token, now)
        changes = self._stores.cache.changes
        found = await self._stores.database.read(_load, claims.session_nid)
        if found is None:
            raise UnknownToken("This session is over", soft_logout=False)
        session, account = found
        self._check_generation(claims, session)
        try:
            check_active(account)
        except UserDeactivated:
            raise UnknownToken("This account has been deactivated", soft_logout=False) from None
        if claims.gen > session.used_gen:
            used = sessions.use_rows(session.session_nid, claims.gen)
            await self._stores.persister.commit(Write((used,), (_ended(session),)))
        cached = CachedToken(self._requester(account, session), claims.expires)
        self._remember(token, cached, changes)
        return cached

    def _remember(self, token: str, cached: CachedToken, changes: int) -> None:
        """Keep a token that stands and its user's number; the token not if the feed moved since `changes`."""
        requester = cached.requester
        self._stores.nids.remember_user(requester.user_id, requester.user_nid)
        if self._stores.cache.changes == changes:
            self._stores.cache.put(token, cached)

    def _check_generation(self, claims: SessionClaims, session: SessionRow) -> None:
        """See that a token is of the newest generation, or of the one before while that is not used."""
        is_newest = claims.gen == session.gen
        is_fallback = claims.gen == session.gen - 1 and session.used_gen < session.gen
        if not (is_newest or is_fallback):
            raise UnknownToken("This access token has been replaced", soft_logout=True)

    def _requester(self, account: AccountRow, session: SessionRow) -> Requester:
        user_id = UserID(account.user_id)
        is_admin = account.is_admin or user_id in self._admins
        return Requester(
            user_id,
            account.user_nid,
            DeviceID(session.device_id),
            session.session_nid,
            account.is_guest,
            is_admin,
            account.suspended,
            account.locked,
            account.shadow_banned,
        )

    async def _drop_devices(self, user_nid: int, device_ids: Sequence[str]) -> None:
        """Remove devices that are too many, with their sessions."""
        changes = [DeviceChange(device_id, deleted=True) for device_id in device_ids]
        rows, entries = await self._stores.news.of(user_nid, changes)
        write = Write(
            (*devices.removal_rows(user_nid, device_ids), *rows),
            (NewEntry(Kind.SESSION, user_nid=user_nid), *entries),
        )
        await self._stores.persister.commit(write)

    async def _end_session_of(self, user_nid: int, device_id: str) -> None:
        """End the session that a device has."""
        found = await self._stores.database.read(sessions.of_user, user_nid)
        await self._end([session for session in found if session.device_id == device_id])

    async def _end(self, ended: Collection[SessionRow]) -> None:
        if ended:
            rows = sessions.end_rows([session.session_nid for session in ended])
            await self._stores.persister.commit(Write(rows, tuple(_ended(session) for session in ended)))

    def _kept(self, token: str, now: int) -> tuple[bytes, int | None]:
        """Give hash and expiry of a new refresh token."""
        lifetime = self._lifetimes.refresh_token_lifetime
        return hash_refresh_token(token), now + int(lifetime * 1000) if lifetime else None

    def _grant(
        self, account: AccountRow, device_id: str, claims: SessionClaims, refresh_token: str | None, now: int
    ) -> Granted:
        lifetimes = self._lifetimes
        lifetime = (
            lifetimes.access_token_lifetime
            if refresh_token is None
            else lifetimes.refreshable_access_token_lifetime
        )
        expires_in_ms = int(lifetime * 1000) or None
        expires = None if expires_in_ms is None else now + expires_in_ms
        token = self._key.mint(SessionClaims(claims.session_nid, claims.gen, expires))
        return Granted(UserID(account.user_id), DeviceID(device_id), token, expires_in_ms, refresh_token)


def check_display_name(display_name: str | None) -> None:
    """See that a device's name is not too long; raises InvalidParam."""
    if display_name is not None and len(display_name) > MAX_DISPLAY_NAME:
        raise InvalidParam(f"The display name may have at most {MAX_DISPLAY_NAME} characters")


def _make_device_id() -> str:
    return "".join(secrets.choice(_DEVICE_LETTERS) for _ in range(10))


def _ended(session: SessionRow) -> NewEntry:
    """Give the entry by which all workers forget what they know of a session."""
    return NewEntry(Kind.SESSION, user_nid=session.user_nid, ref=session.session_nid)


def _begin(
    tx: Transaction,
    shown: AccountRow,
    device_id: str,
    display_name: str | None,
    refresh: tuple[bytes, int | None] | None,
    now: int,
) -> tuple[SessionRow, Sequence[SessionRow], AccountRow, list[str]]:
    """Make the device, if it is new, and its session; give it, those it ends, and the devices too many.

    `shown` is the account as it was when somebody proved that it is theirs.
    """
    user_nid = shown.user_nid
    account = accounts.lock(tx, user_nid)
    assert account is not None, "accounts are never deleted"
    check_may_log_in(account)
    if account.password != shown.password:
        raise Forbidden("The password was changed meanwhile")
    devices.ensure(tx, user_nid, device_id, display_name, now)
    session, ended = sessions.begin(tx, user_nid, device_id, now)
    if refresh is not None:
        sessions.put_refresh_token(tx, refresh[0], RefreshRow(session.session_nid, session.gen, refresh[1]))
    return session, ended, account, devices.longest_unseen(tx, user_nid, MAX_DEVICES)


def _load(tx: Transaction, session_nid: int) -> tuple[SessionRow, AccountRow] | None:
    session = sessions.by_nid(tx, session_nid)
    account = None if session is None else accounts.by_nid(tx, session.user_nid)
    return None if session is None or account is None else (session, account)


def _refresh(
    tx: Transaction, token_hash: bytes, fresh: tuple[bytes, int | None], now: int
) -> tuple[SessionRow, AccountRow, bool] | None:
    """Begin a new generation; the last part of the answer tells that the token was used before."""
    given = sessions.refresh_token(tx, token_hash)
    if given is None or (given.expires is not None and given.expires <= now):
        return None
    session = sessions.lock(tx, given.session_nid)
    account = None if session is None else accounts.by_nid(tx, session.user_nid)
    if session is None or account is None:
        return None
    check_may_log_in(account)
    gen = given.gen + 1
    if given.gen == session.gen:
        sessions.set_gen(tx, session.session_nid, gen)
    elif gen != session.gen or session.used_gen == session.gen:
        return session, account, True
    sessions.put_refresh_token(tx, fresh[0], RefreshRow(session.session_nid, gen, fresh[1]))
    return session._replace(gen=gen), account, False
