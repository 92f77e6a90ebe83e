"""Asking other servers about users, aliases, devices, keys and published rooms.

Answers are checked for shape as far as they are passed on; users of other servers than the one asked are
left out of them.

Source: server-server-api.md, "Querying for information", "End-to-End Encryption", "Public Room Directory".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import frozen

from federation.failures import BadAnswer, Refused, passed_on
from federation.listed_rooms import read_page
from federation.paths import V1, path, with_query
from federation.requests import ServerRequest, ServerRequests
from homeserver.rooms.published import MAX_PAGE, DirectoryQuery
from protocol.canonical_json import JsonObject, encode
from protocol.errors import MatrixError
from protocol.identifiers import (
    RoomAlias,
    RoomID,
    ServerName,
    UserID,
    parse_room_id,
    parse_server_name,
    server_of,
)

KEYS_SIZE = 16 * 1024 * 1024
ROOMS_SIZE = 4 * 1024 * 1024
"""Bytes of a page of published rooms."""
MAX_SERVERS = 500
"""Servers read from the answer to an alias."""


@frozen
class AliasTarget:
    """What an alias stands for: a room, and servers that can be asked to join it."""

    room_id: RoomID
    servers: Sequence[ServerName]


@frozen
class FederationQueries:
    """Queries to other servers."""

    requests: ServerRequests

    async def directory(self, alias: RoomAlias) -> AliasTarget:
        """Ask the server of an alias which room it stands for."""
        server = server_of(alias)
        uri = with_query(f"{V1}/query/directory", [("room_alias", alias)])
        answer = await self.requests.signed(ServerRequest(server, "GET", uri, insist=True))
        servers = answer.get("servers")
        try:
            room_id = parse_room_id(answer.get("room_id"))
        except MatrixError:
            raise BadAnswer(server, "no room ID for the alias") from None
        return AliasTarget(room_id, _server_names(servers if isinstance(servers, list) else []))

    async def query_profile(self, user_id: UserID, field: str | None = None) -> JsonObject:
        """Ask the server of a user for the profile, or one field of it.

        A refusal the specification names is passed on: there is no such user, or none may ask.
        """
        query = [("user_id", user_id)] + ([("field", field)] if field is not None else [])
        uri = with_query(f"{V1}/query/profile", query)
        try:
            return await self.requests.signed(ServerRequest(server_of(user_id), "GET", uri))
        except Refused as refused:
            raise passed_on(refused) from None

    async def devices(self, user_id: UserID) -> JsonObject:
        """Ask the server of a user for the device list with its `stream_id`."""
        server = server_of(user_id)
        uri = path(f"{V1}/user/devices", user_id)
        answer = await self.requests.signed(ServerRequest(server, "GET", uri, max_bytes=KEYS_SIZE))
        stream_id, devices = answer.get("stream_id"), answer.get("devices")
        if (
            answer.get("user_id") != user_id
            or not isinstance(stream_id, int)
            or not isinstance(devices, list)
        ):
            raise BadAnswer(server, "not the device list asked for")
        return answer

    async def query_keys(
        self, server: ServerName, device_keys: Mapping[UserID, Sequence[str]], seconds: float = 10
    ) -> JsonObject:
        """Ask a server for identity keys of its users."""
        body = encode({"device_keys": {user: list(ids) for user, ids in device_keys.items()}})
        answer = await self._post(server, "user/keys/query", body, seconds)
        for name in ("device_keys", "master_keys", "self_signing_keys"):
            answer[name] = _of_server(answer.get(name), server)
        return answer

    async def claim_keys(
        self, server: ServerName, one_time_keys: Mapping[UserID, Mapping[str, str]], seconds: float = 10
    ) -> JsonObject:
        """Claim one-time keys of a server's users."""
        body = encode({"one_time_keys": {user: dict(wanted) for user, wanted in one_time_keys.items()}})
        answer = await self._post(server, "user/keys/claim", body, seconds)
        answer["one_time_keys"] = _of_server(answer.get("one_time_keys"), server)
        return answer

    async def public_rooms(self, server: ServerName, query: DirectoryQuery) -> JsonObject:
        """Ask a server for a page of its published rooms; what it says of them is checked."""
        limit = min(query.limit, MAX_PAGE)
        wanted = {"generic_search_term": query.search, "room_types": query.room_types}
        chosen = {name: value for name, value in wanted.items() if value is not None}
        body = {
            "limit": limit,
            "since": query.since,
            "filter": chosen or None,
            "include_all_networks": query.all_networks or None,
            "third_party_instance_id": query.network,
        }
        said = encode({name: value for name, value in body.items() if value is not None})
        uri = f"{V1}/publicRooms"
        answer = await self.requests.signed(ServerRequest(server, "POST", uri, said, ROOMS_SIZE, insist=True))
        return read_page(server, answer, limit)

    async def version(self, server: ServerName) -> JsonObject:
        """Ask which software a server runs."""
        return await self.requests.unsigned(ServerRequest(server, "GET", f"{V1}/version", insist=True))

    async def _post(self, server: ServerName, what: str, body: bytes, seconds: float) -> JsonObject:
        request = ServerRequest(server, "POST", f"{V1}/{what}", body, KEYS_SIZE, seconds)
        return await self.requests.signed(request)


def _of_server(value: object, server: ServerName) -> JsonObject:
    """Keep the entries of a map by user that are of the server's own users."""
    if not isinstance(value, dict):
        return {}
    return {
        user: entry for user, entry in value.items() if server_of(user) == server and isinstance(entry, dict)
    }


def _server_names(items: Sequence[object]) -> list[ServerName]:
    """Keep what is a server name, each once."""
    found: dict[ServerName, None] = {}
    for item in items[:MAX_SERVERS]:
        try:
            found[parse_server_name(item)] = None
        except MatrixError:
            continue
    return list(found)
