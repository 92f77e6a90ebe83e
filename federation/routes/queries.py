"""What other servers ask about our aliases, users and published rooms.

Source: server-server-api.md, "Querying for information", "Public Room Directory".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from attrs import frozen

from federation.resident.access import RoomAccess
from homeserver.http.calls import Call
from homeserver.http.routing import Auth, RateClass, Route
from homeserver.rooms.aliases import Aliases
from homeserver.rooms.published import MAX_PAGE, DirectoryQuery, Published
from protocol.errors import BadJson, Forbidden, InvalidParam, Unrecognized
from protocol.identifiers import ServerName, UserID, parse_room_alias, parse_user_id, server_of

V1 = "/_matrix/federation/v1"
MAX_FIELD = 255


class Profiles(Protocol):
    """Reads the profiles of this server's users."""

    async def get_local(self, user_id: UserID) -> Mapping[str, Any]:
        """Give all fields of a profile; raises NotFound for a user who does not exist."""
        ...


@frozen(eq=False)
class QueryRoutes:
    """Answers queries."""

    server_name: ServerName
    aliases: Aliases
    profiles: Profiles
    published: Published
    access: RoomAccess
    directory_is_public: bool
    """Whether other servers may see the published rooms."""

    async def directory(self, call: Call[None]) -> dict[str, Any]:
        """Give the room of one of our aliases."""
        alias = parse_room_alias(call.query.required("room_alias"))
        if server_of(alias) != self.server_name:
            raise InvalidParam("The alias is not of this server")
        found = await self.aliases.resolve_own(alias)
        servers = list(dict.fromkeys((self.server_name, *found.servers)))
        return {"room_id": found.room_id, "servers": servers}

    async def profile(self, call: Call[None]) -> dict[str, Any]:
        """Give the profile of one of our users, or one field of it."""
        user_id = parse_user_id(call.query.required("user_id"))
        if server_of(user_id) != self.server_name:
            raise InvalidParam("The user is not of this server")
        profile = await self.profiles.get_local(user_id)
        field = call.query.get("field")
        if field is None:
            return dict(profile)
        if len(field) > MAX_FIELD:
            raise InvalidParam("The field has too long a name")
        return {field: profile[field]} if field in profile else {}

    async def unknown(self, call: Call[None]) -> dict[str, Any]:
        """Refuse a query of a type that is not known."""
        raise Unrecognized("This server does not know queries of this type")

    async def get_public_rooms(self, call: Call[None]) -> dict[str, Any]:
        """Give a page of the published rooms."""
        self._require_public()
        asked = call.query
        query = DirectoryQuery(
            asked.integer("limit", 0) or MAX_PAGE,
            asked.get("since") or None,
            all_networks=asked.boolean("include_all_networks"),
            network=asked.get("third_party_instance_id") or None,
        )
        return await self._page(call.origin, query)

    async def post_public_rooms(self, call: Call[dict[str, Any]]) -> dict[str, Any]:
        """Give a page of the published rooms that match a filter."""
        self._require_public()
        return await self._page(call.origin, _query(call.body))

    async def _page(self, origin: ServerName, query: DirectoryQuery) -> dict[str, Any]:
        return await self.published.page(query, partial(self.access.may_list, origin))

    def _require_public(self) -> None:
        if not self.directory_is_public:
            raise Forbidden("This server does not show its published rooms to others")

    def routes(self) -> tuple[Route, ...]:
        """List what this family serves."""
        server, limit = Auth.SERVER, RateClass.FEDERATION
        gets = (
            (f"{V1}/query/directory", self.directory),
            (f"{V1}/query/profile", self.profile),
            (f"{V1}/query/{{query_type}}", self.unknown),
            (f"{V1}/publicRooms", self.get_public_rooms),
        )
        return (
            *(Route("GET", path, handler, None, server, limit) for path, handler in gets),
            Route("POST", f"{V1}/publicRooms", self.post_public_rooms, dict, server, limit),
        )


def _query(body: dict[str, Any]) -> DirectoryQuery:
    """Read the body of a filtered query; as some servers write it, a limit of 0 is none and "" is absent."""
    limit, since, given = body.get("limit", 0), body.get("since"), body.get("filter")
    if type(limit) is not int or limit < 0:
        raise BadJson("limit must be an integer of 0 or more")
    if since is not None and not isinstance(since, str):
        raise BadJson("since must be a string")
    if given is not None and not isinstance(given, dict):
        raise BadJson("filter must be an object")
    everywhere, network = body.get("include_all_networks", False), body.get("third_party_instance_id")
    if not isinstance(everywhere, bool):
        raise BadJson("include_all_networks must be true or false")
    if network is not None and not isinstance(network, str):
        raise BadJson("third_party_instance_id must be a string")
    chosen = given or {}
    search, types = chosen.get("generic_search_term"), chosen.get("room_types")
    if search is not None and not isinstance(search, str):
        raise BadJson("filter.generic_search_term must be a string")
    return DirectoryQuery(
        limit or MAX_PAGE, since or None, search or None, _room_types(types), everywhere, network or None
    )


def _room_types(types: object) -> Sequence[str | None] | None:
    if types is None:
        return None
    if not isinstance(types, list) or not all(one is None or isinstance(one, str) for one in types):
        raise BadJson("filter.room_types must be a list of strings and nulls")
    return types
