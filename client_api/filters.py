"""Filters kept on the server.

Source: client-server-api/_index.md, "Filtering".
"""

from __future__ import annotations

from attrs import frozen

from client_api.account_data import own_nid
from client_api.paths import v3
from homeserver.accounts.filters import StoredFilters
from homeserver.http.calls import Call, Json, Reply
from homeserver.http.routing import Auth, RateClass, Route
from homeserver.sync.filters import MAX_FILTER_BYTES

_MAX_BODY = MAX_FILTER_BYTES


@frozen(eq=False)
class FilterRoutes:
    """Keeps filters."""

    filters: StoredFilters

    async def add(self, call: Call[object]) -> Reply:
        """POST /user/{userId}/filter."""
        return {"filter_id": await self.filters.add(own_nid(call), call.raw_body)}

    async def get(self, call: Call[None]) -> Reply:
        """GET /user/{userId}/filter/{filterId}."""
        return Json(await self.filters.get(own_nid(call), call.path["filterId"]))

    def routes(self) -> tuple[Route, ...]:
        """List what this family serves."""
        return (
            Route(
                "POST",
                v3("/user/{userId}/filter"),
                self.add,
                body=dict,
                auth=Auth.GUEST,
                limit=RateClass.WRITES,
                max_body=_MAX_BODY,
                while_suspended=True,
            ),
            Route("GET", v3("/user/{userId}/filter/{filterId}"), self.get, auth=Auth.GUEST),
        )
