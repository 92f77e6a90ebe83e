"""The published room directory: which rooms stand in it, and a page of it.

Source: client-server-api/_index.md, "Published room directory".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from attrs import frozen

from homeserver.events.heads import Heads, RoomHead
from homeserver.events.nids import Nids
from homeserver.rooms.powers import power_in
from protocol.canonical_json import JsonObject
from protocol.errors import Forbidden, InvalidParam, NotFound
from protocol.identifiers import RoomID, UserID
from storage import directory
from storage.database import Database

MAX_PAGE = 500
MAX_PUBLISHED = 10_000
_STATE = (
    "m.room.name",
    "m.room.topic",
    "m.room.avatar",
    "m.room.canonical_alias",
    "m.room.history_visibility",
    "m.room.guest_access",
    "m.room.join_rules",
    "m.room.create",
)


MaySee = Callable[[RoomHead], Awaitable[bool]]
"""Tells whether who asks may know of a published room."""


@frozen
class DirectoryQuery:
    """A page asked for; `since` is the position given with the page before."""

    limit: int = 100
    since: str | None = None
    search: str | None = None
    room_types: Sequence[str | None] | None = None
    all_networks: bool = False
    network: str | None = None
    """The one bridged network whose rooms are asked for, by its `instance_id`."""

    def __attrs_post_init__(self) -> None:
        """Refuse to look in one network and in all of them."""
        if self.all_networks and self.network:
            raise InvalidParam("third_party_instance_id: not with include_all_networks")


@frozen(eq=False)
class Published:
    """This server's published rooms."""

    database: Database
    nids: Nids
    heads: Heads

    async def publish(self, room_id: RoomID) -> None:
        """Put a room into the directory."""
        await self.database.write(directory.set_published, await self._nid(room_id), True)

    async def move(self, old: RoomID, new: RoomID) -> None:
        """Let a new room take the place of an old one in the directory."""
        await self.database.write(directory.set_published, await self._nid(old), False)
        await self.publish(new)

    async def set_by(self, user_id: UserID, room_id: RoomID, published: bool) -> None:
        """Put a room into the directory or take it out, for a member with the power to name the room.

        Raises:
            NotFound: the room is not known here.
            Forbidden: the user may not.
        """
        head = await self.heads.get(await self._nid(room_id))
        power = await power_in(head)
        if user_id not in head.local_members:
            raise Forbidden("You are not in this room")
        if power.user(user_id) < power.event("m.room.canonical_alias", True):
            raise Forbidden("You may not publish this room")
        await self.database.write(directory.set_published, head.room_nid, published)

    async def is_published(self, room_id: RoomID) -> bool:
        """Tell whether a room stands in the directory; raises `NotFound` for one not known here."""
        return await self.database.read(directory.is_published, await self._nid(room_id))

    async def page(self, query: DirectoryQuery, may_see: MaySee | None = None) -> JsonObject:
        """Give a page of the directory, the largest rooms first.

        Rooms that the asker may not see are left out; a page without a search then has fewer than asked for.
        """
        start = _position(query.since)
        limit = max(1, min(query.limit, MAX_PAGE))
        # No bridge of this server lists rooms of its network, so there are none in any one network.
        rows = [] if query.network else await self.database.read(directory.published, MAX_PUBLISHED)
        if query.search or query.room_types is not None:
            chunks = [chunk for chunk in await self._chunks(rows, may_see) if _matches(chunk, query)]
            total, chunks = len(chunks), chunks[start : start + limit]
        else:
            total, chunks = len(rows), await self._chunks(rows[start : start + limit], may_see)
        page: JsonObject = {"chunk": chunks, "total_room_count_estimate": total}
        if start + limit < total:
            page["next_batch"] = f"p{start + limit}"
        if start > 0:
            page["prev_batch"] = f"p{max(0, start - limit)}"
        return page

    async def _chunks(self, rows: Sequence[tuple[int, int]], may_see: MaySee | None) -> list[JsonObject]:
        chunks = []
        for room_nid, joined in rows:
            try:
                head = await self.heads.get(room_nid)
            except NotFound:
                continue
            if may_see is None or await may_see(head):
                chunks.append(await summary_of(head, joined))
        return chunks

    async def _nid(self, room_id: RoomID) -> int:
        room_nid = await self.nids.room(room_id)
        if room_nid is None:
            raise NotFound("This server does not know the room")
        return room_nid


async def summary_of(head: RoomHead, joined: int) -> JsonObject:
    """Describe a room for people who look for one; fields of a wrong type are left out."""
    state = await head.shown((event_type, "") for event_type in _STATE)
    contents: dict[str, Mapping[str, Any]] = {key[0]: event.content for key, event in state.items()}

    def text(event_type: str, field: str) -> str | None:
        value = contents.get(event_type, {}).get(field)
        return value if isinstance(value, str) else None

    summary: JsonObject = {
        "room_id": head.room_id,
        "num_joined_members": joined,
        "world_readable": text("m.room.history_visibility", "history_visibility") == "world_readable",
        "guest_can_join": text("m.room.guest_access", "guest_access") == "can_join",
        "join_rule": text("m.room.join_rules", "join_rule") or "invite",
    }
    optional = {
        "name": text("m.room.name", "name"),
        "topic": text("m.room.topic", "topic"),
        "avatar_url": text("m.room.avatar", "url"),
        "canonical_alias": text("m.room.canonical_alias", "alias"),
        "room_type": text("m.room.create", "type"),
    }
    summary.update({name: value for name, value in optional.items() if value is not None})
    return summary


def _matches(chunk: JsonObject, query: DirectoryQuery) -> bool:
    if query.room_types is not None and chunk.get("room_type") not in query.room_types:
        return False
    if not query.search:
        return True
    wanted = query.search.casefold()
    return any(
        wanted in str(chunk.get(field, "")).casefold() for field in ("name", "topic", "canonical_alias")
    )


def _position(since: str | None) -> int:
    if since is None:
        return 0
    digits = since[1:]
    if since[:1] != "p" or not digits.isascii() or not digits.isdigit() or len(digits) > 9:
        raise InvalidParam("since: not a position of this directory")
    return int(digits)
