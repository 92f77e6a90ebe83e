"""Inviting users of this server and of others.

An invite to a user of another server is signed by that server before it has a place in the room.

Source: client-server-api/_index.md, "Room membership"; server-server-api.md, "Inviting to a room".
"""

from __future__ import annotations

from typing import Final, Protocol

from attrs import frozen

from homeserver.events.heads import Heads, RoomHead
from homeserver.events.nids import Nids
from homeserver.events.policed import SignedEvents
from homeserver.rooms.ports import MemberProfiles, RemoteRooms, RoomEvents
from protocol.canonical_json import JsonObject
from protocol.errors import Forbidden, NotFound
from protocol.events import Event, EventDraft
from protocol.identifiers import RoomID, StateKey, UserID, server_of

MEMBER: Final = "m.room.member"
STRIPPED: tuple[StateKey, ...] = (
    ("m.room.create", ""),
    ("m.room.name", ""),
    ("m.room.avatar", ""),
    ("m.room.topic", ""),
    ("m.room.join_rules", ""),
    ("m.room.canonical_alias", ""),
    ("m.room.encryption", ""),
)
"""State that an invited or knocking user is shown, beside the inviter's own membership."""


class LocalUsers(Protocol):
    """Knows the accounts of this server."""

    async def exists(self, user_id: UserID) -> bool:
        """Tell whether there is an active account."""
        ...


@frozen(eq=False)
class RemoteInvites:
    """Invites that another server signs before they have a place in the room."""

    signed: SignedEvents
    remote: RemoteRooms

    async def send(self, head: RoomHead, draft: EventDraft, now: int) -> None:
        """Build an invite, have the invited user's server sign it, and commit it as signed."""
        event = await self.signed.build(head, draft, now)
        signed = await self.remote.invite(event, await stripped_state(head, draft.sender))
        await self.signed.place(head.room_nid, signed, now=now)


@frozen(eq=False)
class Inviting:
    """Invites."""

    heads: Heads
    nids: Nids
    events: RoomEvents
    remote: RemoteInvites
    profiles: MemberProfiles
    users: LocalUsers

    async def invite(
        self, room_id: RoomID, sender: UserID, target: UserID, extra: JsonObject, now: int
    ) -> None:
        """Invite `target`; `extra` joins the content (`reason`, `is_direct`).

        Raises:
            Forbidden: the sender may not, or the other server refuses.
            NotFound: the user is of this server and does not exist.
        """
        head = await head_of(self.heads, self.nids, room_id)
        content: JsonObject = {**extra, "membership": "invite"}
        if server_of(target) != server_of(sender):
            draft = EventDraft(room_id, MEMBER, sender, content, state_key=target)
            await self.remote.send(head, draft, now)
            return
        await self.require_account(target)
        content = {**await self.profiles.member_fields(target), **content}
        await self.events.send(EventDraft(room_id, MEMBER, sender, content, state_key=target), now=now)

    async def require_account(self, user_id: UserID) -> None:
        """Raise `NotFound` for a user of this server who does not exist."""
        if not await self.users.exists(user_id):
            raise NotFound(f"There is no user {user_id}")


async def head_of(heads: Heads, nids: Nids, room_id: RoomID) -> RoomHead:
    """Give the head of a room this server is in; raises `Forbidden` for one it is not in."""
    room_nid = await nids.room(room_id)
    if room_nid is None:
        raise Forbidden("You are not in this room")
    try:
        return await heads.get(room_nid)
    except NotFound:
        raise Forbidden("You are not in this room") from None


async def stripped_state(head: RoomHead, inviter: UserID) -> list[Event]:
    """Give the events an invited or knocking user's server is shown."""
    state = await head.shown((*STRIPPED, (MEMBER, inviter)))
    return list(state.values())
