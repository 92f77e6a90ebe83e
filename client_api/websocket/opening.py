"""What an `auth` frame asks for, checked: whose token it is, where to begin, what to filter.

Source: protocol/spec.md, "Authenticating"; security W7, W9, W10.
"""

from __future__ import annotations

from typing import Any, Protocol

from attrs import frozen

from homeserver.accounts.requester import Requester
from homeserver.clock import Clock
from homeserver.sync.feed import SessionFeed
from homeserver.sync.filters import DEFAULT_FILTER, Filter, Filters
from homeserver.sync.session import DEFAULT_OPTIONS, Options
from homeserver.sync.tokens import SyncToken, parse_sync_token
from protocol.canonical_json import dumps
from protocol.errors import InvalidParam, MissingToken, NotFound, UnknownPos, UserLocked
from protocol.frames import Auth

MAX_USER_AGENT = 512
PRESENCES = ("online", "offline", "unavailable")


class Tokens(Protocol):
    """Knows access tokens."""

    async def requester(self, token: str, *, ip: str, user_agent: str, now: int) -> Requester:
        """Give whose token this is; raises UnknownToken."""
        ...

    def expires(self, token: str, now: int) -> int | None:
        """Tell when a token ends; raises UnknownToken."""
        ...


class StoredFilters(Protocol):
    """Filters that users stored."""

    async def get(self, user_nid: int, filter_id: str) -> bytes | None:
        """Give the JSON of a user's filter, None if there is none."""
        ...


@frozen(eq=False)
class Peer:
    """What the handshake said of the client; its `repr` hides the token."""

    ip: str
    address: str
    """What counts as one address: the network, for IPv6."""
    user_agent: str = ""
    token: str | None = None

    def __repr__(self) -> str:
        """Show no token."""
        return f"Peer({self.ip!r})"


@frozen(eq=False)
class Opened:
    """A session that may begin."""

    requester: Requester
    token: str
    expires: int | None
    since: SyncToken | None
    unusable: UnknownPos | None
    """Why the position that was asked for cannot be used."""
    options: Options
    presence: str


@frozen(eq=False)
class Opening:
    """Checks `auth` frames."""

    tokens: Tokens
    feed: SessionFeed
    filters: Filters
    stored: StoredFilters
    clock: Clock

    async def open(self, frame: Auth, peer: Peer) -> Opened:
        """Check all of a first `auth`.

        Raises:
            MissingToken, UnknownToken, UserLocked: nobody, or nobody who may sync.
            BadJson, InvalidParam, NotFound: filter or presence will not do.
        """
        token = frame.token or peer.token
        requester, expires = await self.identify(token, peer, frame.device_info)
        presence = frame.set_presence or "online"
        if presence not in PRESENCES:
            raise InvalidParam(f"set_presence: must be one of {', '.join(PRESENCES)}")
        options = await self._options(frame.filter, requester)
        since, unusable = await self._since(frame.since)
        return Opened(requester, token or "", expires, since, unusable, options, presence)

    async def identify(
        self, token: str | None, peer: Peer, device_info: dict[str, Any] | None = None
    ) -> tuple[Requester, int | None]:
        """Give whose token this is and when it ends; raises MissingToken, UnknownToken, UserLocked."""
        if not token:
            raise MissingToken("token: neither here nor in the handshake")
        told = (device_info or {}).get("user_agent")
        agent = told[:MAX_USER_AGENT] if isinstance(told, str) else peer.user_agent
        now = self.clock.now_ms()
        requester = await self.tokens.requester(token, ip=peer.ip, user_agent=agent, now=now)
        if requester.locked:
            raise UserLocked()
        return requester, self.tokens.expires(token, now)

    async def _options(self, given: dict[str, Any] | str | None, requester: Requester) -> Options:
        """Compile the filter of a session."""
        wanted = await self._filter(given, requester)
        return DEFAULT_OPTIONS if wanted is DEFAULT_FILTER else Options(wanted)

    async def _filter(self, given: dict[str, Any] | str | None, requester: Requester) -> Filter:
        if not given:
            return DEFAULT_FILTER
        raw = await self.stored.get(requester.user_nid, given) if isinstance(given, str) else dumps(given)
        if raw is None:
            raise NotFound("filter: there is no such filter")
        return self.filters.compile(raw)

    async def _since(self, text: str | None) -> tuple[SyncToken | None, UnknownPos | None]:
        """Give the position to begin at, or why the one given cannot be used."""
        if text is None:
            return None, None
        try:
            since = parse_sync_token(text)
            await self.feed.require_known(since)
        except InvalidParam as error:
            return None, UnknownPos(str(error))
        except UnknownPos as error:
            return None, error
        return since, None
