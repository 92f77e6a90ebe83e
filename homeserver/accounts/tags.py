"""Tags by which users sort their rooms: the account data `m.tag` of each room.

Source: client-server-api/modules/tags.md.
"""

from __future__ import annotations

from attrs import frozen

from homeserver.accounts.account_data import AccountData
from protocol.canonical_json import JsonObject, decode_own
from protocol.errors import BadJson, InvalidParam, NotFound
from protocol.identifiers import RoomID

TAG = "m.tag"
MAX_TAG_BYTES = 255
MAX_TAGS = 100


@frozen(eq=False)
class Tags:
    """The tags of local users."""

    data: AccountData

    async def get(self, user_nid: int, room_id: RoomID) -> JsonObject:
        """Give a user's tags of a room; raises NotFound for a room not known here."""
        try:
            return _tags_in(await self.data.get(user_nid, room_id, TAG))
        except NotFound:
            return {}

    async def put(self, user_nid: int, room_id: RoomID, tag: str, content: JsonObject) -> None:
        """Set a tag; raises InvalidParam, BadJson or NotFound."""
        order = content.get("order")
        if not (order is None or (isinstance(order, int | float) and not isinstance(order, bool))):
            raise BadJson("The field order must be a number")
        if not 0 < len(tag.encode("utf-8", "replace")) <= MAX_TAG_BYTES:
            raise InvalidParam(f"A tag must have 1 to {MAX_TAG_BYTES} bytes")
        await self._change(user_nid, room_id, tag, content)

    async def delete(self, user_nid: int, room_id: RoomID, tag: str) -> None:
        """Remove a tag; raises NotFound for a room not known here."""
        await self._change(user_nid, room_id, tag, None)

    async def _change(self, user_nid: int, room_id: RoomID, tag: str, content: JsonObject | None) -> None:
        """Change one tag, one change at a time."""

        def changed(raw: bytes | None) -> JsonObject | None:
            before = _tags_in({} if raw is None else decode_own(raw))
            after = {name: held for name, held in before.items() if name != tag}
            if content is not None:
                after[tag] = content
            if len(after) > MAX_TAGS:
                raise InvalidParam(f"A room may have at most {MAX_TAGS} tags")
            return None if after == before else {"tags": after}

        await self.data.edit(user_nid, room_id, TAG, changed)


def _tags_in(content: JsonObject) -> JsonObject:
    tags = content.get("tags")
    return tags if isinstance(tags, dict) else {}
