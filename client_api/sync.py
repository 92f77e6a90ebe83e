"""`GET /sync`: the long poll.

Source: client-server-api/sync.yaml.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Protocol

from attrs import frozen

from client_api.history_calls import session_of
from client_api.paths import v3
from homeserver.accounts.requester import Requester
from homeserver.http.calls import Call, Json, Query, Reply
from homeserver.http.routing import Auth, RateClass, Route
from homeserver.sync.filters import DEFAULT_FILTER, Filter, Filters
from homeserver.sync.long_poll import MAX_TIMEOUT_MS, LongPoll
from homeserver.sync.session import DEFAULT_OPTIONS, STATE, STATE_AFTER, STATE_AFTER_UNSTABLE, Options
from homeserver.sync.tokens import parse_sync_token
from protocol.errors import NotFound, UnknownToken, UserLocked
from protocol.identifiers import UserID

PRESENCES = ("online", "offline", "unavailable")


class StoredFilters(Protocol):
    """Filters that users stored."""

    async def get(self, user_nid: int, filter_id: str) -> bytes | None:
        """Give the JSON of a user's filter, None if there is none."""
        ...


class Heard(Protocol):
    """Is told that a device is there."""

    def heard(self, user_id: UserID, device: str, presence: str = "online") -> None:
        """Note a sign of life."""


class Tokens(Protocol):
    """Knows access tokens."""

    async def requester(self, token: str, *, ip: str, user_agent: str, now: int) -> Requester:
        """Give whose token this is; raises UnknownToken."""
        ...


@frozen(eq=False)
class Sync:
    """Tells clients what changed."""

    polls: LongPoll
    filters: Filters
    stored: StoredFilters
    presences: Heard
    tokens: Tokens

    async def sync(self, call: Call[None]) -> Reply:
        """GET …/sync."""
        query = call.query
        since = query.get("since")
        token = None if since is None else parse_sync_token(since)
        presence = query.choice("set_presence", PRESENCES, "online")
        options = await self._options(call)
        timeout = query.integer("timeout", 0, most=MAX_TIMEOUT_MS)
        if presence != "offline":
            self.presences.heard(call.requester.user_id, call.requester.device_id, presence)
        delta = await self.polls.sync(session_of(call), token, options, timeout, partial(self._stands, call))
        return Json(delta.to_json())

    async def _stands(self, call: Call[None], now: int) -> None:
        """See that whoever waits may still be told; raises UnknownToken or UserLocked.

        A token that has expired or was replaced meanwhile was good when the wait began, which will do.
        """
        try:
            requester = await self.tokens.requester(
                call.access_token, ip=call.ip, user_agent=call.user_agent, now=now
            )
        except UnknownToken as error:
            if not error.extra.get("soft_logout"):
                raise
        else:
            if requester.locked:
                raise UserLocked()

    async def _options(self, call: Call[None]) -> Options:
        """Read what the client asks for beside the position."""
        query: Query = call.query
        full_state = query.boolean("full_state")
        name = STATE
        if query.boolean("use_state_after"):
            name = STATE_AFTER
        elif query.boolean("org.matrix.msc4222.use_state_after"):
            name = STATE_AFTER_UNSTABLE
        wanted = await self._filter(call)
        if wanted is DEFAULT_FILTER and not full_state and name == STATE:
            return DEFAULT_OPTIONS
        return Options(wanted, full_state, name)

    async def _filter(self, call: Call[Any]) -> Filter:
        """Compile the filter: JSON in the query, or the ID of a stored one; raise NotFound, BadJson."""
        text = call.query.get("filter")
        if not text:
            return DEFAULT_FILTER
        if text.startswith("{"):
            return self.filters.compile(text.encode("utf-8", "surrogatepass"))
        raw = await self.stored.get(call.requester.user_nid, text)
        if raw is None:
            raise NotFound("There is no such filter")
        return self.filters.compile(raw)

    def routes(self) -> tuple[Route, ...]:
        """List what this family serves."""
        return (
            Route(
                "GET",
                v3("/sync"),
                self.sync,
                auth=Auth.GUEST,
                limit=RateClass.NONE,
                waits=True,
            ),
        )
