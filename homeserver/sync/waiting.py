"""Wake the sessions that something new concerns, and no others.

An entry of a room concerns the users joined in it, an entry of a user that user, a changed device list
those who share a room with its owner. Sessions are called in a later turn of the reactor, a slice at a
time, so that neither a commit nor the reactor waits for them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from itertools import islice

from attrs import define
from twisted.logger import Logger

from homeserver.background import run_in_background
from homeserver.clock import Clock
from homeserver.sync.memberships import UserRooms
from storage import shared_rooms
from storage.database import Database
from storage.feed import Entry, Kind

log = Logger()

_NOT_FOR_ALL = (Kind.DELIVERED, Kind.CHANGED)
"""Entries of rooms that are no news to those who are joined."""

SLICE = 50
"""Sessions called in one turn of the reactor."""


@define(eq=False)
class Subscription:
    """A session that wants to be called; `on_wake` is called once for any number of entries of a turn."""

    user_nid: int
    on_wake: Callable[[], None]
    _waiters: Waiters

    def cancel(self) -> None:
        """Be called no more."""
        self._waiters.forget(self)


class Waiters:
    """Sessions by user."""

    def __init__(self, database: Database, rooms: UserRooms, clock: Clock) -> None:
        """Start with nobody waiting."""
        self._database = database
        self._rooms = rooms
        self._clock = clock
        self._by_user: dict[int, set[Subscription]] = {}
        self._due: dict[Subscription, None] = {}
        self._scheduled = False

    def subscribe(self, user_nid: int, on_wake: Callable[[], None]) -> Subscription:
        """Call `on_wake` whenever something concerns the user, until the subscription is cancelled."""
        subscription = Subscription(user_nid, on_wake, self)
        self._by_user.setdefault(user_nid, set()).add(subscription)
        return subscription

    def forget(self, subscription: Subscription) -> None:
        """Drop a subscription."""
        of_user = self._by_user.get(subscription.user_nid)
        self._due.pop(subscription, None)
        if of_user is not None:
            of_user.discard(subscription)
            if not of_user:
                del self._by_user[subscription.user_nid]

    def apply(self, entries: Sequence[Entry]) -> None:
        """Wake whom entries concern. A listener of the feed, after all caches."""
        users = self._rooms.take_unsettled()
        if not self._by_user:
            return
        rooms = (entry.room_nid for entry in entries if entry.kind not in _NOT_FOR_ALL)
        for room_nid in {nid for nid in rooms if nid is not None}:
            users.update(self._in_room(room_nid))
        for entry in entries:
            if entry.user_nid is not None:
                users.add(entry.user_nid)
            if entry.kind == Kind.DEVICE_LIST and entry.user_nid is not None:
                run_in_background(self._wake_sharing(entry.user_nid), "waking for a device list")
        self.wake_users(users)

    def wake_users(self, users: Collection[int]) -> None:
        """Wake all sessions of users."""
        waiting = self._by_user
        found = users if len(users) < len(waiting) else waiting.keys() & set(users)
        for user_nid in found:
            for subscription in waiting.get(user_nid, ()):
                self._due[subscription] = None
        if self._due and not self._scheduled:
            self._scheduled = True
            self._clock.soon(self._call)

    def wake_room(self, room_nid: int) -> None:
        """Wake all sessions of users joined in a room, as for typing."""
        self.wake_users(self._in_room(room_nid))

    def _in_room(self, room_nid: int) -> list[int]:
        """Give the waiting users who are joined in a room."""
        known, waiting = self._rooms.known_users(room_nid), self._by_user
        few = known if len(known) < len(waiting) else waiting.keys()
        return [user for user in few if user in waiting and self._rooms.is_joined(user, room_nid)]

    async def _wake_sharing(self, user_nid: int) -> None:
        """Wake those who share a room with a user."""
        for room_nid in await self._database.read(shared_rooms.joined_rooms, user_nid):
            self.wake_room(room_nid)

    def _call(self) -> None:
        """Call one slice of the sessions that are due."""
        for subscription in list(islice(self._due, SLICE)):
            if self._due.pop(subscription, subscription) is not None:
                continue
            try:
                subscription.on_wake()
            except Exception:
                log.failure("waking a session failed")
        self._scheduled = bool(self._due)
        if self._due:
            self._clock.soon(self._call)
