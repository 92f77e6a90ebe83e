"""Our keys, and what we know of others' keys.

Source: server-server-api.md, "Retrieving server keys".
"""

from __future__ import annotations

from typing import Any

from attrs import frozen

from federation.notary import Criteria, Notary
from federation.own_keys import OwnKeys
from federation.server_names import read_server_name
from homeserver.http.calls import Call, Json
from homeserver.http.routing import Auth, RateClass, Route
from protocol.errors import BadJson, MatrixError
from protocol.identifiers import KeyID, ServerName
from protocol.limits import MAX_INTEGER

MAX_KEYS = 64
"""Key IDs read for one server."""


@frozen(eq=False)
class ServerKeys:
    """Tells keys."""

    own: OwnKeys
    notary: Notary

    async def get_own(self, call: Call[None]) -> Json:
        """Give our key document."""
        return Json(self.own.document(call.now))

    async def query_one(self, call: Call[None]) -> Json:
        """Give what we know of one server's keys."""
        server = read_server_name(call.path["server"])
        until = call.query.integer("minimum_valid_until_ts", call.now)
        key_id = call.path.get("key_id", "")
        wanted = {KeyID(key_id): until} if key_id else {}
        return Json(await self.notary.answer({server: Criteria(wanted, until)}, call.now))

    async def query_many(self, call: Call[dict[str, Any]]) -> Json:
        """Give what we know of several servers' keys."""
        asked = call.body.get("server_keys")
        if not isinstance(asked, dict):
            raise BadJson("server_keys must be an object")
        query: dict[ServerName, Criteria] = {}
        for name, criteria in asked.items():
            try:
                server = read_server_name(name)
            except MatrixError:
                continue
            query[server] = Criteria(_keys_wanted(criteria, call.now), call.now)
        return Json(await self.notary.answer(query, call.now))

    def routes(self) -> tuple[Route, ...]:
        """List what this family serves."""
        key = "/_matrix/key/v2"
        limit = RateClass.FEDERATION
        return (
            Route(
                "GET",
                (f"{key}/server", f"{key}/server/{{key_id*}}"),
                self.get_own,
                auth=Auth.NONE,
                limit=limit,
            ),
            Route(
                "GET",
                (f"{key}/query/{{server}}", f"{key}/query/{{server}}/{{key_id*}}"),
                self.query_one,
                auth=Auth.NONE,
                limit=limit,
            ),
            Route("POST", f"{key}/query", self.query_many, dict, Auth.NONE, limit),
        )


def _keys_wanted(criteria: object, now: int) -> dict[KeyID, int]:
    """Read the key IDs wanted of one server, each with the time until which it should be valid."""
    if not isinstance(criteria, dict) or len(criteria) > MAX_KEYS:
        raise BadJson(f"server_keys must hold objects of at most {MAX_KEYS} key IDs")
    wanted: dict[KeyID, int] = {}
    for key_id, criterion in criteria.items():
        until = criterion.get("minimum_valid_until_ts", now) if isinstance(criterion, dict) else now
        if type(until) is not int or not 0 <= until <= MAX_INTEGER:
            raise BadJson("minimum_valid_until_ts must be a time in milliseconds")
        wanted[KeyID(key_id)] = until
    return wanted
