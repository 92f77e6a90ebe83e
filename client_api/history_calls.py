"""What the families that read rooms share: sessions of requesters, tokens and filters of queries.

Source: client-server-api/_index.md, "Filtering".
"""

from __future__ import annotations

from typing import Any

from client_api.bodies import room_of
from homeserver.history.presenting import Asker
from homeserver.history.wiring import Askers
from homeserver.http.calls import Call
from homeserver.sync.filters import ALL_EVENTS, MAX_LIMIT, EventFilter, compile_event_filter
from homeserver.sync.session import Session
from homeserver.sync.tokens import FeedToken, HistoryToken, parse_history_token
from protocol.errors import Forbidden, InvalidParam, NotFound


def session_of(call: Call[Any]) -> Session:
    """Give the session of the requester."""
    requester = call.requester
    return Session(requester.user_id, requester.user_nid, requester.device_id)


async def asker_of(call: Call[Any], askers: Askers) -> Asker:
    """Give the asker for the room in the path; raise Forbidden for a room one may not look into."""
    return await askers.of(session_of(call), room_of(call), call.now)


async def asker_of_event(call: Call[Any], askers: Askers) -> Asker:
    """Give the asker for an event of the room in the path; a closed room is as good as none: NotFound."""
    try:
        return await asker_of(call, askers)
    except Forbidden:
        raise NotFound("There is no such event, or you may not see it") from None


def token_of(call: Call[Any], name: str) -> FeedToken | HistoryToken | None:
    """Read a token of the query, of sync or of history; raise InvalidParam."""
    text = call.query.get(name)
    return None if text is None else parse_history_token(text)


def history_token_of(call: Call[Any], name: str) -> HistoryToken | None:
    """Read a token of the query, of history alone; raise InvalidParam."""
    token = token_of(call, name)
    if isinstance(token, FeedToken):
        raise InvalidParam(f"{name}: the token is not one of this endpoint")
    return token


def is_backwards(call: Call[Any], default: str) -> bool:
    """Read the direction; raise InvalidParam for one that is neither `b` nor `f`."""
    return call.query.choice("dir", ("b", "f"), default) == "b"


def limit_of(call: Call[Any], default: int = 10, *, least: int = 1) -> int:
    """Read the limit, at most MAX_LIMIT; raise InvalidParam below `least`."""
    return call.query.integer("limit", default, least=least, most=MAX_LIMIT)


def event_filter_of(call: Call[Any]) -> EventFilter:
    """Read and compile the RoomEventFilter of the query; raise BadJson or TooLarge."""
    text = call.query.get("filter")
    return ALL_EVENTS if text is None else compile_event_filter(text)
