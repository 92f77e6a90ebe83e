"""Pushing what changed: deltas built only when the client can take them, from where it stopped.

Nothing is queued for a slow client but the rest of one delta, not yet encoded. To-device messages are
dropped only when the frame that had them is acknowledged.

Source: protocol/spec.md, "Sync frames" and "Flow control"; security W5.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator

from attrs import Factory, define, field, frozen
from twisted.internet.defer import CancelledError
from twisted.logger import Logger

from homeserver.background import run_in_background
from homeserver.clock import Clock
from homeserver.sync.delta import Delta
from homeserver.sync.feed import SessionFeed
from homeserver.sync.long_poll import LongPoll
from homeserver.sync.room_part import RoomPart
from homeserver.sync.session import Options, Session
from homeserver.sync.tokens import SyncToken
from homeserver.sync.waiting import Subscription, Waiters
from protocol.session import Window

log = Logger()

GROUP_BYTES = 32_768
"""Rooms of a large delta are sent together up to about so many bytes."""
RETRY_SECONDS = 2.0
"""How long to wait after a delta could not be built."""


@frozen(eq=False)
class Feeding:
    """What all pushers share."""

    feed: SessionFeed
    polls: LongPoll
    """Computes first syncs, few at a time."""
    waiters: Waiters
    clock: Clock


@define(eq=False)
class _Cut:
    """The rest of a delta that is on its way: groups of rooms, the most recent first."""

    delta: Delta
    groups: deque[list[RoomPart]]

    @classmethod
    def of(cls, delta: Delta) -> _Cut:
        if len(delta.rooms) <= 1:
            return cls(delta, deque([list(delta.rooms)]))
        return cls(delta, deque(_groups(delta.by_recency())))

    def next(self) -> bytes:
        """Encode the next frame; all that is no room goes with the last."""
        rooms = self.groups.popleft()
        if len(self.delta.rooms) <= 1:
            return self.delta.to_json()
        return self.delta.frame(rooms, last=not self.groups)


@define(eq=False)
class Pusher:
    """Pushes to one client."""

    _feeding: Feeding
    _session: Session
    _options: Options
    _window: Window
    _send: Callable[[bytes], None]
    _at: SyncToken | None
    """Where the client is once all is sent; None: it has nothing."""
    _writable: bool = True
    _held: bool = False
    _rest: _Cut | None = None
    _sent: deque[tuple[int, SyncToken]] = Factory(deque)
    """Last frames of deltas that are not acknowledged: `seq`, and where the client is with it."""
    _dropped: int = field(init=False)
    """The last to-device message that the client is known to have."""
    _subscription: Subscription | None = None
    _running: bool = False
    _news: bool = False
    _keeps_messages: bool = False
    _has_more: bool = True
    """There may be to-device messages behind the last delta, though the feed has not moved."""
    _stopped: bool = False

    @_dropped.default
    def _dropped_at_first(self) -> int:
        return 0 if self._at is None else self._at.device

    def start(self) -> None:
        """Begin to push."""
        self._subscription = self._feeding.waiters.subscribe(self._session.user_nid, self.wake)
        self.wake()

    def stop(self) -> None:
        """Push no more."""
        self._stopped = True
        self._rest = None
        if self._subscription is not None:
            self._subscription.cancel()

    @property
    def last_sent(self) -> int:
        """Tell the `seq` of the last frame."""
        return self._window.last_sent

    def wake(self) -> None:
        """Note that there may be something new, and push it as soon as the client can take it."""
        self._news = True
        self._go_on()

    def acknowledge(self, seq: int) -> None:
        """Free the window up to a frame; raises `BadJson` for one never sent."""
        self._window.acknowledge(seq)
        at: SyncToken | None = None
        while self._sent and self._sent[0][0] <= seq:
            at = self._sent.popleft()[1]
        if at is not None:
            feed = self._feeding.feed
            feed.arrived(self._session, at.pos)
            if at.device > self._dropped:
                self._dropped = at.device
                run_in_background(feed.received(self._session, at.device), "dropping messages")
        self._go_on()

    def pause(self) -> None:
        """Wait: the socket takes no more."""
        self._writable = False

    def resume(self) -> None:
        """Go on: the socket takes bytes again."""
        self._writable = True
        self._go_on()

    def hold(self, held: bool) -> None:
        """Push nothing while it is not known whether the client still may have it."""
        self._held = held
        self._go_on()

    def _may_send(self) -> bool:
        has_work = self._news or self._rest is not None
        is_let = self._writable and not self._held and not self._stopped
        return has_work and is_let and self._window.is_open

    def _go_on(self) -> None:
        if not self._running and self._may_send():
            self._running = True
            run_in_background(self._push(), "pushing to a WebSocket")

    async def _push(self) -> None:
        try:
            while self._may_send():
                if self._rest is None:
                    self._news = False
                    self._rest = await self._build()
                if self._rest is not None and self._may_send():
                    self._send_next(self._rest)
        except CancelledError:
            raise
        except Exception:
            log.failure("a delta could not be built")
            self._feeding.clock.call_later(RETRY_SECONDS, self.wake)
        finally:
            self._running = False

    async def _build(self) -> _Cut | None:
        """Compute what is new since the last delta; None: nothing."""
        feed, at = self._feeding.feed, self._at
        if at is None:
            delta = await self._feeding.polls.sync(self._session, None, self._options, 0)
        elif not self._has_more and feed.is_still(at):
            return None
        else:
            now, keep = self._feeding.clock.now_ms(), self._keeps_messages
            delta = await feed.delta(self._session, at, self._options, now=now, keep_messages=keep)
        self._keeps_messages = True
        self._has_more = bool(delta.to_device)
        if at is not None and delta.is_empty:
            self._at = delta.next_batch
            return None
        return None if self._stopped else _Cut.of(delta)

    def _send_next(self, rest: _Cut) -> None:
        """Send the next frame of a delta."""
        frame = rest.next()
        seq = self._window.send(len(frame))
        self._send(b'{"type":"sync","seq":%d%b%b' % (seq, b"," if len(frame) > 2 else b"", frame[1:]))
        if rest.groups:
            return
        self._sent.append((seq, rest.delta.next_batch))
        self._at, self._rest = rest.delta.next_batch, None
        self._news = self._news or self._has_more


def _groups(rooms: Iterable[RoomPart]) -> Iterator[list[RoomPart]]:
    group: list[RoomPart] = []
    size = 0
    for room in rooms:
        if group and size + len(room.body) > GROUP_BYTES:
            yield group
            group, size = [], 0
        group.append(room)
        size += len(room.body)
    if group:
        yield group
