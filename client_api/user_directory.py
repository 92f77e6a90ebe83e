"""Finding users by name.

Source: client-server-api/_index.md, "User Directory".
"""

from __future__ import annotations

import msgspec
from attrs import frozen

from client_api.paths import v3
from homeserver.accounts.user_directory import UserDirectory
from homeserver.http.calls import Call, Reply
from homeserver.http.routing import RateClass, Route

DEFAULT_LIMIT = 10


class SearchBody(msgspec.Struct, frozen=True):
    """The body of a search."""

    search_term: str
    limit: int = DEFAULT_LIMIT


@frozen(eq=False)
class UserDirectoryRoutes:
    """Finds users."""

    directory: UserDirectory

    async def search(self, call: Call[SearchBody]) -> Reply:
        """POST /user_directory/search."""
        found, limited = await self.directory.search(
            call.requester.user_nid, call.body.search_term, call.body.limit
        )
        return {"results": found, "limited": limited}

    def routes(self) -> tuple[Route, ...]:
        """List what this family serves."""
        return (
            Route(
                "POST",
                v3("/user_directory/search"),
                self.search,
                body=SearchBody,
                limit=RateClass.READS,
                while_suspended=True,
            ),
        )
