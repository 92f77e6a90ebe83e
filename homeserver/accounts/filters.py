"""Filters that clients keep on the server and name by number.

Source: client-server-api/_index.md, "Filtering"; security D9.
"""

from __future__ import annotations

import hashlib

from attrs import frozen

from homeserver.sync.filters import compile_filter
from protocol.errors import NotFound
from storage import filters
from storage.database import Database

MAX_FILTERS = 200


@frozen(eq=False)
class StoredFilters:
    """The filters of local users."""

    database: Database

    async def add(self, user_nid: int, raw: bytes) -> str:
        """Keep a filter as the client gave it, and name it; raises BadJson or TooLarge."""
        compile_filter(raw)
        digest = hashlib.sha256(raw).digest()
        return str(await self.database.write(filters.add, user_nid, raw, digest, MAX_FILTERS))

    async def get(self, user_nid: int, filter_id: str) -> bytes:
        """Give a filter's JSON; raises NotFound."""
        found = None
        if filter_id.isascii() and filter_id.isdigit() and len(filter_id) < 18:
            found = await self.database.read(filters.one, user_nid, int(filter_id))
        if found is None:
            raise NotFound("There is no such filter")
        return found
