"""Finding users of this server by name: those in published rooms, and those one shares a room with.

Names come from profiles alone, never from member events, so a name used in a private room stays there.

Source: client-server-api/_index.md, "User Directory"; security C7, A8.
"""

from __future__ import annotations

from attrs import frozen

from homeserver.accounts.profiles import IN_ROOMS
from protocol.canonical_json import JsonObject, decode_own
from storage import accounts, profiles
from storage.database import Database, Transaction

MAX_RESULTS = 50
MAX_TERM = 256


@frozen(eq=False)
class UserDirectory:
    """Searches users."""

    database: Database

    async def search(self, asker_nid: int, term: str, limit: int) -> tuple[list[JsonObject], bool]:
        """Give users with their profiles, and whether there are more; an empty term finds nobody."""
        folded = term.strip().removeprefix("@").partition(":")[0][:MAX_TERM].casefold()
        if not folded:
            return [], False
        bound = max(1, min(limit, MAX_RESULTS))
        found = await self.database.read(_search, asker_nid, folded, bound + 1)
        return found[:bound], len(found) > bound


def _search(tx: Transaction, asker_nid: int, term: str, limit: int) -> list[JsonObject]:
    users = accounts.search(tx, asker_nid, term, limit)
    fields = profiles.of_users(tx, [user_nid for _, user_nid in users], IN_ROOMS)
    names = {"displayname": "display_name", "avatar_url": "avatar_url"}
    return [
        {"user_id": user_id} | {names[field]: decode_own(value) for field, value in fields[user_nid].items()}
        for user_id, user_nid in users
    ]
