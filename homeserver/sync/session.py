"""Who syncs and how: the session and the options of a request."""

from __future__ import annotations

from attrs import frozen

from homeserver.sync.filters import DEFAULT_FILTER, Filter
from protocol.identifiers import DeviceID, UserID


@frozen
class Session:
    """One device of one user."""

    user_id: UserID
    user_nid: int
    device_id: DeviceID


@frozen(eq=False)
class Options:
    """What the client asked for beside the position."""

    filter: Filter = DEFAULT_FILTER
    full_state: bool = False
    state_after: bool = False
    """Give state at the end of the timeline instead of at its start (MSC4222)."""

    @property
    def state_name(self) -> bytes:
        """Name the member of a room that has its state."""
        return b"state_after" if self.state_after else b"state"


DEFAULT_OPTIONS = Options()
