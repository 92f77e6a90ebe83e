"""What goes into the placing of received events, and what comes out. Values alone."""

from __future__ import annotations

from collections.abc import Sequence, Set
from enum import Enum
from typing import Protocol

from attrs import frozen

from homeserver.events.stored import Status, StoredEvent
from protocol.events import Event
from protocol.identifiers import EventID, RoomID, ServerName
from protocol.room_versions import RoomVersion
from storage.database import Transaction
from storage.rows import Rows


class Course(Enum):
    """How an event comes into a room."""

    RECEIVED = "received"
    """From another server, just now."""
    OWN = "own"
    """With this server's signature: it is sent on to all servers in the room."""
    PAST = "past"
    """As history: it moves nothing, and nobody is told."""


@frozen(eq=False)
class Incoming:
    """An event on its way into a room, with the numbers it will have."""

    event: Event
    nid: int
    sender_nid: int
    recommended: bool = True
    """The room's policy server, if it uses one, has signed it."""


@frozen
class Outcome:
    """What became of a received event: its status, and why, if it was not accepted.

    `status` is None for an event that cannot be judged yet, since those in `missing` are not here.
    """

    status: Status | None
    stored: StoredEvent | None = None
    reason: str = ""
    missing: Set[EventID] = frozenset()


class Delivery(Protocol):
    """What a server sent in one go, and what it is answered: kept with its events, in their commit."""

    def is_old(self, tx: Transaction, room_nid: int, event_ids: Sequence[EventID]) -> bool:
        """Tell whether it was answered before, or anything in the room knows of its events."""
        ...

    def answer(self, outcomes: Sequence[Outcome]) -> Rows | None:
        """Give the rows that keep its answer; None if these outcomes leave something to be done first."""
        ...


@frozen
class ImportedRoom:
    """A room as a server in it gave it to us on joining: checked events, whose state is yet to be judged."""

    version: RoomVersion
    room_id: RoomID
    create: Event
    join: Event
    """Our user's join, signed by all who must."""
    state: Sequence[Event]
    """The state before the join."""
    auth_chain: Sequence[Event]
    resident: ServerName
    """The server it came from."""
    servers: Sequence[ServerName]
    """The servers said to be in the room."""
