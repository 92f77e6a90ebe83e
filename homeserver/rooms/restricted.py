"""Restricted joins: who may join without an invite because of being in another room.

Source: client-server-api/_index.md, "Restricted rooms"; server-server-api.md, "Restricted rooms"; rooms/v8.md
and v10.md, "Authorization rules".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from attrs import frozen

from homeserver.events.heads import Heads, RoomHead
from homeserver.events.nids import Nids
from homeserver.rooms.powers import JOIN_RULES, power_in
from protocol.errors import Forbidden, UnableToAuthoriseJoin, UnableToGrantJoin
from protocol.identifiers import RoomID, ServerName, UserID
from protocol.room_versions import RoomVersion

_EMPTY: Mapping[str, Any] = {}


@frozen
class Authorisation:
    """How a join is allowed: by a local user, through other servers, or as it is (neither)."""

    by: UserID | None = None
    through: Sequence[ServerName] | None = None


@frozen(eq=False)
class RestrictedJoins:
    """Judges the conditions of restricted rooms from what this server knows."""

    server_name: ServerName
    heads: Heads
    nids: Nids

    async def authorise(self, head: RoomHead, user_id: UserID) -> Authorisation:
        """Say how a local user's join is authorised.

        Raises:
            Forbidden: no condition holds.
        """
        if not await self._needs_authority(head, user_id):
            return Authorisation()
        verdict = await self._meets_a_condition(head, user_id)
        if verdict is False:
            raise Forbidden("You are in none of the rooms whose members may join this one")
        authority = await self._local_authority(head) if verdict else None
        if authority is not None:
            return Authorisation(by=authority)
        others = [server for server in head.servers if server != self.server_name]
        if not others:
            raise Forbidden("Nobody in this room may let you in")
        return Authorisation(through=others)

    async def authorise_remote(self, head: RoomHead, user_id: UserID) -> UserID | None:
        """Give the local user who lets a remote user in, None where none is needed.

        Raises:
            Forbidden: no condition holds.
            UnableToAuthoriseJoin: this server cannot tell whether one holds.
            UnableToGrantJoin: one holds, but no user here may invite.
        """
        if not await self._needs_authority(head, user_id):
            return None
        verdict = await self._meets_a_condition(head, user_id)
        if verdict is None:
            raise UnableToAuthoriseJoin("This server cannot see into all rooms whose members may join")
        if not verdict:
            raise Forbidden("The user is in none of the rooms whose members may join this one")
        authority = await self._local_authority(head)
        if authority is None:
            raise UnableToGrantJoin("No user of this server may let anyone into this room")
        return authority

    async def _needs_authority(self, head: RoomHead, user_id: UserID) -> bool:
        member = ("m.room.member", user_id)
        state = await head.state((JOIN_RULES, member))
        rules = state.get(JOIN_RULES)
        rule = rules.content.get("join_rule") if rules is not None else None
        if not _is_restricted(head.version, rule):
            return False
        present = state.get(member)
        return present is None or present.membership not in ("join", "invite")

    async def _meets_a_condition(self, head: RoomHead, user_id: UserID) -> bool | None:
        """Tell whether the user is in an allowed room; None if this server cannot see into all of them.

        Where no room is allowed, no condition holds.
        """
        rules = (await head.state([JOIN_RULES])).get(JOIN_RULES)
        sees_all = True
        for room_id in _allowed_rooms(rules.content if rules is not None else _EMPTY):
            other = await self.heads.of_resident(room_id)
            if other is None:
                sees_all = False
                continue
            member = (await other.state([("m.room.member", user_id)])).get(("m.room.member", user_id))
            if member is not None and member.membership == "join":
                return True
        return False if sees_all else None

    async def _local_authority(self, head: RoomHead) -> UserID | None:
        power = await power_in(head)
        able = [user_id for user_id in head.local_members if power.user(user_id) >= power.invite]
        return max(able, key=power.user) if able else None


def _is_restricted(version: RoomVersion, rule: object) -> bool:
    if rule == "restricted":
        return version.restricted_join
    return rule == "knock_restricted" and version.knock_restricted_join


def _allowed_rooms(content: Mapping[str, Any]) -> Iterator[RoomID]:
    allow = content.get("allow")
    for condition in allow if isinstance(allow, list) else ():
        if isinstance(condition, dict) and condition.get("type") == "m.room_membership":
            room_id = condition.get("room_id")
            if isinstance(room_id, str):
                yield RoomID(room_id)
