"""Which users of this server exist: all that rooms and federation ask of accounts."""

from __future__ import annotations

from attrs import frozen

from protocol.errors import Forbidden, NotFound
from protocol.identifiers import RoomID, UserID
from storage import accounts
from storage.database import Database


@frozen(eq=False)
class LocalUsers:
    """Looks accounts up."""

    database: Database

    async def exists(self, user_id: UserID) -> bool:
        """Tell whether there is an active account."""
        found = await self.database.read(accounts.by_id, user_id)
        return found is not None and not found.deactivated

    async def require_allowed(self, sender: UserID, target: UserID, room_id: RoomID) -> None:
        """See that a local user may be invited.

        Raises:
            NotFound: there is no such user.
            Forbidden: the account has ended.
        """
        found = await self.database.read(accounts.by_id, target)
        if found is None:
            raise NotFound(f"There is no user {target}")
        if found.deactivated:
            raise Forbidden(f"{target} takes no invites")
