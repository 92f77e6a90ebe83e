"""EDUs of other servers: each type to the service it is for, each user held against the origin.

A malformed EDU, or one about users of another server than the origin, is passed over; its neighbours are not.

Source: server-server-api.md, "EDUs" and the definitions of each type.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, Final, Protocol, TypeVar

import msgspec
from attrs import frozen

from homeserver.devices.keys import DeviceKeys
from homeserver.devices.to_device import Parcel, ToDeviceMessages
from homeserver.ephemeral.deliveries import DeliveryMarks
from homeserver.ephemeral.presence import Presences
from homeserver.ephemeral.receipts import READ, Mark, ReadReceipts
from homeserver.ephemeral.ring import STATES, PresenceState
from homeserver.ephemeral.typing import TypingUsers
from homeserver.events.nids import Nids
from homeserver.sync.ephemeral_events import DELIVERED
from protocol.canonical_json import JsonObject
from protocol.errors import BadJson, MatrixError
from protocol.identifiers import (
    EventID,
    RoomID,
    ServerName,
    UserID,
    parse_event_id,
    parse_room_id,
    parse_user_id,
    server_of,
)
from protocol.limits import MAX_INTEGER

MAX_ITEMS: Final = 1_000
"""Users, receipts or devices looked at in one EDU."""


class _Typing(msgspec.Struct):
    room_id: str
    user_id: str
    typing: bool


class _Presence(msgspec.Struct):
    user_id: str
    presence: str
    last_active_ago: int = 0
    status_msg: str | None = None
    currently_active: bool = False


class _Presences(msgspec.Struct):
    push: list[Any]


class _ToDevice(msgspec.Struct):
    sender: str
    type: str
    message_id: str
    messages: dict[str, dict[str, dict[str, Any]]]


class _DeviceList(msgspec.Struct):
    user_id: str


class _ReceiptData(msgspec.Struct):
    ts: Annotated[int, msgspec.Meta(ge=0, le=MAX_INTEGER)] = 0
    thread_id: Annotated[str, msgspec.Meta(max_length=255)] | None = None


class _Receipt(msgspec.Struct):
    event_ids: list[str]
    data: _ReceiptData = msgspec.field(default_factory=_ReceiptData)


class _Delivered(msgspec.Struct):
    event_id: str
    ts: Annotated[int, msgspec.Meta(ge=0, le=MAX_INTEGER)] = 0


Handler = Callable[[ServerName, JsonObject, int], Awaitable[None]]
E = TypeVar("E")


class SpeakingRights(Protocol):
    """Knows which servers a room's ACL lets speak."""

    async def may_speak(self, origin: ServerName, room_id: RoomID) -> bool:
        """Tell whether the room is here and takes what the server says."""
        ...


@frozen(eq=False)
class IncomingEdus:
    """Takes EDUs in."""

    nids: Nids
    rights: SpeakingRights
    typing: TypingUsers
    receipts: ReadReceipts
    deliveries: DeliveryMarks
    presences: Presences
    to_device: ToDeviceMessages
    keys: DeviceKeys

    def handlers(self) -> Mapping[str, Handler]:
        """Give what handles each type."""
        return {
            "m.typing": self.take_typing,
            "m.receipt": self.take_receipts,
            DELIVERED: self.take_delivered,
            "m.presence": self.take_presence,
            "m.direct_to_device": self.take_to_device,
            "m.device_list_update": self.take_device_list,
            "m.signing_key_update": self.take_device_list,
        }

    async def take_typing(self, origin: ServerName, content: JsonObject, now: int) -> None:
        """Note that a user of the origin types, or no longer."""
        edu = _read(content, _Typing)
        room_id = parse_room_id(edu.room_id)
        room_nid = await self.nids.room(room_id)
        if room_nid is not None and await self.rights.may_speak(origin, room_id):
            await self.typing.set_remote(origin, parse_user_id(edu.user_id), room_nid, edu.typing)

    async def take_receipts(self, origin: ServerName, content: JsonObject, now: int) -> None:
        """Note how far users of the origin have read."""
        taken = 0
        for room_text, by_type in list(content.items())[:MAX_ITEMS]:
            room_id = _room_id(room_text)
            if room_id is None or not await self.rights.may_speak(origin, room_id):
                continue
            by_user = by_type.get(READ) if isinstance(by_type, dict) else None
            for user_text, raw in by_user.items() if isinstance(by_user, dict) else ():
                taken += 1
                if taken > MAX_ITEMS:
                    return
                await self._take_receipt(origin, room_id, user_text, raw)

    async def _take_receipt(self, origin: ServerName, room_id: RoomID, user_text: str, raw: object) -> None:
        try:
            user_id = parse_user_id(user_text)
            receipt = msgspec.convert(raw, _Receipt)
            event_id: EventID = parse_event_id(receipt.event_ids[-1])
        except (MatrixError, msgspec.ValidationError, IndexError):
            return
        mark = Mark(READ, event_id, receipt.data.thread_id)
        await self._set_receipt(origin, room_id, user_id, mark, receipt.data.ts)

    async def _set_receipt(
        self, origin: ServerName, room_id: RoomID, user_id: UserID, mark: Mark, ts: int
    ) -> None:
        try:
            await self.receipts.set_remote(origin, room_id, user_id, mark, ts)
        except MatrixError:
            return

    async def take_delivered(self, origin: ServerName, content: JsonObject, now: int) -> None:
        """Note how far what is said has come to users of the origin."""
        taken = 0
        for room_text, by_user in list(content.items())[:MAX_ITEMS]:
            room_id = _room_id(room_text)
            if room_id is None or not await self.rights.may_speak(origin, room_id):
                continue
            for user_text, raw in by_user.items() if isinstance(by_user, dict) else ():
                taken += 1
                if taken > MAX_ITEMS:
                    return
                await self._take_mark(origin, room_id, user_text, raw)

    async def _take_mark(self, origin: ServerName, room_id: RoomID, user_text: str, raw: object) -> None:
        try:
            mark, user_id = msgspec.convert(raw, _Delivered), parse_user_id(user_text)
            await self.deliveries.set_remote(origin, room_id, user_id, parse_event_id(mark.event_id), mark.ts)
        except (MatrixError, msgspec.ValidationError):
            return

    async def take_presence(self, origin: ServerName, content: JsonObject, now: int) -> None:
        """Note the presence of users of the origin."""
        told: dict[UserID, _Presence] = {}
        for raw in _read(content, _Presences).push[:MAX_ITEMS]:
            try:
                one = msgspec.convert(raw, _Presence)
                user_id = parse_user_id(one.user_id)
            except (MatrixError, msgspec.ValidationError):
                continue
            if one.presence in STATES and server_of(user_id) == origin:
                told[user_id] = one
        # Users who were never in a room with ours are nobody's to see.
        known = await self.nids.known_users(list(told))
        for user_id, one in told.items():
            if user_id in known:
                last = now - max(0, one.last_active_ago)
                status = one.status_msg[:1024] if one.status_msg is not None else None
                state = PresenceState(one.presence, status, last, one.currently_active)
                self.presences.set_remote(origin, user_id, state)

    async def take_to_device(self, origin: ServerName, content: JsonObject, now: int) -> None:
        """Put messages of a user of the origin into our devices' post."""
        edu = _read(content, _ToDevice)
        named = {_user_id(user): by for user, by in list(edu.messages.items())[:MAX_ITEMS]}
        messages = {user_id: by for user_id, by in named.items() if user_id is not None}
        parcel = Parcel(parse_user_id(edu.sender), edu.message_id[:255], edu.type[:255], messages)
        await self.to_device.receive(origin, parcel, now)

    async def take_device_list(self, origin: ServerName, content: JsonObject, now: int) -> None:
        """Note that the devices or keys of a user of the origin changed."""
        user_id = parse_user_id(_read(content, _DeviceList).user_id)
        user_nid = (await self.nids.known_users([user_id])).get(user_id)
        if server_of(user_id) == origin and user_nid is not None:
            await self.keys.remote_changed(user_nid)


def _user_id(text: str) -> UserID | None:
    try:
        return parse_user_id(text)
    except MatrixError:
        return None


def _room_id(text: str) -> RoomID | None:
    try:
        return parse_room_id(text)
    except MatrixError:
        return None


def _read(content: JsonObject, kind: type[E]) -> E:
    """Read the content of an EDU; raises `BadJson`."""
    try:
        return msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        raise BadJson(f"the EDU is malformed: {error}") from None
