"""Third-party invites that come to be redeemed: from identity servers for our users, from servers for theirs.

What an identity server says is believed only as far as the keys in the room's state bear it out: here, where
this server is in the room; else by the inviting user's server, which is asked to invite ours.

Source: server-server-api.md, "Third-party invites"; data/api/server-server/third_party_invite.yaml;
security F3, F4, S15.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from attrs import frozen
from twisted.logger import Logger

from federation.paths import V1, path
from federation.ports import InvitePermissions, LocalUsers
from federation.requests import ServerRequest, ServerRequests
from federation.resident.access import RoomAccess
from homeserver.events.heads import RoomHead
from homeserver.rooms.third_party import Proof
from protocol.canonical_json import JsonObject, encode
from protocol.errors import BadJson, Forbidden, InvalidParam, MatrixError, NotFound
from protocol.identifiers import RoomID, ServerName, parse_room_id, parse_user_id, server_of
from protocol.membership import MEMBER
from storage.database import DatabaseGone

MAX_INVITES = 20
"""Invites that are redeemed for one address at once."""

log = Logger()


class RedeemsInvites(Protocol):
    """Redeems invites of rooms that this server is in (`homeserver.rooms.third_party`)."""

    async def redeem(self, head: RoomHead, proof: Proof, now: int) -> None:
        """Invite the user who has proved to be meant; raises Forbidden."""
        ...


@frozen(eq=False)
class ThirdPartyInvites:
    """Has third-party invites redeemed."""

    own_name: ServerName
    access: RoomAccess
    users: LocalUsers
    permissions: InvitePermissions
    issued: RedeemsInvites
    requests: ServerRequests

    async def exchange(
        self, origin: ServerName, room_id: RoomID, body: Mapping[str, object], now: int
    ) -> None:
        """Invite another server's user by a proof that it hands in.

        Raises:
            InvalidParam, BadJson: it is no third-party invite, or not of the room that the path names.
            Forbidden: the user is not of `origin`, the inviting user not of ours, or the proof does not hold.
            NotFound: this server is not in the room.
        """
        head = await self.access.resident(origin, room_id)
        if body.get("type") != MEMBER:
            raise InvalidParam("type: must be m.room.member")
        if body.get("room_id") != room_id:
            raise InvalidParam("room_id: not the room of the path")
        content = body.get("content")
        if not isinstance(content, dict) or content.get("membership") != "invite":
            raise InvalidParam("content.membership: must be invite")
        invite = content.get("third_party_invite")
        if not isinstance(invite, dict):
            raise InvalidParam("content.third_party_invite: must be an object")
        proof = _proof(body.get("sender"), body.get("state_key"), invite.get("signed"))
        if server_of(proof.target) != origin:
            raise Forbidden("A server may redeem invites of its own users alone")
        if server_of(proof.sender) != self.own_name:
            raise Forbidden("The inviting user is not of this server")
        await self.issued.redeem(head, proof, now)

    async def bound(self, body: Mapping[str, object], now: int) -> None:
        """Redeem all invites that wait for an address, now that it is a local user's; each by itself.

        Raises:
            BadJson, InvalidParam: it is no notice of a binding.
            NotFound: there is no such user here.
        """
        target, invites = parse_user_id(body.get("mxid")), body.get("invites")
        if not isinstance(invites, list):
            raise BadJson("invites must be a list")
        if server_of(target) != self.own_name or not await self.users.exists(target):
            raise NotFound("There is no such user here")
        for invite in _of_user(invites, target)[:MAX_INVITES]:
            try:
                room_id = parse_room_id(invite.get("room_id"))
                proof = _proof(invite.get("sender"), target, invite.get("signed"))
                await self._redeem(room_id, proof, now)
            except (MatrixError, DatabaseGone) as error:
                log.info("an invite of {user} is not redeemed: {error!r}", user=target, error=error)

    async def _redeem(self, room_id: RoomID, proof: Proof, now: int) -> None:
        """Redeem an invite here, or through the inviting user's server."""
        head = await self.access.find(room_id)
        if head is not None:
            await self.permissions.require_allowed(proof.sender, proof.target, room_id)
            await self.issued.redeem(head, proof, now)
            return
        body = {
            "type": MEMBER,
            "room_id": room_id,
            "sender": proof.sender,
            "state_key": proof.target,
            "content": proof.content(""),
        }
        uri = path(f"{V1}/exchange_third_party_invite", room_id)
        await self.requests.signed(
            ServerRequest(server_of(proof.sender), "PUT", uri, encode(body), insist=True)
        )


def _of_user(invites: Sequence[object], target: str) -> list[JsonObject]:
    return [each for each in invites if isinstance(each, dict) and each.get("mxid") == target]


def _proof(sender: object, target: object, signed: object) -> Proof:
    """Read a proof; raises InvalidParam or BadJson."""
    user_id = parse_user_id(target)
    if not isinstance(signed, dict) or not isinstance(signed.get("signatures"), dict):
        raise BadJson("signed must be a signed object")
    token = signed.get("token")
    if not isinstance(token, str):
        raise BadJson("signed.token must be a string")
    if signed.get("mxid") != user_id:
        raise InvalidParam("signed.mxid: not the invited user")
    return Proof(parse_user_id(sender), user_id, token, signed)
