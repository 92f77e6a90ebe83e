"""What the rooms' services need of others, as small protocols; `homeserver/app.py` joins them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from homeserver.events.stored import StoredEvent
from homeserver.rooms.published import DirectoryQuery
from protocol.canonical_json import JsonObject
from protocol.events import Event, EventDraft
from protocol.identifiers import RoomAlias, RoomID, ServerName, UserID
from storage.transactions import TransactionKey


class RoomEvents(Protocol):
    """Sends events of local users (`homeserver.events.policed`, or `sending` where no policy server is)."""

    async def send(self, draft: EventDraft, *, now: int, txn: TransactionKey | None = None) -> StoredEvent:
        """Send one event and give it as it was committed; with a `txn` used before, give the first one."""
        ...

    async def send_many(self, drafts: Iterable[EventDraft], *, now: int) -> list[StoredEvent]:
        """Send events in order; raises the first failure after all have ended."""
        ...


class MemberProfiles(Protocol):
    """Gives what a member event tells of a local user."""

    async def member_fields(self, user_id: UserID) -> Mapping[str, str]:
        """Give `displayname` and `avatar_url`, those that are set."""
        ...


class RemoteRooms(Protocol):
    """Acts in rooms through other servers."""

    async def join(
        self, user_id: UserID, room_id: RoomID, via: Sequence[ServerName], content: JsonObject
    ) -> None:
        """Join a room this server has no part in, through one of `via`; the room is then known here."""
        ...

    async def knock(
        self, user_id: UserID, room_id: RoomID, via: Sequence[ServerName], content: JsonObject
    ) -> None:
        """Knock on a room this server has no part in."""
        ...

    async def leave(
        self, user_id: UserID, room_id: RoomID, via: Sequence[ServerName], content: JsonObject
    ) -> None:
        """Reject an invite or take back a knock, through the server it goes to."""
        ...

    async def invite(self, event: Event, stripped_state: Sequence[Event]) -> Event:
        """Have the invited user's server sign an invite; raises what that server refuses it with."""
        ...


class RemoteDirectory(Protocol):
    """Asks other servers for their names of rooms."""

    async def resolve_alias(self, alias: RoomAlias) -> tuple[RoomID, Sequence[ServerName]]:
        """Give the room of another server's alias and servers to join through; raises `NotFound`."""
        ...

    async def public_rooms(self, server: ServerName, query: DirectoryQuery) -> JsonObject:
        """Give a page of another server's published rooms; raises what it refuses that with."""
        ...


class DirectRooms(Protocol):
    """Reads and writes which rooms a user holds as private conversations (`m.direct`)."""

    async def get(self, user_id: UserID) -> Mapping[str, Any]:
        """Give the content of the user's `m.direct`."""
        ...

    async def add(self, user_id: UserID, other: UserID, room_id: RoomID) -> None:
        """Note a room under the other user's name; additions at the same time lose nothing."""
        ...


class RoomSettings(Protocol):
    """What users have set for rooms: tags, push rules, private conversations."""

    async def carry(self, user_id: UserID, old: RoomID, new: RoomID) -> None:
        """Set for a room what is set for the one it replaces, where nothing is set for it yet."""
        ...
