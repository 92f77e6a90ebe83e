"""A small Matrix client for tests, the same for every server: plain requests over treq.

It is not a client library: it keeps no state but the access token, and gives bodies as they come.
Following `/sync` over time is in `watching.py`.

Source: client-server-api/_index.md.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import quote, urlencode

import treq
from attrs import field, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.web.client import Agent, HTTPConnectionPool
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent

Json = dict[str, Any]
PASSWORD = "correct horse battery staple"
REQUEST_SECONDS = 60.0


class ApiError(Exception):
    """A server's answer that is not 200."""

    def __init__(self, request: str, status: int, body: object) -> None:
        """Keep the status and body for tests that expect them."""
        super().__init__(f"{request} -> {status} {body}")
        self.status = status
        self.body = body

    @property
    def errcode(self) -> str:
        """Give the Matrix error code, or an empty string."""
        return str(self.body.get("errcode", "")) if isinstance(self.body, Mapping) else ""


def make_agent(reactor: IReactorTime) -> IAgent:
    """Make an agent that keeps no connection open, so that a test leaves the reactor clean."""
    pool = HTTPConnectionPool(reactor, persistent=False)
    return cast(IAgent, Agent(reactor, pool=pool))


@frozen
class Api:
    """Requests to one server's client API."""

    agent: IAgent
    url: str

    async def request(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        token: str | None = None,
        query: Mapping[str, object] | None = None,
    ) -> Json:
        """Make a request below `/_matrix/client`, and give the JSON answer; raise `ApiError` if not 200."""
        url = f"{self.url}/_matrix/client{path}"
        if query:
            url += "?" + urlencode({key: _query_value(value) for key, value in query.items()})
        headers = Headers({"Content-Type": ["application/json"]})
        if token:
            headers.addRawHeader("Authorization", f"Bearer {token}")
        data = None if body is None else json.dumps(body).encode()
        response = await treq.request(
            method, url, data=data, headers=headers, agent=self.agent, timeout=REQUEST_SECONDS
        )
        raw = await treq.content(response)
        answer = json.loads(raw) if raw else {}
        if response.code != 200:
            raise ApiError(f"{method} {path}", response.code, answer)
        return cast(Json, answer)

    async def register(self, username: str) -> User:
        """Register an account with the dummy stage, and give it logged in."""
        body = {"username": username, "password": PASSWORD, "auth": {"type": "m.login.dummy"}}
        answer = await self.request("POST", "/v3/register", body)
        return User(self, answer["user_id"], answer["access_token"], answer["device_id"])

    async def login(self, username: str) -> User:
        """Log in by password on a new device."""
        identifier = {"type": "m.id.user", "user": username}
        body = {"type": "m.login.password", "identifier": identifier, "password": PASSWORD}
        answer = await self.request("POST", "/v3/login", body)
        return User(self, answer["user_id"], answer["access_token"], answer["device_id"])


@frozen
class User:
    """An account logged in on one device of one server."""

    api: Api
    user_id: str
    token: str = field(repr=False)
    device_id: str
    _numbers: itertools.count[int] = field(factory=itertools.count, repr=False, eq=False)

    async def request(
        self, method: str, path: str, body: object = None, query: Mapping[str, object] | None = None
    ) -> Json:
        """Make an authenticated request below `/_matrix/client`."""
        return await self.api.request(method, path, body, token=self.token, query=query)

    async def create_room(self, **options: object) -> str:
        """Create a room and give its ID; options are the body's."""
        return cast(str, (await self.request("POST", "/v3/createRoom", options))["room_id"])

    async def join(self, room: str, via: str | None = None) -> str:
        """Join a room by ID or alias, and give its ID; `via` is a server to ask."""
        query = {"server_name": via, "via": via} if via else None
        answer = await self.request("POST", f"/v3/join/{quote(room, safe='')}", {}, query)
        return cast(str, answer["room_id"])

    async def knock(self, room: str, via: str) -> str:
        """Knock on a room, and give its ID."""
        query = {"server_name": via, "via": via}
        answer = await self.request("POST", f"/v3/knock/{quote(room, safe='')}", {"reason": "please"}, query)
        return cast(str, answer["room_id"])

    async def leave(self, room_id: str) -> None:
        """Leave a room, or refuse its invite."""
        await self.request("POST", f"{_room(room_id)}/leave", {})

    async def member_action(self, room_id: str, action: str, user_id: str) -> None:
        """Do `invite`, `kick`, `ban` or `unban` to a user."""
        await self.request("POST", f"{_room(room_id)}/{action}", {"user_id": user_id})

    async def send(self, room_id: str, content: Json, event_type: str = "m.room.message") -> str:
        """Send a message event and give its ID."""
        path = f"{_room(room_id)}/send/{event_type}/{self.device_id}.{next(self._numbers)}"
        return cast(str, (await self.request("PUT", path, content))["event_id"])

    async def say(self, room_id: str, text: str) -> str:
        """Send a text message and give its event ID."""
        return await self.send(room_id, {"msgtype": "m.text", "body": text})

    async def set_state(self, room_id: str, event_type: str, content: Json, state_key: str = "") -> str:
        """Send a state event and give its ID."""
        path = f"{_room(room_id)}/state/{event_type}/{quote(state_key, safe='')}"
        return cast(str, (await self.request("PUT", path, content))["event_id"])

    async def full_state(self, room_id: str) -> list[Json]:
        """Give all current state events of a room."""
        return cast(list[Json], await self.request("GET", f"{_room(room_id)}/state"))

    async def state(self, room_id: str, event_type: str, state_key: str = "") -> Json:
        """Give the content of a state event."""
        return await self.request("GET", f"{_room(room_id)}/state/{event_type}/{quote(state_key, safe='')}")

    async def redact(self, room_id: str, event_id: str) -> str:
        """Redact an event and give the redaction's ID."""
        path = f"{_room(room_id)}/redact/{quote(event_id, safe='')}/{self.device_id}.{next(self._numbers)}"
        return cast(str, (await self.request("PUT", path, {"reason": "a slip"}))["event_id"])

    async def event(self, room_id: str, event_id: str) -> Json:
        """Give one event."""
        return await self.request("GET", f"{_room(room_id)}/event/{quote(event_id, safe='')}")

    async def messages(self, room_id: str, **query: object) -> Json:
        """Give a page of history; the query is the endpoint's, backwards by default."""
        return await self.request("GET", f"{_room(room_id)}/messages", None, {"dir": "b", **query})

    async def members(self, room_id: str) -> set[str]:
        """Give the user IDs that are joined to a room."""
        answer = await self.request("GET", f"{_room(room_id)}/joined_members")
        return set(answer["joined"])

    async def set_typing(self, room_id: str, typing: bool) -> None:
        """Start or stop typing."""
        path = f"{_room(room_id)}/typing/{quote(self.user_id, safe='')}"
        await self.request("PUT", path, {"typing": True, "timeout": 30000} if typing else {"typing": False})

    async def read(self, room_id: str, event_id: str) -> None:
        """Send a public read receipt."""
        await self.request("POST", f"{_room(room_id)}/receipt/m.read/{quote(event_id, safe='')}", {})

    async def sync(self, since: str | None = None, timeout_ms: int = 0, limit: int = 500) -> Json:
        """Give one `/sync` answer."""
        query: Json = {"timeout": timeout_ms, "filter": {"room": {"timeline": {"limit": limit}}}}
        if since is not None:
            query["since"] = since
        return await self.request("GET", "/v3/sync", None, query)


def _room(room_id: str) -> str:
    """Give the path of a room."""
    return f"/v3/rooms/{quote(room_id, safe='')}"


def _query_value(value: object) -> str:
    """Write a query value: objects as JSON, booleans as Matrix writes them."""
    if isinstance(value, dict):
        return json.dumps(value, separators=(",", ":"))
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
