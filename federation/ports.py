"""What the server edge needs of the services, as small protocols.

Each stands here, beside its users, where the service is still to be chosen by `homeserver/app.py`; what
fits one of these needs to know nothing of this layer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import ParamSpec, Protocol, TypeVar

from homeserver.events.stored import StoredEvent
from protocol.identifiers import ServerName
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
