"""What accounts need of other services, as small protocols; `homeserver/app.py` joins them."""

from __future__ import annotations

from typing import Protocol

from protocol.canonical_json import JsonObject
from protocol.identifiers import UserID


class JoinedRooms(Protocol):
    """Acts in all rooms of a local user."""

    async def profile_changed(self, user_id: UserID, *, now: int) -> None:
        """Tell every room the user is joined in of the new name and avatar, by a member event."""

    async def leave_all(self, user_id: UserID, *, now: int) -> None:
        """Leave every room, and reject every invite: the account has ended."""


class RemoteProfiles(Protocol):
    """Asks other servers what their users tell of themselves."""

    async def query_profile(self, user_id: UserID, field: str | None) -> JsonObject:
        """Give a profile, or one field of it; raises `NotFound` if there is none."""
        ...
