"""Typing notifications: who is typing, until when, told here and to other servers.

Source: client-server-api/modules/typing_notifications.md; server-server-api.md, "Typing Notifications".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from attrs import Factory, define

from homeserver.clock import Clock
from homeserver.ephemeral.ring import EphemeralRing
from homeserver.events.heads import Heads, RoomHead
from homeserver.events.stored import StoredEvent
from protocol.canonical_json import JsonObject
from protocol.errors import Forbidden
from protocol.identifiers import RoomID, ServerName, UserID, server_of
from storage.feed import Entry, Flag

MAX_TYPING_MS = 120_000
REMOTE_TYPING_MS = 60_000
"""How long another server's user types unless it says so again; some say so every 40 seconds alone."""
TOLD_MS = 20_000
"""How often other servers are told at most that a user goes on typing; some forget it after 30 seconds."""
MAX_USERS = 100
"""Users shown as typing in one room; who comes later is not shown until one stops."""


class SendEdu(Protocol):
    """Sends an EDU to servers; of several under one key the last counts."""

    def __call__(
        self, servers: Iterable[ServerName], edu_type: str, key: object, content: JsonObject
    ) -> None:
        """Queue the EDU."""
        ...


@define(eq=False)
class TypingUsers:
    """Who types where."""

    server_name: ServerName
    clock: Clock
    heads: Heads
    ring: EphemeralRing
    send_edu: SendEdu
    _armed: bool = False
    _rooms: set[int] = Factory(set)
    _told: dict[tuple[int, UserID], int] = Factory(dict)
    """When other servers were last told that a local user types."""

    async def set_local(self, user_id: UserID, room_nid: int, timeout_ms: int | None) -> None:
        """Note that a local user types for so long, or (None) no longer; raises `Forbidden`."""
        head = await self.heads.get(room_nid)
        if user_id not in head.local_members:
            raise Forbidden("You are not in this room")
        now = self.clock.now_ms()
        until = None if timeout_ms is None else now + min(timeout_ms, MAX_TYPING_MS)
        told = self._told.get((room_nid, user_id))
        self._set(room_nid, user_id, until)
        shown = user_id in self.ring.typing_in(room_nid)
        if shown != (told is not None) or (told is not None and told + TOLD_MS <= now):
            self._tell_servers(head, user_id, shown)

    async def set_remote(self, origin: ServerName, user_id: UserID, room_nid: int, typing: bool) -> None:
        """Note what another server says of its own user; others' users and non-members are passed over."""
        head = await self.heads.get(room_nid)
        if server_of(user_id) != origin or not head.local_members:
            return
        member = (await head.state([("m.room.member", user_id)])).get(("m.room.member", user_id))
        if member is None or member.membership != "join":
            return
        self._set(room_nid, user_id, self.clock.now_ms() + REMOTE_TYPING_MS if typing else None)

    def _set(self, room_nid: int, user_id: UserID, until: int | None) -> None:
        now = self.clock.now_ms()
        users = {user: end for user, end in self.ring.typing_in(room_nid).items() if end > now}
        shown = user_id in users
        if until is None:
            users.pop(user_id, None)
        elif len(users) < MAX_USERS or shown:
            users[user_id] = until
        if users.keys() != self.ring.typing_in(room_nid).keys():
            self.ring.set_typing(room_nid, users)
        elif shown and until is not None:
            self.ring.prolong(room_nid, users)
        if users:
            self._rooms.add(room_nid)
            self._arm()
        else:
            self._rooms.discard(room_nid)

    def apply(self, entries: Sequence[Entry]) -> None:
        """Follow the feed: whoever is not in a room any more does not type in it."""
        for entry in entries:
            if entry.room_nid not in self._rooms or not entry.flags & Flag.MEMBERSHIP:
                continue
            stored = entry.payload
            if isinstance(stored, StoredEvent) and stored.event.membership != "join":
                user_id = UserID(stored.event.state_key or "")
                if entry.room_nid is not None and user_id in self.ring.typing_in(entry.room_nid):
                    self._set(entry.room_nid, user_id, None)

    def _arm(self) -> None:
        if not self._armed:
            self._armed = True
            self.clock.call_later(1.0, self._expire)

    def _expire(self) -> None:
        now = self.clock.now_ms()
        for room_nid in list(self._rooms):
            users = self.ring.typing_in(room_nid)
            left = {user: end for user, end in users.items() if end > now}
            if len(left) != len(users):
                self.ring.set_typing(room_nid, left)
                self._tell_of_ended(room_nid, users.keys() - left.keys())
            if not left:
                self._rooms.discard(room_nid)
        self._armed = False
        if self._rooms:
            self._arm()

    def _tell_of_ended(self, room_nid: int, users: Iterable[UserID]) -> None:
        head = self.heads.peek(room_nid)
        for user_id in users:
            if head is not None and server_of(user_id) == self.server_name:
                self._tell_servers(head, user_id, False)
            self._told.pop((room_nid, user_id), None)

    def _tell_servers(self, head: RoomHead, user_id: UserID, typing: bool) -> None:
        if typing:
            self._told[head.room_nid, user_id] = self.clock.now_ms()
        else:
            self._told.pop((head.room_nid, user_id), None)
        others = [server for server in head.servers if server != self.server_name]
        room_id: RoomID = head.room_id
        content: JsonObject = {"room_id": room_id, "user_id": user_id, "typing": typing}
        self.send_edu(others, "m.typing", ("typing", room_id, user_id), content)
