"""Typing and presence in memory: the last value of each room and user, and when it changed.

A counter moves with every change; a reader tells how far it has read, and gets what changed since. The
counter's incarnation is named, so that a place in another process's ring is known as such.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Protocol

from attrs import Factory, define, frozen

from homeserver.sync.filters import ALL_EVENTS, EventFilter
from homeserver.sync.session import Session
from protocol.canonical_json import dumps
from protocol.identifiers import UserID

PRESENCE = "m.presence"
OFFLINE = "offline"
ONLINE = "online"
UNAVAILABLE = "unavailable"
STATES = (ONLINE, UNAVAILABLE, OFFLINE)
_RANK = {OFFLINE: 0, UNAVAILABLE: 1, ONLINE: 2}


def merge(states: Iterable[str]) -> str:
    """Give the presence of a user whose devices are in `states`: the most present of them."""
    return max(states, key=_RANK.__getitem__, default=OFFLINE)


@frozen
class PresenceState:
    """What others see of a user's presence; `last_active` is a time in milliseconds."""

    presence: str = OFFLINE
    status_msg: str | None = None
    last_active: int = 0
    currently_active: bool = False


class SharedRooms(Protocol):
    """Tells who may see whose presence."""

    def knows(self, user_id: UserID) -> bool:
        """Tell whether a user's rooms are in memory: they are forgotten when one changes."""
        ...

    async def load(self, user_id: UserID) -> None:
        """Read a user's rooms, unless they are in memory."""
        ...

    async def sight(self, session: Session) -> Collection[int]:
        """Give the rooms through which a session's user sees others."""
        ...

    def sees(self, sight: Collection[int], user_id: UserID) -> bool:
        """Tell whether one of the rooms is a room of a user of known presence."""
        ...


@define(eq=False)
class EphemeralRing:
    """The memory of typing and presence, as sync reads it."""

    ring: str
    """Names this incarnation: digits and lower-case letters."""
    now: Callable[[], int]
    shared: SharedRooms
    position: int = 0
    _typing: dict[int, tuple[int, Mapping[UserID, int]]] = Factory(dict)
    """Room nid to when it changed and who types until when."""
    _presence: dict[UserID, tuple[int, PresenceState]] = Factory(dict)
    _room_listeners: list[Callable[[int], None]] = Factory(list)
    _user_listeners: list[Callable[[UserID], None]] = Factory(list)

    def on_typing(self, listener: Callable[[int], None]) -> None:
        """Have `listener` told of the nid of each room where typing changed."""
        self._room_listeners.append(listener)

    def on_presence(self, listener: Callable[[UserID], None]) -> None:
        """Have `listener` told of each user whose presence changed."""
        self._user_listeners.append(listener)

    def typing_in(self, room_nid: int) -> Mapping[UserID, int]:
        """Give who types in a room, and until when."""
        return self._typing.get(room_nid, (0, {}))[1]

    def set_typing(self, room_nid: int, users: Mapping[UserID, int]) -> None:
        """Replace who types in a room; an empty mapping is kept, so that readers learn of the end."""
        self.position += 1
        self._typing[room_nid] = (self.position, users)
        for listener in self._room_listeners:
            listener(room_nid)

    def prolong(self, room_nid: int, users: Mapping[UserID, int]) -> None:
        """Move the ends of those who type already: nothing that readers see."""
        self._typing[room_nid] = (self._typing[room_nid][0], users)

    def presence_of(self, user_id: UserID) -> PresenceState | None:
        """Give a user's presence, None if nothing is known."""
        found = self._presence.get(user_id)
        return None if found is None else found[1]

    def set_presence(self, user_id: UserID, state: PresenceState) -> None:
        """Replace a user's presence."""
        self.position += 1
        self._presence.pop(user_id, None)
        self._presence[user_id] = (self.position, state)
        for listener in self._user_listeners:
            listener(user_id)

    def typing(self, room_nids: Collection[int], after: int | None) -> Mapping[int, Sequence[UserID]]:
        """Give who types now where that changed after `after`; None: where anyone types."""
        if after is not None and after >= self.position:
            return {}
        found = {}
        for room_nid in room_nids if len(room_nids) < len(self._typing) else self._typing:
            place = self._typing.get(room_nid)
            if place is None or room_nid not in room_nids:
                continue
            changed, users = place
            if (after is None and users) or (after is not None and changed > after):
                found[room_nid] = tuple(users)
        return found

    async def presence(
        self, session: Session, after: int | None, wanted: EventFilter = ALL_EVENTS
    ) -> Sequence[bytes]:
        """Give `m.presence` events that changed after `after`; None: of all who are not offline."""
        if (after is not None and after >= self.position) or not wanted.allows_type(PRESENCE):
            return ()
        changed = [each for each in self._changed(after) if wanted.allows_sender(each[0])]
        for user_id, _ in changed:
            if not self.shared.knows(user_id):
                await self.shared.load(user_id)
        sight = await self.shared.sight(session)
        return [
            self.render(user_id, state)
            for user_id, state in changed
            if user_id == session.user_id or self.shared.sees(sight, user_id)
        ]

    def _changed(self, after: int | None) -> list[tuple[UserID, PresenceState]]:
        """Give whose presence changed after `after`, the newest first; None: who is not offline."""
        found = []
        for user_id, (changed, state) in reversed(self._presence.items()):
            if after is not None and changed <= after:
                break
            if after is not None or state.presence != OFFLINE:
                found.append((user_id, state))
        return found

    def render(self, user_id: UserID, state: PresenceState) -> bytes:
        """Give the `m.presence` event of a user as clients read it."""
        return dumps({"type": PRESENCE, "sender": user_id, "content": self.content(state)})

    def content(self, state: PresenceState) -> dict[str, object]:
        """Give what is told of a presence."""
        content: dict[str, object] = {"presence": state.presence}
        if state.last_active:
            content["last_active_ago"] = max(0, self.now() - state.last_active)
        if state.status_msg is not None:
            content["status_msg"] = state.status_msg
        if state.presence == ONLINE:
            content["currently_active"] = state.currently_active
        return content

    def forget_idle(self) -> None:
        """Drop rooms where nobody types and users long offline, when there are very many."""
        if len(self._typing) > MAX_KEPT:
            self._typing = {nid: place for nid, place in self._typing.items() if place[1]}
        if len(self._presence) > MAX_KEPT:
            self._presence = {
                user: place for user, place in self._presence.items() if place[1].presence != OFFLINE
            }


MAX_KEPT = 20_000
"""Rooms and users remembered although nothing is to be told of them any more."""
