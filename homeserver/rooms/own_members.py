"""What accounts ask of rooms: what a member event tells of a local user, and acting in all rooms of one.

Source: client-server-api/_index.md, "Profiles" (events on change of profile information).
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen
from twisted.logger import Logger

from homeserver.events.nids import Nids
from homeserver.rooms.forgetting import Forgetting
from homeserver.rooms.membership import Memberships
from protocol.canonical_json import decode_own
from protocol.errors import MatrixError
from protocol.identifiers import RoomID, UserID
from storage import memberships, profiles
from storage.database import Database
from storage.memberships import Membership

_TOLD = ("displayname", "avatar_url")
_log = Logger()


@frozen(eq=False)
class MemberFields:
    """Reads the part of a profile that rooms are told."""

    database: Database
    nids: Nids

    async def member_fields(self, user_id: UserID) -> Mapping[str, str]:
        """Give `displayname` and `avatar_url`, those that are set."""
        user_nid = await self.nids.user(user_id)
        found = (await self.database.read(profiles.of_users, [user_nid], _TOLD))[user_nid]
        fields = {name: decode_own(value) for name, value in found.items()}
        return {name: value for name, value in fields.items() if isinstance(value, str) and value}


@frozen(eq=False)
class OwnMembers:
    """Acts in all rooms of a local user."""

    memberships: Memberships
    forgetting: Forgetting

    async def profile_changed(self, user_id: UserID, *, now: int) -> None:
        """Tell the user's rooms of the new profile; a room that refuses it keeps the old."""
        for room_id in await self._rooms(user_id, Membership.JOIN):
            try:
                await self.memberships.refresh_profile(user_id, room_id, now)
            except MatrixError as error:
                _log.info("{room} keeps an old profile: {error}", room=room_id, error=error.error)

    async def leave_all(self, user_id: UserID, *, now: int) -> None:
        """Leave all rooms, reject all invites, take back all knocks."""
        for membership in (Membership.JOIN, Membership.INVITE, Membership.KNOCK):
            for room_id in await self._rooms(user_id, membership):
                try:
                    await self.memberships.leave(user_id, room_id, {}, now)
                except MatrixError as error:
                    _log.info("{room} could not be left: {error}", room=room_id, error=error.error)

    async def _rooms(self, user_id: UserID, membership: Membership) -> list[RoomID]:
        nids = self.forgetting.nids
        user_nid = await nids.user(user_id)
        rows = await self.forgetting.database.read(memberships.rooms_of_user, user_nid, [membership])
        return [(await nids.room_of(row.room_nid)).room_id for row in rows]
