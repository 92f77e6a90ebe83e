"""What accounts ask of rooms: what a member event tells of a local user, and acting in all rooms of one.

Source: client-server-api/_index.md, "Profiles" (events on change of profile information).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

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
from storage.feed import Entry, Kind
from storage.memberships import Membership

MAX_KNOWN = 5_000
_TOLD = ("displayname", "avatar_url")
_log = Logger()


class MemberFields:
    """The part of profiles that rooms are told. Bound: `MAX_KNOWN` users; the longest known goes."""

    def __init__(self, database: Database, nids: Nids) -> None:
        """Start knowing nobody's; `apply` must follow the feed."""
        self._database = database
        self._nids = nids
        self._known: OrderedDict[int, Mapping[str, str]] = OrderedDict()
        self._changes = 0

    async def member_fields(self, user_id: UserID) -> Mapping[str, str]:
        """Give `displayname` and `avatar_url`, those that are set."""
        user_nid = await self._nids.user(user_id)
        known = self._known.get(user_nid)
        if known is None:
            changes = self._changes
            found = (await self._database.read(profiles.of_users, [user_nid], _TOLD))[user_nid]
            fields = {name: decode_own(value) for name, value in found.items()}
            known = {name: value for name, value in fields.items() if isinstance(value, str) and value}
            if changes == self._changes:
                self.note(user_nid, known)
        return known

    def note(self, user_nid: int, fields: Mapping[str, str]) -> None:
        """Remember what is committed, such as the profile of a new account."""
        self._known[user_nid] = fields
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)

    def apply(self, entries: Sequence[Entry]) -> None:
        """Follow the feed: forget what has changed."""
        for entry in entries:
            if entry.kind == Kind.PROFILE and entry.user_nid is not None:
                self._changes += 1
                self._known.pop(entry.user_nid, None)


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
