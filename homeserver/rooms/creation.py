"""Making a room: the events it begins with, in the order the specification asks for, and its invites.

Source: client-server-api/_index.md, "Creation"; data/api/client-server/create_room.yaml.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from attrs import Factory, frozen
from twisted.logger import Logger

from homeserver.events.creating import NewRooms
from homeserver.rooms.aliases import Aliases
from homeserver.rooms.inviting import Inviting
from homeserver.rooms.ports import MemberProfiles
from homeserver.rooms.presets import PRESETS, Preset, Visibility, power_levels, preset_for, preset_state
from homeserver.rooms.published import Published
from protocol.canonical_json import JsonObject
from protocol.errors import BadJson, Forbidden, InvalidParam, InvalidRoomState, MatrixError
from protocol.events import EventDraft
from protocol.identifiers import RoomAlias, RoomID, ServerName, UserID, server_of
from protocol.room_versions import RoomVersion, get_room_version
from storage.transactions import TransactionKey

log = Logger()

MAX_INVITES = 100
MAX_INITIAL_STATE = 200
_UNSETTABLE = frozenset({"m.room.create", "m.room.member"})


@frozen
class InitialState:
    """A state event asked for by the creator."""

    type: str
    content: JsonObject
    state_key: str = ""


@frozen
class RoomSpec:
    """What kind of room is asked for."""

    creator: UserID
    version: RoomVersion
    visibility: Visibility = Visibility.PRIVATE
    preset: Preset | None = None
    name: str | None = None
    topic: str | None = None
    alias: RoomAlias | None = None
    invite: Sequence[UserID] = ()
    is_direct: bool = False
    creation_content: Mapping[str, Any] = Factory(dict)
    initial_state: Sequence[InitialState] = ()
    power_levels: Mapping[str, Any] | None = None


@frozen(eq=False)
class Creation:
    """Make rooms."""

    server_name: ServerName
    default_version: str
    rooms: NewRooms
    inviting: Inviting
    aliases: Aliases
    published: Published
    profiles: MemberProfiles

    def version_of(self, wanted: str | None) -> RoomVersion:
        """Give the version asked for, or the default; raises `UnsupportedRoomVersion`."""
        return get_room_version(wanted if wanted is not None else self.default_version)

    async def create(self, spec: RoomSpec, now: int, claim: TransactionKey | None = None) -> RoomID:
        """Make a room and give its ID; its invites are sent when it stands.

        An invite that fails then (the other server refuses it, or is away) is left out: the room is there,
        and who asked again would get a second one.

        Raises:
            InvalidRoomState: the events asked for break the rules of the room.
            RoomInUse: the alias is taken.
            NotFound: an invited user of this server does not exist.
            TransactionRepeated: a room was made by this `claim` before.
        """
        _check(spec)
        if spec.alias is not None:
            await self.aliases.require_free(spec.alias)
        for user_id in spec.invite:
            if server_of(user_id) == self.server_name:
                await self.inviting.require_account(user_id)
        profile = await self.profiles.member_fields(spec.creator)
        room_id = None if spec.version.room_id_is_create_hash else self._new_room_id()
        drafts = list(_drafts(spec, room_id, profile))
        try:
            new = await self.rooms.create(spec.version, drafts, now=now, txn=claim)
        except Forbidden as error:
            raise InvalidRoomState(f"The room cannot begin like this: {error.error}") from None
        made = new.room.room_id
        if spec.alias is not None:
            await self.aliases.add(spec.alias, made, spec.creator)
        if spec.visibility is Visibility.PUBLIC:
            await self.published.publish(made)
        for user_id in spec.invite:
            extra: JsonObject = {"is_direct": True} if spec.is_direct else {}
            try:
                await self.inviting.invite(made, spec.creator, user_id, extra, now)
            except MatrixError as error:
                log.info(
                    "{user} is not invited to {room}: {error}", user=user_id, room=made, error=error.error
                )
        return made

    def _new_room_id(self) -> RoomID:
        return RoomID(f"!{secrets.token_urlsafe(18).replace('_', '-')}:{self.server_name}")


def _check(spec: RoomSpec) -> None:
    if len(spec.invite) > MAX_INVITES:
        raise InvalidParam(f"invite: more than {MAX_INVITES} users")
    if len(set(spec.invite)) != len(spec.invite) or spec.creator in spec.invite:
        raise InvalidParam("invite: a user twice, or the creator")
    if len(spec.initial_state) > MAX_INITIAL_STATE:
        raise InvalidParam(f"initial_state: more than {MAX_INITIAL_STATE} events")
    for event in spec.initial_state:
        if event.type in _UNSETTABLE:
            raise InvalidRoomState(f"initial_state: {event.type} cannot be set")
    creators = spec.creation_content.get("additional_creators", [])
    if spec.version.privileged_creators and not _are_users(creators):
        raise BadJson("creation_content.additional_creators: must be a list of user IDs")


def _are_users(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) and item.startswith("@") for item in value)


def _drafts(spec: RoomSpec, room_id: RoomID | None, profile: Mapping[str, str]) -> Iterator[EventDraft]:
    def draft(event_type: str, content: JsonObject, state_key: str = "") -> EventDraft:
        return EventDraft(room_id, event_type, spec.creator, content, state_key=state_key)

    preset = preset_for(spec.preset, spec.visibility)
    trusted = tuple(spec.invite) if PRESETS[preset].trusts_invited else ()
    yield draft("m.room.create", _create_content(spec, trusted))
    yield draft("m.room.member", {**profile, "membership": "join"}, spec.creator)
    creators = _additional_creators(spec, trusted)
    levels = power_levels(
        spec.version,
        spec.creator,
        creators if spec.version.privileged_creators else trusted,
        spec.power_levels,
    )
    overridden = {(event.type, event.state_key): event for event in spec.initial_state}
    given = overridden.pop(("m.room.power_levels", ""), None)
    yield draft("m.room.power_levels", levels if given is None else given.content)
    if spec.alias is not None:
        yield draft("m.room.canonical_alias", {"alias": spec.alias})
    for event_type, content in preset_state(preset):
        if (event_type, "") not in overridden:
            yield draft(event_type, content)
    for (event_type, state_key), event in overridden.items():
        yield draft(event_type, event.content, state_key)
    if spec.name is not None:
        yield draft("m.room.name", {"name": spec.name})
    if spec.topic is not None:
        text = {"m.text": [{"body": spec.topic, "mimetype": "text/plain"}]}
        yield draft("m.room.topic", {"topic": spec.topic, "m.topic": text})


def _create_content(spec: RoomSpec, trusted: Sequence[UserID]) -> JsonObject:
    content = {**spec.creation_content, "room_version": spec.version.id}
    if not spec.version.implicit_room_creator:
        content["creator"] = spec.creator
    else:
        content.pop("creator", None)
    creators = _additional_creators(spec, trusted)
    if spec.version.privileged_creators and creators:
        content["additional_creators"] = list(creators)
    return content


def _additional_creators(spec: RoomSpec, trusted: Sequence[UserID]) -> tuple[UserID, ...]:
    if not spec.version.privileged_creators:
        return ()
    named = spec.creation_content.get("additional_creators", [])
    return tuple(dict.fromkeys(user for user in (*named, *trusted) if user != spec.creator))
