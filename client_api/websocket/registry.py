"""All connections of this process: one for each device, so many for each user, and those not known yet.

Source: protocol/spec.md, "Authenticating" and "Closing"; security W4, W7.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from attrs import Factory, define

from homeserver.accounts.requester import Requester
from protocol.errors import LimitExceeded
from protocol.frames import GOING_AWAY, REPLACED, TOO_MANY_CONNECTIONS, CloseCode
from storage.feed import Entry, Kind

SPREAD_MS = 20_000
"""Over so long clients come back after a restart."""
FIRST_RETURN_MS = 1000
MAX_STRANGERS = 100
"""Connections of one address that are not authenticated yet."""
STRANGER_RETRY_MS = 5000


class Registered(Protocol):
    """A live connection."""

    def say_bye(self, code: CloseCode, retry_after_ms: int | None = None) -> None:
        """End the session."""

    def check_token(self) -> None:
        """See whether the session's token is still good."""


@define(eq=False)
class Registry:
    """Knows connections."""

    per_user: int
    _users: dict[int, dict[str, Registered]] = Factory(dict)
    """By user nid and device, the oldest first."""
    _strangers: dict[str, set[Registered]] = Factory(dict)
    """Connections that are not authenticated, by address."""
    changes: int = 0
    """Counts the sessions that changed: a token looked up meanwhile may be good no more."""

    def check_room_for(self, address: str) -> None:
        """See that an address may have one more stranger; raises LimitExceeded."""
        if len(self._strangers.get(address, ())) >= MAX_STRANGERS:
            raise LimitExceeded(STRANGER_RETRY_MS, "Too many connections that do not authenticate")

    def greet(self, address: str, connection: Registered) -> None:
        """Note a connection that is not authenticated yet."""
        self._strangers.setdefault(address, set()).add(connection)

    def part(self, address: str, connection: Registered) -> None:
        """Forget a connection that is authenticated now, or gone."""
        strangers = self._strangers.get(address)
        if strangers is not None:
            strangers.discard(connection)
            if not strangers:
                del self._strangers[address]

    def add(self, requester: Requester, connection: Registered) -> None:
        """Note a connection; the device's older one goes, and the user's oldest if there are too many."""
        devices = self._users.setdefault(requester.user_nid, {})
        older = devices.pop(requester.device_id, None)
        devices[requester.device_id] = connection
        oldest = next(iter(devices.values())) if len(devices) > self.per_user else None
        if older is not None:
            older.say_bye(REPLACED)
        if oldest is not None:
            oldest.say_bye(TOO_MANY_CONNECTIONS)

    def remove(self, requester: Requester, connection: Registered) -> bool:
        """Forget a connection that has ended; tells whether it was its device's."""
        devices = self._users.get(requester.user_nid, {})
        if devices.get(requester.device_id) is not connection:
            return False
        del devices[requester.device_id]
        if not devices:
            del self._users[requester.user_nid]
        return True

    def apply(self, entries: Sequence[Entry]) -> None:
        """Follow the feed: sessions that changed are checked again."""
        for entry in entries:
            if entry.kind != Kind.SESSION or entry.user_nid is None:
                continue
            self.changes += 1
            for connection in list(self._users.get(entry.user_nid, {}).values()):
                connection.check_token()

    def say_bye_to_all(self) -> None:
        """Tell everybody that the server restarts, to come back spread over time."""
        everybody = list(self._all())
        for number, connection in enumerate(everybody):
            connection.say_bye(GOING_AWAY, FIRST_RETURN_MS + SPREAD_MS * number // len(everybody))

    def _all(self) -> Iterator[Registered]:
        for devices in self._users.values():
            yield from devices.values()
        for strangers in self._strangers.values():
            yield from strangers

    def __len__(self) -> int:
        """Count the live connections."""
        return sum(len(devices) for devices in self._users.values())
