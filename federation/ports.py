"""What the server edge needs of the services, as small protocols.

Each stands here, beside its users, where the service is still to be chosen by `homeserver/app.py`; what
fits one of these needs to know nothing of this layer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import ParamSpec, Protocol, TypeVar

from homeserver.events.received import Course, ImportedRoom, Outcome
from homeserver.events.stored import StoredEvent
from protocol.canonical_json import JsonObject
from protocol.events import Event
from protocol.identifiers import EventID, RoomID, ServerName, UserID
from protocol.room_versions import RoomVersion
from storage.feed import Entry

P = ParamSpec("P")
T = TypeVar("T")


class RunOnThread(Protocol):
    """Runs work that lets go of the interpreter lock on another thread."""

    def __call__(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Awaitable[T]:
        """Run `work` on a thread and give its result."""
        ...


class FeedSource(Protocol):
    """The feed, as the sender listens to it (`homeserver.feed.tail.Feed`)."""

    @property
    def position(self) -> int:
        """Give the last position."""
        ...

    def add_session_listener(self, listener: Callable[[Sequence[Entry]], None]) -> None:
        """Have `listener` called with contiguous entries, in order, after all caches moved."""
        ...


class EventReader(Protocol):
    """Reads events of a room (`homeserver.events.event_store.Events`)."""

    async def by_nid(self, room_nid: int, nids: Collection[int]) -> Mapping[int, StoredEvent]:
        """Give the events of a room that have these nids; unknown ones are absent."""
        ...


class RoomServers(Protocol):
    """Which servers have joined members at a state of a room."""

    async def at(self, room_nid: int, root: bytes) -> Collection[ServerName]:
        """Give the servers with a joined member in the state with this root."""
        ...

    def are_the_same(self, room_nid: int, before: bytes, after: bytes) -> None:
        """Note that the servers of a state, if they are known, are those of another too."""
        ...


class ReceivedEvents(Protocol):
    """Places events of other servers (`homeserver.events.gaps.Gaps`)."""

    async def receive(
        self, room_nid: int, event: Event, *, origin: ServerName, course: Course = Course.RECEIVED
    ) -> Outcome:
        """Judge and place an event, fetching what it needs; `Course.OWN`: we pass it on to the room."""
        ...

    async def bridge(self, room_nid: int, event: Event, *, origin: ServerName) -> None:
        """Place an event whose past nobody gives, as history on a state that a server claims."""
        ...


class RoomImports(Protocol):
    """Takes over rooms that local users have joined (`homeserver.events.importing.RoomImport`)."""

    async def is_here(self, given: ImportedRoom) -> bool:
        """Tell whether this server has members in the room: then the join is an event like others."""
        ...

    async def take(self, given: ImportedRoom) -> int | None:
        """Take a room over and give its nid; None if it is here by now; raises MatrixError if neither."""
        ...


class OutsideMemberships(Protocol):
    """Keeps memberships in rooms this server is not in (`homeserver.events.outside`)."""

    async def begin(
        self, version: RoomVersion, event: Event, stripped_state: Sequence[JsonObject], *, now: int
    ) -> None:
        """Keep an invite to or a knock by a local user, and tell the user."""
        ...

    async def end(self, room_id: RoomID, user_id: UserID, event: Event | None, *, now: int) -> None:
        """Keep that a local user has left; None: no other server has heard of it."""
        ...


class AuthChains(Protocol):
    """Reads auth chains of a room this server is in (`homeserver.events.auth_chains`)."""

    async def of_state(self, room_nid: int, event_nids: Sequence[int]) -> list[int]:
        """Give the nids of all events in the auth chains of these state events."""
        ...

    async def of_event(self, room_nid: int, event_id: EventID) -> list[int]:
        """Give the nids of all events in the auth chain of one event, of any kind."""
        ...


class LocalUsers(Protocol):
    """Knows the accounts of this server."""

    async def exists(self, user_id: UserID) -> bool:
        """Tell whether there is an active account."""
        ...


class InvitePermissions(Protocol):
    """Whether a local user takes invites."""

    async def require_allowed(self, sender: UserID, target: UserID, room_id: RoomID) -> None:
        """Raise Forbidden or `M_INVITE_BLOCKED` if the user, or this server, does not take the invite."""
        ...
