"""Room upgrades: a new room of another version takes the place of the old.

Source: client-server-api/modules/room_upgrades.md, "Server behaviour".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from attrs import frozen

from homeserver.events.heads import Heads, RoomHead
from homeserver.events.nids import Nids
from homeserver.events.room_state import RoomState
from homeserver.rooms.aliases import Aliases
from homeserver.rooms.creation import Creation, InitialState, RoomSpec
from homeserver.rooms.inviting import head_of
from homeserver.rooms.ports import RoomEvents
from homeserver.rooms.powers import power_in
from homeserver.rooms.published import Published
from homeserver.rooms.succession import Succession
from protocol.canonical_json import JsonObject
from protocol.errors import Forbidden, MatrixError
from protocol.events import Event, EventDraft
from protocol.identifiers import RoomID, UserID
from protocol.limits import MAX_INTEGER
from protocol.power_levels import parse_level
from protocol.room_versions import RoomVersion

TOMBSTONE: Final = "m.room.tombstone"
_COPIED: Final = (
    "m.room.server_acl",
    "m.room.encryption",
    "m.room.name",
    "m.room.avatar",
    "m.room.topic",
    "m.room.guest_access",
    "m.room.history_visibility",
    "m.room.join_rules",
    "m.room.power_levels",
    "m.room.pinned_events",
)
_SAID: Final = ("m.room.name", "m.room.avatar", "m.room.topic")
"""What of it is copied as redactions leave it; the rest protects the room, redacted or not."""


@frozen(eq=False)
class Upgrades:
    """Replace rooms by rooms of another version."""

    heads: Heads
    nids: Nids
    state: RoomState
    events: RoomEvents
    creation: Creation
    aliases: Aliases
    published: Published
    succession: Succession

    async def upgrade(
        self, user_id: UserID, room_id: RoomID, version: RoomVersion, creators: list[UserID], now: int
    ) -> RoomID:
        """Make the new room, bury the old one, and move aliases and directory entry; give the new ID.

        Raises:
            Forbidden: the user may not set a tombstone.
        """
        head = await head_of(self.heads, self.nids, room_id)
        power = await power_in(head)
        if user_id not in head.local_members or power.user(user_id) < power.event(TOMBSTONE, True):
            raise Forbidden("You may not upgrade this room")
        old = await head.state([("m.room.create", ""), *((event_type, "") for event_type in _COPIED)])
        old |= await head.shown((event_type, "") for event_type in _SAID)
        spec = _spec(user_id, head, version, creators, old)
        new_id = await self.creation.create(spec, now)
        await self._carry_bans(head, new_id, user_id, now)
        body = "This room has been replaced"
        content: JsonObject = {"body": body, "replacement_room": new_id}
        await self.events.send(EventDraft(room_id, TOMBSTONE, user_id, content, state_key=""), now=now)
        await self._move_names(head, new_id, user_id, now)
        await self._mute_old(head, user_id, now)
        await self.succession.joined(user_id, new_id)
        return new_id

    async def _carry_bans(self, head: RoomHead, new_id: RoomID, user_id: UserID, now: int) -> None:
        """Ban in the new room who is banned in the old."""
        members = await self.state.members(head.room_nid, head.root)
        stored = await self.state.stored.by_nid(head.room_nid, members.values())
        drafts = [
            EventDraft(
                new_id, "m.room.member", user_id, {"membership": "ban"}, state_key=each.event.state_key
            )
            for each in stored.values()
            if each.event.membership == "ban"
        ]
        await self.events.send_many(drafts, now=now)

    async def _move_names(self, head: RoomHead, new_id: RoomID, user_id: UserID, now: int) -> None:
        key = ("m.room.canonical_alias", "")
        canonical = (await head.state([key])).get(key)
        await self.aliases.move(head.room_id, new_id)
        if await self.published.is_published(head.room_id):
            await self.published.move(head.room_id, new_id)
        if canonical is None:
            return
        content = dict(canonical.content)
        for room_id, its_content in ((head.room_id, {}), (new_id, content)):
            draft = EventDraft(room_id, key[0], user_id, its_content, state_key="")
            try:
                await self.events.send(draft, now=now)
            except Forbidden:
                continue

    async def _mute_old(self, head: RoomHead, user_id: UserID, now: int) -> None:
        """Ask more power for speaking and inviting in the old room, if the user may."""
        key = ("m.room.power_levels", "")
        levels = (await head.state([key])).get(key)
        if levels is None:
            return
        content = dict(levels.content)
        default = content.get("users_default", 0)
        quiet = max(50, (default if isinstance(default, int) else 0) + 1)
        content.update({"events_default": quiet, "invite": quiet})
        try:
            await self.events.send(EventDraft(head.room_id, key[0], user_id, content, state_key=""), now=now)
        except MatrixError:
            return


def _spec(
    user_id: UserID,
    head: RoomHead,
    version: RoomVersion,
    creators: list[UserID],
    old: Mapping[tuple[str, str], Event],
) -> RoomSpec:
    create = old[("m.room.create", "")]
    creation = {
        key: value
        for key, value in create.content.items()
        if key not in ("room_version", "creator", "predecessor", "additional_creators")
    }
    creation["predecessor"] = {"room_id": head.room_id, "event_id": head.place.prev_events[-1]}
    if version.privileged_creators and creators:
        creation["additional_creators"] = list(creators)
    initial = tuple(_copied(old, version, {user_id, *creators}))
    return RoomSpec(user_id, version, creation_content=creation, initial_state=initial)


def _copied(
    old: Mapping[tuple[str, str], Event], version: RoomVersion, creators: set[UserID]
) -> Iterator[InitialState]:
    for event_type in _COPIED:
        event = old.get((event_type, ""))
        if event is None:
            continue
        content = dict(event.content)
        if event_type == "m.room.power_levels":
            content = levels_for(
                version, _in_integers(content, event.version), creators, old[("m.room.create", "")]
            )
        yield InitialState(event_type, content)


def levels_for(
    version: RoomVersion, content: dict[str, Any], creators: set[UserID], old_create: Event
) -> JsonObject:
    """Give old power levels as the new version wants them: creators in or out, and in integers.

    Where creators stand above levels the tombstone must lie above what state needs by default.
    """
    users = content.get("users")
    levels: dict[str, Any] = dict(users) if isinstance(users, dict) else {}
    if version.privileged_creators:
        levels = {user: level for user, level in levels.items() if user not in creators}
        raw_events = content.get("events")
        events = dict(raw_events) if isinstance(raw_events, dict) else {}
        events["m.room.tombstone"] = 150
        content["events"] = events
    else:
        highest = max((level for level in levels.values() if isinstance(level, int)), default=100)
        for creator in creators:
            levels[creator] = max(100, highest)
        if old_create.version.privileged_creators:
            levels.setdefault(old_create.sender, 100)
    content["users"] = levels
    return content


def _in_integers(content: Mapping[str, Any], version: RoomVersion) -> JsonObject:
    """Give an old room's levels as the integers its version read; what it could not read is left out."""

    def read(value: object) -> int | None:
        level = parse_level(value, version)
        return level if level is None or -MAX_INTEGER <= level <= MAX_INTEGER else None

    levels: JsonObject = {}
    for name, value in content.items():
        if isinstance(value, dict):
            found = {key: read(each) for key, each in value.items()}
            levels[name] = {key: level for key, level in found.items() if level is not None}
        elif (level := read(value)) is not None:
            levels[name] = level
    return levels
