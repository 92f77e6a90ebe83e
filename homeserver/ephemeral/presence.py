"""Presence: online, unavailable or offline, merged over a user's devices and connections.

A device that syncs keeps its presence; one that falls silent goes away by itself. Other servers are told
when what others see changes.

Source: client-server-api/modules/presence.md; server-server-api.md, "Presence".
"""

from __future__ import annotations

from collections import OrderedDict

from attrs import Factory, define, evolve

from homeserver.background import run_in_background
from homeserver.clock import Clock
from homeserver.ephemeral.ring import (
    OFFLINE,
    ONLINE,
    STATES,
    UNAVAILABLE,
    EphemeralRing,
    PresenceState,
    merge,
)
from homeserver.ephemeral.sharing import RoomSharing
from homeserver.ephemeral.typing import SendEdu
from protocol.errors import InvalidParam
from protocol.identifiers import ServerName, UserID, server_of

SILENCE_MS = 60_000
"""A device that has not been heard of for so long is offline."""
IDLE_MS = 300_000
"""How far the time of the last activity that others are told may lie behind."""
REPEAT_MS = 25 * 60_000
"""How often other servers are told that nothing has changed: they take a user for gone after half an hour."""
REMOTE_MS = 30 * 60_000
"""How long another server's user is as present as it said last."""
MAX_STATUS = 1024


@define
class _Device:
    presence: str
    heard: int


@define(eq=False)
class Presences:
    """The presence of local and remote users."""

    server_name: ServerName
    enabled: bool
    clock: Clock
    ring: EphemeralRing
    sharing: RoomSharing
    send_edu: SendEdu
    _devices: dict[UserID, dict[str, _Device]] = Factory(dict)
    _untold: dict[UserID, PresenceState] = Factory(dict)
    """The newest presence of users whose rooms are being read."""
    _told: dict[UserID, int] = Factory(dict)
    """When other servers were last told of local users who are present."""
    _remote: OrderedDict[UserID, int] = Factory(OrderedDict)
    """When other servers last said that users of theirs are present, the longest ago first."""
    _armed: bool = False

    def heard(self, user_id: UserID, device: str, presence: str = ONLINE) -> None:
        """Note that a device syncs, with the presence it asked for; `offline` leaves presence as it is.

        Raises:
            InvalidParam: no such presence.
        """
        _check(presence)
        if not self.enabled or presence == OFFLINE:
            return
        now = self.clock.now_ms()
        known = self._devices.get(user_id, {}).get(device)
        if known is not None and known.presence == presence and self._is_told(user_id, now):
            known.heard = now
            return
        self._devices.setdefault(user_id, {})[device] = _Device(presence, now)
        self._merge(user_id, active=presence == ONLINE)
        self._arm()

    def _is_told(self, user_id: UserID, now: int) -> bool:
        """Tell whether others have seen this user's presence, and their last activity closely enough."""
        present = self.ring.presence_of(user_id)
        return present is not None and user_id not in self._untold and present.last_active >= now - IDLE_MS

    def gone(self, user_id: UserID, device: str) -> None:
        """Note that a device has closed its connection."""
        devices = self._devices.get(user_id)
        if devices is not None and devices.pop(device, None) is not None:
            self._merge(user_id, active=False)

    def set_local(self, user_id: UserID, device: str, presence: str, status_msg: str | None) -> None:
        """Set what a local user wants others to see.

        Raises:
            InvalidParam: no such presence, or too long a message.
        """
        _check(presence)
        if status_msg is not None and len(status_msg) > MAX_STATUS:
            raise InvalidParam(f"status_msg: longer than {MAX_STATUS} characters")
        if not self.enabled:
            return
        now = self.clock.now_ms()
        self._devices.setdefault(user_id, {})[device] = _Device(presence, now)
        states = [each.presence for each in self._devices[user_id].values()]
        state = PresenceState(merge(states), status_msg, now, presence == ONLINE)
        self._publish(user_id, state)
        self._arm()

    def set_remote(self, origin: ServerName, user_id: UserID, state: PresenceState) -> None:
        """Note what another server says of its own user; others' users are passed over."""
        if not self.enabled or server_of(user_id) != origin:
            return
        self._remote.pop(user_id, None)
        if state.presence != OFFLINE:
            self._remote[user_id] = self.clock.now_ms()
            self._arm()
        self._publish(user_id, state)

    def get(self, user_id: UserID) -> PresenceState:
        """Give a user's presence; one never heard of is offline."""
        return self.ring.presence_of(user_id) or PresenceState()

    def _merge(self, user_id: UserID, *, active: bool) -> None:
        present = self._untold.get(user_id) or self.get(user_id)
        devices = self._devices.get(user_id, {})
        merged = merge(each.presence for each in devices.values())
        last = self.clock.now_ms() if active else present.last_active
        state = evolve(present, presence=merged, last_active=last, currently_active=merged == ONLINE)
        if (state.presence, state.currently_active) != (present.presence, present.currently_active):
            self._publish(user_id, state)
        elif active and present.last_active < last - IDLE_MS:
            self.ring.set_presence(user_id, state)

    def _publish(self, user_id: UserID, state: PresenceState) -> None:
        is_telling = user_id in self._untold
        self._untold[user_id] = state
        if not is_telling:
            run_in_background(self._tell(user_id), "telling presence")

    async def _tell(self, user_id: UserID) -> None:
        """Show a user's latest presence to those who share a room, here and on other servers."""
        try:
            await self.sharing.load(user_id)
        finally:
            state = self._untold.pop(user_id)
        self.ring.set_presence(user_id, state)
        if server_of(user_id) == self.server_name:
            others = await self.sharing.servers_of(user_id) - {self.server_name}
            state = self.get(user_id)  # a later one may have been told meanwhile
            content = {"push": [{"user_id": user_id, **self.ring.content(state)}]}
            if state.presence == OFFLINE:
                self._told.pop(user_id, None)
            else:
                self._told[user_id] = self.clock.now_ms()
            self.send_edu(others, "m.presence", ("presence", user_id), content)

    def _arm(self) -> None:
        if not self._armed:
            self._armed = True
            self.clock.call_later(SILENCE_MS / 2000, self._sweep)

    def _sweep(self) -> None:
        self._armed = False
        now = self.clock.now_ms()
        for user_id in list(self._devices):
            devices = self._devices[user_id]
            silent = [name for name, device in devices.items() if device.heard < now - SILENCE_MS]
            for name in silent:
                del devices[name]
            if silent:
                self._merge(user_id, active=False)
            if not devices:
                del self._devices[user_id]
        self._repeat(now)
        self._lose_sight(now)
        self.ring.forget_idle()
        if self._devices or self._remote:
            self._arm()

    def _repeat(self, now: int) -> None:
        """Tell other servers of users who are present as before, if that is long ago."""
        for user_id in [user_id for user_id, told in self._told.items() if told <= now - REPEAT_MS]:
            self._publish(user_id, self._untold.get(user_id) or self.get(user_id))

    def _lose_sight(self, now: int) -> None:
        """Take users for gone of whom their servers have said nothing for long."""
        while self._remote and next(iter(self._remote.values())) <= now - REMOTE_MS:
            user_id, _ = self._remote.popitem(last=False)
            self._publish(user_id, evolve(self.get(user_id), presence=OFFLINE, currently_active=False))


def _check(presence: str) -> None:
    if presence not in STATES:
        raise InvalidParam(f"presence: must be one of {ONLINE}, {UNAVAILABLE}, {OFFLINE}")
