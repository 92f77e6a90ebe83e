"""Joining, leaving, kicking, banning, knocking: one method an action, here or through another server.

Source: client-server-api/_index.md, "Room membership"; "Knocking on rooms"; "Restricted rooms".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from attrs import Factory, frozen

from homeserver.background import run_in_background
from homeserver.events.heads import Heads, RoomHead
from homeserver.events.nids import Nids
from homeserver.rooms.inviting import head_of
from homeserver.rooms.ports import MemberProfiles, RemoteRooms, RoomEvents
from homeserver.rooms.restricted import RestrictedJoins
from homeserver.rooms.succession import Succession
from homeserver.rooms.vias import Vias
from homeserver.turns import Turns
from protocol.canonical_json import JsonObject
from protocol.errors import BadState, Forbidden, NotFound
from protocol.events import Event, EventDraft
from protocol.identifiers import RoomID, ServerName, UserID
from protocol.room_versions import RoomVersion
from storage.memberships import Membership

MEMBER = "m.room.member"


@frozen
class Target:
    """A room as a user names it: its ID, and servers to reach it through."""

    room_id: RoomID
    via: Sequence[ServerName] = ()


@frozen(eq=False)
class Memberships:
    """Actions that change who is in a room."""

    heads: Heads
    nids: Nids
    events: RoomEvents
    remote: RemoteRooms
    profiles: MemberProfiles
    restricted: RestrictedJoins
    vias: Vias
    succession: Succession
    _turns: Turns[tuple[UserID, RoomID]] = Factory(Turns)

    async def join(self, user_id: UserID, target: Target, extra: JsonObject, now: int) -> RoomID:
        """Join a room, through another server if none of this server's users is in it.

        `extra` joins the content of the member event (`reason`, `third_party_invite`).

        Raises:
            Forbidden: the user may not join.
            NotFound: no server is known that is in the room.
        """
        content = {**extra, **await self.profiles.member_fields(user_id), "membership": "join"}
        head = await self.heads.of_resident(target.room_id)
        if head is None:
            await self._join_through(user_id, target, content)
        elif user_id in head.local_members and not extra:
            return target.room_id
        else:
            await self._join_here(head, user_id, content, None if extra else "join", now)
        settling = self.succession.joined(user_id, target.room_id)
        run_in_background(settling, f"carrying settings of {user_id} over")
        return target.room_id

    async def _join_here(
        self, head: RoomHead, user_id: UserID, content: JsonObject, unless: str | None, now: int
    ) -> None:
        """Join a room that is here, through another server if nobody here may let the user in."""
        authorised = await self.restricted.authorise(head, user_id)
        if authorised.through is not None:
            await self._join_through(user_id, Target(head.room_id, authorised.through), content)
            return
        if authorised.by is not None:
            content["join_authorised_via_users_server"] = authorised.by
        await self._send_own(head.room_id, user_id, content, unless, now)

    async def leave(self, user_id: UserID, room_id: RoomID, extra: JsonObject, now: int) -> None:
        """Leave a room, reject an invite, or take back a knock; having left already is fine.

        Raises:
            NotFound: the user has nothing to do with the room.
            Forbidden: the user is banned.
        """
        content: JsonObject = {**extra, "membership": "leave"}
        head = await self.heads.of_resident(room_id)
        if head is None:
            await self._leave_elsewhere(user_id, room_id, content)
            return
        present = await membership_in(head, user_id)
        if present is None:
            raise NotFound("You have never been in this room")
        if present != "leave":
            await self._send_own(room_id, user_id, content, "leave", now)

    async def _leave_elsewhere(self, user_id: UserID, room_id: RoomID, content: JsonObject) -> None:
        """Reject an invite or take back a knock; no server is asked of rooms the user has no part in."""
        present = await self.vias.own_membership(user_id, room_id)
        if present is None:
            raise NotFound("You have never been in this room")
        if present is Membership.BAN:
            raise Forbidden("You are banned from this room")
        if present is not Membership.LEAVE:
            via = await self.vias.of_own_membership(user_id, room_id)
            await self.remote.leave(user_id, room_id, via, content)

    async def kick(
        self, sender: UserID, room_id: RoomID, target: UserID, extra: JsonObject, now: int
    ) -> None:
        """Remove a member, or take back an invite or knock of theirs.

        Raises:
            Forbidden: the sender may not, or the target is not there.
        """

        async def remove() -> None:
            head = await head_of(self.heads, self.nids, room_id)
            if await membership_in(head, target) not in ("join", "invite", "knock"):
                raise Forbidden(f"{target} is not in this room")
            await self._send(room_id, sender, target, {**extra, "membership": "leave"}, now)

        await self._in_turn(target, room_id, remove)

    async def ban(self, sender: UserID, room_id: RoomID, target: UserID, extra: JsonObject, now: int) -> None:
        """Ban a user, member or not; raises `Forbidden`."""
        await head_of(self.heads, self.nids, room_id)
        content = {**extra, "membership": "ban"}
        await self._in_turn(target, room_id, lambda: self._send(room_id, sender, target, content, now))

    async def unban(
        self, sender: UserID, room_id: RoomID, target: UserID, extra: JsonObject, now: int
    ) -> None:
        """Lift a ban.

        Raises:
            BadState: the user is not banned.
            Forbidden: the sender may not.
        """

        async def lift() -> None:
            head = await head_of(self.heads, self.nids, room_id)
            if await membership_in(head, target) != "ban":
                raise BadState(f"{target} is not banned")
            await self._send(room_id, sender, target, {**extra, "membership": "leave"}, now)

        await self._in_turn(target, room_id, lift)

    async def knock(self, user_id: UserID, target: Target, extra: JsonObject, now: int) -> RoomID:
        """Ask to be let in.

        Raises:
            Forbidden: the room does not take knocks, or the user may not knock.
        """
        content = {**extra, **await self.profiles.member_fields(user_id), "membership": "knock"}
        head = await self.heads.of_resident(target.room_id)
        if head is None:
            via = await self._via(user_id, target)
            await self.remote.knock(user_id, target.room_id, via, content)
        else:
            _require_knocking(head.version)
            await self._send(target.room_id, user_id, user_id, content, now)
        return target.room_id

    async def refresh_profile(self, user_id: UserID, room_id: RoomID, now: int) -> None:
        """Tell a room of a member's new name or picture; nothing is said where nothing changed."""
        await self._in_turn(user_id, room_id, lambda: self._refresh_profile(user_id, room_id, now))

    async def _refresh_profile(self, user_id: UserID, room_id: RoomID, now: int) -> None:
        head = await self.heads.of_resident(room_id)
        if head is None or user_id not in head.local_members:
            return
        present = (await head.state([(MEMBER, user_id)])).get((MEMBER, user_id))
        if present is None or present.membership != "join":
            return
        kept = {
            key: value
            for key, value in present.content.items()
            if key not in ("displayname", "avatar_url", "join_authorised_via_users_server", "reason")
        }
        content = {**kept, **await self.profiles.member_fields(user_id)}
        if content != dict(present.content):
            await self._send(room_id, user_id, user_id, content, now)

    async def _via(self, user_id: UserID, target: Target) -> Sequence[ServerName]:
        """Give the servers named, and those that must know of the user's invite or knock, if there is one."""
        own = await self.vias.of_own_membership(user_id, target.room_id)
        return tuple(dict.fromkeys((*target.via, *own)))

    async def _join_through(self, user_id: UserID, target: Target, content: JsonObject) -> None:
        via = await self._via(user_id, target)
        if not via:
            raise NotFound("No server is known that is in this room")
        await self.remote.join(user_id, target.room_id, via, content)

    async def _send_own(
        self, room_id: RoomID, user_id: UserID, content: JsonObject, unless: str | None, now: int
    ) -> None:
        """Send a user's own membership, one at a time, and not if it is `unless` when its turn comes."""

        async def send() -> None:
            head = await self.heads.of_resident(room_id)
            if head is None or unless is None or await membership_in(head, user_id) != unless:
                await self._send(room_id, user_id, user_id, content, now)

        await self._in_turn(user_id, room_id, send)

    async def _in_turn(self, user_id: UserID, room_id: RoomID, act: Callable[[], Awaitable[None]]) -> None:
        """Change a user's membership while nothing else here does, so that what was looked at holds still."""
        key = (user_id, room_id)
        await self._turns.take(key)
        try:
            await act()
        finally:
            self._turns.give(key)

    async def _send(
        self, room_id: RoomID, sender: UserID, target: UserID, content: JsonObject, now: int
    ) -> None:
        await self.events.send(EventDraft(room_id, MEMBER, sender, content, state_key=target), now=now)


async def membership_in(head: RoomHead, user_id: UserID) -> str | None:
    """Give a user's membership, None if there never was one."""
    event: Event | None = (await head.state([(MEMBER, user_id)])).get((MEMBER, user_id))
    return None if event is None else event.membership


def _require_knocking(version: RoomVersion) -> None:
    if not version.knock:
        raise Forbidden("This room's version knows no knocking")
