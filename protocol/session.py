"""The state machine of a WebSocket session, and the window that bounds what is sent unacknowledged.

The machine is the table `NEXT`: a frame that has no entry in the present state is a protocol error.
`spec.md` draws the machine; a test holds the drawing against the table. The session's transport and
its feed are elsewhere: this file only says what may happen when.

Source: protocol/spec.md, "States of a session" and "Flow control".
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from enum import Enum

from protocol.errors import BadJson, Forbidden, MatrixError
from protocol.frames import (
    Ack,
    Auth,
    Cancel,
    ClientFrame,
    Message,
    Ping,
    Pong,
    Presence,
    Read,
    Request,
    Typing,
)


class State(Enum):
    """Where a session stands."""

    GREETED = "greeted"
    """The socket is open and `hello` is sent; the client has ten seconds to send `auth`."""
    CHECKING = "checking"
    """The token is being checked."""
    LIVE = "live"
    """Authenticated: requests are answered and the feed is pushed."""
    CLOSED = "closed"
    """`bye` is sent or the socket is gone."""


class Event(Enum):
    """What moves a session besides the client's frames."""

    ACCEPTED = "accepted"
    """The token is good."""
    REFUSED = "refused"
    """The token is not good."""
    ENDED = "ended"
    """The server says `bye`, or the socket closes."""


NEXT: Mapping[tuple[State, type[ClientFrame] | Event], State] = {
    (State.GREETED, Auth): State.CHECKING,
    (State.GREETED, Ping): State.GREETED,
    (State.GREETED, Pong): State.GREETED,
    (State.GREETED, Event.ENDED): State.CLOSED,
    (State.CHECKING, Ping): State.CHECKING,
    (State.CHECKING, Pong): State.CHECKING,
    (State.CHECKING, Event.ACCEPTED): State.LIVE,
    (State.CHECKING, Event.REFUSED): State.CLOSED,
    (State.CHECKING, Event.ENDED): State.CLOSED,
    (State.LIVE, Auth): State.LIVE,
    (State.LIVE, Request): State.LIVE,
    (State.LIVE, Cancel): State.LIVE,
    (State.LIVE, Message): State.LIVE,
    (State.LIVE, Read): State.LIVE,
    (State.LIVE, Typing): State.LIVE,
    (State.LIVE, Presence): State.LIVE,
    (State.LIVE, Ack): State.LIVE,
    (State.LIVE, Ping): State.LIVE,
    (State.LIVE, Pong): State.LIVE,
    (State.LIVE, Event.REFUSED): State.CLOSED,
    (State.LIVE, Event.ENDED): State.CLOSED,
    (State.CLOSED, Event.ENDED): State.CLOSED,
}


def next_state(state: State, happening: ClientFrame | Event) -> State:
    """Give the state after `happening`.

    Raises:
        Forbidden: the frame needs an authenticated session.
        BadJson: the happening has no place in this state.
    """
    kind = happening if isinstance(happening, Event) else type(happening)
    found = NEXT.get((state, kind))
    if found is not None:
        return found
    raise _misplaced(state, kind)


def _misplaced(state: State, kind: type[ClientFrame] | Event) -> MatrixError:
    if state in (State.GREETED, State.CHECKING) and not isinstance(kind, Event):
        return Forbidden("Not authenticated")
    name = kind.value if isinstance(kind, Event) else kind.__struct_config__.tag
    return BadJson(f"{name} has no place in a session that is {state.value}")


class Window:
    """Count sync frames sent and not yet acknowledged, in frames and in bytes."""

    __slots__ = ("_max_bytes", "_max_frames", "_pending", "_size", "last_sent")

    def __init__(self, max_frames: int, max_bytes: int) -> None:
        """Allow `max_frames` and about `max_bytes` under way at once."""
        self._max_frames = max_frames
        self._max_bytes = max_bytes
        self._pending: deque[tuple[int, int]] = deque()
        self._size = 0
        self.last_sent = 0

    @property
    def is_open(self) -> bool:
        """Tell whether another frame may be built; one that is larger than the window may go alone."""
        return len(self._pending) < self._max_frames and self._size < self._max_bytes

    def send(self, size: int) -> int:
        """Count a frame of `size` bytes and give its `seq`."""
        self.last_sent += 1
        self._pending.append((self.last_sent, size))
        self._size += size
        return self.last_sent

    def acknowledge(self, seq: int) -> None:
        """Free the window of all frames up to `seq`; an older `seq` again is harmless.

        Raises:
            BadJson: `seq` was never sent.
        """
        if seq > self.last_sent:
            raise BadJson(f"ack: seq {seq} was never sent; the last is {self.last_sent}")
        while self._pending and self._pending[0][0] <= seq:
            self._size -= self._pending.popleft()[1]
