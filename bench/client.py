"""A user's seat at a server: an account with one connection, and the few requests that workloads make."""

from __future__ import annotations

import itertools
import json
import re
from typing import Any, cast
from urllib.parse import quote, urlencode

from attrs import field, frozen

from bench.wire import Answer, BadAnswer, Connection, build_request

Json = dict[str, Any]
PASSWORD = "correct horse battery staple"
MOST_STEPS = 10
NEXT_BATCH = re.compile(rb'"next_batch":\s*"([^"]*)"')
EVENT_ID = re.compile(rb'"event_id":\s*"([^"]*)"')
MARK = re.compile(rb'"body":\s*"mark-(\d+)"')
"""A message of a workload, told apart by its number."""


@frozen
class Client:
    """One account logged in on one device, with one connection of its own."""

    connection: Connection
    user_id: str
    token: str
    _numbers: itertools.count[int] = field(factory=itertools.count)

    @classmethod
    async def register(cls, port: int, username: str) -> Client:
        """Make an account at the server on a port."""
        connection = Connection(port)
        body = {"username": username, "password": PASSWORD, "auth": {"type": "m.login.dummy"}}
        request = build_request("POST", "/_matrix/client/v3/register", None, json.dumps(body).encode())
        answer = _decode(await connection.exchange(request), "register")
        return cls(connection, answer["user_id"], answer["access_token"])

    def build(self, method: str, path: str, body: object = None) -> bytes:
        """Build an authenticated request below `/_matrix/client`."""
        raw = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        return build_request(method, f"/_matrix/client{path}", self.token, raw)

    async def exchange(self, request: bytes) -> bytes:
        """Send a built request and give the body of its answer, which must be 200."""
        answer = await self.connection.exchange(request)
        if answer.status != 200:
            raise BadAnswer(f"{request[:80]!r} -> {answer.status} {answer.body[:300]!r}")
        return answer.body

    async def call(self, method: str, path: str, body: object = None) -> Json:
        """Make a request and decode its answer: for what is not measured."""
        return cast(Json, json.loads(await self.exchange(self.build(method, path, body))))

    async def create_room(self, **options: object) -> str:
        """Create a public room, and give its ID."""
        return str(
            (await self.call("POST", "/v3/createRoom", {"preset": "public_chat", **options}))["room_id"]
        )

    async def join(self, room_id: str, via: str | None = None) -> None:
        """Join a room."""
        await self.exchange(self.build_join(room_id, via))

    def build_join(self, room_id: str, via: str | None = None) -> bytes:
        """Build a request to join a room."""
        query = "?" + urlencode({"via": via, "server_name": via}) if via else ""
        return self.build("POST", f"/v3/join/{quote(room_id)}{query}", {})

    def build_send(self, room_id: str, mark: int) -> bytes:
        """Build a request that sends the message with a number."""
        path = f"/v3/rooms/{quote(room_id)}/send/m.room.message/t{next(self._numbers)}"
        return self.build("PUT", path, {"msgtype": "m.text", "body": f"mark-{mark}"})

    def build_sync(self, since: str | None, timeout_ms: int, limit: int | None = None) -> bytes:
        """Build a `/sync` request; `limit` is the timeline's."""
        query: dict[str, object] = {"timeout": timeout_ms}
        if since is not None:
            query["since"] = since
        if limit is not None:
            query["filter"] = json.dumps({"room": {"timeline": {"limit": limit}}}, separators=(",", ":"))
        return self.build("GET", f"/v3/sync?{urlencode(query)}")

    async def position(self) -> str:
        """Give the token of now: a server may repeat an old first answer, so follow on from it."""
        since = next_batch(await self.exchange(self.build_sync(None, 0)))
        for _ in range(MOST_STEPS):
            newer = next_batch(await self.exchange(self.build_sync(since, 0)))
            if newer == since:
                break
            since = newer
        return since


def next_batch(body: bytes) -> str:
    """Find a `/sync` answer's token without decoding it."""
    found = NEXT_BATCH.findall(body)
    if not found:
        raise BadAnswer("no next_batch in a sync answer")
    return str(found[-1], "utf-8")


def marks(body: bytes) -> list[int]:
    """Find the numbers of the workload's messages in an answer, in order, without decoding it."""
    return [int(number) for number in MARK.findall(body)]


def _decode(answer: Answer, what: str) -> Json:
    """Decode an answer that must be 200."""
    if answer.status != 200:
        raise BadAnswer(f"{what} -> {answer.status} {answer.body[:300]!r}")
    return cast(Json, json.loads(answer.body))
