"""Invites to local users: checked, countersigned and kept.

Our signature goes on an event in exactly one case: an invite of a user of the asking server to an existing
user of ours, in the room and of the ID that the path names. Nothing else is ever signed here.

Source: server-server-api.md, "Inviting to a room"; security F5, F11.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from federation.own_keys import Identity
from federation.pdus import PduChecker
from federation.ports import InvitePermissions, LocalUsers, OutsideMemberships
from federation.resident.access import RoomAccess
from federation.resident.making import MEMBER
from federation.stripped import MAX_EVENTS, stripped_event, stripped_of
from protocol.canonical_json import JsonObject
from protocol.errors import (
    Forbidden,
    IncompatibleRoomVersion,
    InvalidParam,
    NotFound,
    UnsupportedRoomVersion,
)
from protocol.events import Event, countersign
from protocol.identifiers import EventID, RoomID, ServerName, UserID, server_of
from protocol.room_versions import RoomVersion, get_room_version
from protocol.signing import InvalidSignature


@frozen
class Invitation:
    """An invite handed in: what the path says of it, who sends it, and the room as it is shown."""

    origin: ServerName
    room_id: RoomID
    event_id: EventID
    room_version: str
    event: object
    shown: Sequence[object]


@frozen(eq=False)
class Invitations:
    """Takes invites to local users."""

    identity: Identity
    access: RoomAccess
    checker: PduChecker
    users: LocalUsers
    permissions: InvitePermissions
    outside: OutsideMemberships

    async def take(self, invitation: Invitation, now: int) -> Event:
        """Check an invite, sign it, keep it for the user, and give it as signed.

        Raises:
            InvalidParam, BadJson: it is no invite to a local user, or not the one the path names.
            Forbidden: it is another server's, badly signed, denied by an ACL, or the user takes no invites.
            IncompatibleRoomVersion: the room has a version this server does not support.
        """
        version = _version(invitation.room_version)
        event = await self._checked(invitation, version)
        target = UserID(event.state_key or "")
        head = await self.access.find(invitation.room_id)
        if head is not None:
            await self.access.require_allowed(invitation.origin, head)
        if not await self.users.exists(target):
            raise NotFound(f"There is no user {target}")
        await self.permissions.require_allowed(event.sender, target, event.room_id)
        stripped = await self._stripped(invitation, version)
        signed = countersign(event, self.identity.server_name, self.identity.key)
        if head is None:
            shown = [*stripped, stripped_event(signed)]
            await self.outside.begin(version, signed, shown, now=now)
        return signed

    async def _checked(self, invitation: Invitation, version: RoomVersion) -> Event:
        """Give the event if it is an invite that may be signed."""
        try:
            event = await self.checker.check(invitation.event, version)
        except InvalidSignature as error:
            raise Forbidden(error.error) from None
        agreeing = (
            (event.room_id == invitation.room_id, "room_id: not the room of the path"),
            (event.event_id == invitation.event_id, "event_id: not the event of the path"),
            (event.type == MEMBER, "type: must be m.room.member"),
            (event.membership == "invite", "content.membership: must be invite"),
            (_is_local(event.state_key, self.identity.server_name), "state_key: must be a user of ours"),
            (not event.hash_mismatch, "hashes: the content hash is wrong"),
        )
        for agrees, sentence in agreeing:
            if not agrees:
                raise InvalidParam(sentence)
        if server_of(event.sender) != invitation.origin:
            raise Forbidden("A server may hand in invites of its own users alone")
        return event

    async def _stripped(self, invitation: Invitation, version: RoomVersion) -> list[JsonObject]:
        """Give the room's state as it is shown to the user.

        Where the room ID is the hash of the create event, that event must be shown, and whole events must
        prove themselves. Dendrite, and Synapse before July 2026, show the stripped form there too, which
        proves nothing in any version: it is for the user to look at, and gives no authority.
        """
        if not version.room_id_is_create_hash:
            return stripped_of(invitation.shown)
        shown = invitation.shown[:MAX_EVENTS]
        if any(_is_whole(each) for each in shown):
            events = await self.checker.check_room(shown, version, invitation.room_id)
            if len(events) < len(shown):
                raise InvalidParam("invite_room_state: must hold valid events of the room")
            shown = [stripped_event(event) for event in events]
        stripped = stripped_of(shown)
        if not any(each["type"] == "m.room.create" for each in stripped):
            raise InvalidParam("invite_room_state: must hold the create event")
        return stripped


def _is_whole(shown: object) -> bool:
    """Tell whether an event that is shown has more than the stripped form, and so can be checked."""
    return isinstance(shown, dict) and not shown.keys().isdisjoint(("auth_events", "hashes", "signatures"))


def _is_local(state_key: str | None, own_name: ServerName) -> bool:
    return state_key is not None and state_key.startswith("@") and server_of(state_key) == own_name


def _version(named: str) -> RoomVersion:
    try:
        return get_room_version(named)
    except UnsupportedRoomVersion as error:
        raise IncompatibleRoomVersion(error.error, room_version=named[:32]) from None
