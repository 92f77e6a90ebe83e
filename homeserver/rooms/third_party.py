"""Redeeming third-party invites: an invite by e-mail becomes one of the user who has proved to own it.

Source: client-server-api/modules/third_party_invites.md, "Server behaviour"; server-server-api.md,
"Third-party invites"; security S15.
"""

from __future__ import annotations

from typing import Protocol

from attrs import frozen

from homeserver.events.heads import RoomHead
from homeserver.rooms.inviting import MEMBER, RemoteInvites
from homeserver.rooms.ports import MemberProfiles, RoomEvents
from protocol.canonical_json import JsonObject
from protocol.errors import Forbidden
from protocol.events import EventDraft
from protocol.identifiers import ServerName, UserID, server_of
from protocol.third_party_invites import THIRD_PARTY_INVITE, IdentityKey, signing_key


class KeyValidity(Protocol):
    """Asks identity servers whether their keys still hold (`federation.identity_keys`)."""

    async def is_valid(self, key: IdentityKey) -> bool:
        """Tell whether a key still holds, as far as its server says so."""
        ...


@frozen
class Proof:
    """What an identity server says of an address: `signed` names its owner and the token of the invite."""

    sender: UserID
    """The user who invited the address."""
    target: UserID
    token: str
    signed: JsonObject

    def content(self, display_name: object) -> JsonObject:
        """Give the content of the invite it makes; `display_name` is what the room calls the address."""
        name = {"display_name": display_name} if isinstance(display_name, str) else {}
        return {"membership": "invite", "third_party_invite": {**name, "signed": self.signed}}


@frozen(eq=False)
class IssuedInvites:
    """Redeems third-party invites of rooms that this server is in."""

    own_name: ServerName
    events: RoomEvents
    remote: RemoteInvites
    profiles: MemberProfiles
    validity: KeyValidity

    async def redeem(self, head: RoomHead, proof: Proof, now: int) -> None:
        """Invite the user who has proved to be meant; another server's user with that server's signature.

        Raises:
            Forbidden: no such invite was issued by the sender, it is signed by none of its keys or by one
                that holds no more, or the rules refuse the invite.
        """
        key = (THIRD_PARTY_INVITE, proof.token)
        issued = (await head.shown((key,))).get(key)
        if issued is None or issued.sender != proof.sender:
            raise Forbidden("No such third-party invite was issued by the sender")
        signing = signing_key(proof.signed, issued.content)
        if signing is None:
            raise Forbidden("The third-party invite bears no good signature")
        if not await self.validity.is_valid(signing):
            raise Forbidden("The identity server's key holds no more")
        content = proof.content(issued.content.get("display_name"))
        if server_of(proof.target) != self.own_name:
            draft = EventDraft(head.room_id, MEMBER, proof.sender, content, state_key=proof.target)
            await self.remote.send(head, draft, now)
            return
        content = {**await self.profiles.member_fields(proof.target), **content}
        draft = EventDraft(head.room_id, MEMBER, proof.sender, content, state_key=proof.target)
        await self.events.send(draft, now=now)
