"""Templates of membership events for users of other servers.

A template says where the event would stand and has no hash and no signature. It is given for users of the
asking server alone, and only where the rules would let the event pass.

Source: server-server-api.md, make_join, make_leave, make_knock; security S14, F9.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Protocol

from attrs import frozen

from federation.resident.access import RoomAccess
from homeserver.events.heads import RoomHead
from homeserver.events.unplaced import Unplaced
from protocol.auth_rules import check_auth
from protocol.canonical_json import JsonObject, encode_lax
from protocol.errors import Forbidden, IncompatibleRoomVersion
from protocol.events import EventDraft, Links, event_of
from protocol.identifiers import EventID, RoomID, ServerName, UserID, server_of
from protocol.room_versions import RoomVersion

MEMBER = "m.room.member"
DEFAULT_VERSIONS = ("1",)
"""What a server supports that does not say."""


class RestrictedJoins(Protocol):
    """Judges the conditions of restricted rooms (`homeserver.rooms.restricted`)."""

    async def authorise_remote(self, head: RoomHead, user_id: UserID) -> UserID | None:
        """Give the local user who lets a remote user in, None where none is needed; raises MatrixError."""
        ...


@frozen
class Asked:
    """A request for a template."""

    origin: ServerName
    room_id: RoomID
    user_id: UserID
    membership: str
    versions: Collection[str] = ()
    """Room versions the asking server supports; none for a leave, which needs no such promise."""


@frozen(eq=False)
class Templates:
    """Makes templates."""

    own_name: ServerName
    access: RoomAccess
    unplaced: Unplaced
    restricted: RestrictedJoins

    async def make(self, asked: Asked, now: int) -> JsonObject:
        """Give the answer to a make_ request.

        Raises:
            Forbidden: the user is of another server, the ACL denies it, or the rules refuse the event.
            NotFound: this server is not in the room.
            IncompatibleRoomVersion: the asking server does not support the room's version.
            UnableToAuthoriseJoin, UnableToGrantJoin: of a restricted join.
        """
        if server_of(asked.user_id) != asked.origin:
            raise Forbidden("A server may ask for its own users alone")
        head = await self.access.resident(asked.origin, asked.room_id)
        _check_version(head.version, asked)
        draft = await self._draft(head, asked)
        links, state = await self.unplaced.links(head.room_nid, draft)
        template = _template(draft, head.version, links, now)
        check_auth(_unsigned_event(template, head.version), state)
        return {"room_version": head.version.id, "event": template | {"origin": self.own_name}}

    async def _draft(self, head: RoomHead, asked: Asked) -> EventDraft:
        content: JsonObject = {"membership": asked.membership}
        if asked.membership == "join":
            authoriser = await self.restricted.authorise_remote(head, asked.user_id)
            if authoriser is not None:
                content["join_authorised_via_users_server"] = authoriser
        return EventDraft(asked.room_id, MEMBER, asked.user_id, content, state_key=asked.user_id)


def _check_version(version: RoomVersion, asked: Asked) -> None:
    if asked.versions and version.id not in asked.versions:
        raise IncompatibleRoomVersion(
            f"The room has version {version.id}, which your server does not support", room_version=version.id
        )
    if asked.membership == "knock" and not version.knock:
        raise Forbidden("This room's version knows no knocking")


def _template(draft: EventDraft, version: RoomVersion, links: Links, now: int) -> JsonObject:
    """Lay a draft out as an event without hashes and signatures."""
    return {
        "type": draft.type,
        "room_id": draft.room_id,
        "sender": draft.sender,
        "state_key": draft.state_key,
        "content": dict(draft.content),
        "origin_server_ts": now,
        "depth": links.depth,
        "prev_events": _references(links.prev_events, version, links),
        "auth_events": _references(links.auth_events, version, links),
    }


def _references(ids: Sequence[EventID], version: RoomVersion, links: Links) -> list[Any]:
    """Write references as the room version has them."""
    if not version.pairs_in_references:
        return list(ids)
    return [[one, {"sha256": links.hashes[one]} if one in links.hashes else {}] for one in ids]


def _unsigned_event(template: JsonObject, version: RoomVersion) -> Any:
    """Give a template the form in which the rules judge events; it has no ID and goes nowhere."""
    return event_of(template, encode_lax(template), version, EventID("$template"))
