"""Read receipts and read markers.

Source: client-server-api/modules/receipts.md; modules/read_markers.md.
"""

from __future__ import annotations

from typing import Protocol

import msgspec
from attrs import frozen

from client_api.bodies import event_of, room_of
from client_api.paths import v3
from homeserver.ephemeral.receipts import READ, READ_PRIVATE, Mark, ReadReceipts
from homeserver.http.calls import EMPTY, Call, Reply
from homeserver.http.routing import Auth, RateClass, Route
from protocol.errors import InvalidParam
from protocol.identifiers import EventID, RoomID, UserID, parse_event_id

FULLY_READ = "m.fully_read"


class Receipt(msgspec.Struct, frozen=True):
    """The body of a receipt."""

    thread_id: str | None = None


class ReadMarkers(msgspec.Struct, frozen=True):
    """The body of read markers."""

    fully_read: str | None = msgspec.field(default=None, name="m.fully_read")
    read: str | None = msgspec.field(default=None, name="m.read")
    read_private: str | None = msgspec.field(default=None, name="m.read.private")


class FullyRead(Protocol):
    """Keeps how far a user has read a room, for that user's own devices."""

    async def set_fully_read(self, user_id: UserID, room_id: RoomID, event_id: EventID) -> None:
        """Put `m.fully_read` into the user's account data of the room."""
        ...


@frozen(eq=False)
class Receipts:
    """How far users have read."""

    receipts: ReadReceipts
    markers: FullyRead

    async def receipt(self, call: Call[Receipt]) -> Reply:
        """POST …/rooms/{roomId}/receipt/{receiptType}/{eventId}."""
        kind, event_id, user_id = call.path["receiptType"], event_of(call), call.requester.user_id
        if kind == FULLY_READ:
            if call.body.thread_id is not None:
                raise InvalidParam("thread_id: m.fully_read is of the whole room")
            await self.markers.set_fully_read(user_id, room_of(call), event_id)
        else:
            mark = Mark(kind, event_id, call.body.thread_id)
            await self.receipts.set_local(user_id, room_of(call), mark, call.now)
        return EMPTY

    async def read_markers(self, call: Call[ReadMarkers]) -> Reply:
        """POST …/rooms/{roomId}/read_markers."""
        user_id, room_id, body = call.requester.user_id, room_of(call), call.body
        for kind, text in ((READ, body.read), (READ_PRIVATE, body.read_private)):
            if text is not None:
                await self.receipts.set_local(user_id, room_id, Mark(kind, parse_event_id(text)), call.now)
        if body.fully_read is not None:
            await self.markers.set_fully_read(user_id, room_id, parse_event_id(body.fully_read))
        return EMPTY

    def routes(self) -> tuple[Route, ...]:
        """List what this family serves."""
        receipt = v3("/rooms/{roomId}/receipt/{receiptType}/{eventId}")
        markers = v3("/rooms/{roomId}/read_markers")
        limit, auth = RateClass.EPHEMERAL, Auth.GUEST
        return (
            Route("POST", receipt, self.receipt, body=Receipt, limit=limit, auth=auth),
            Route("POST", markers, self.read_markers, body=ReadMarkers, limit=limit, auth=auth),
        )
