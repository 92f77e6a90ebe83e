"""Who syncs and how: the session and the options of a request."""

from __future__ import annotations

from attrs import frozen

from homeserver.sync.filters import DEFAULT_FILTER, Filter
from protocol.identifiers import DeviceID, UserID

STATE = b"state"
STATE_AFTER = b"state_after"
STATE_AFTER_UNSTABLE = b"org.matrix.msc4222.state_after"


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
    state_name: bytes = STATE
    """The member of a room that has its state; clients that ask by the name of MSC4222 read that alone."""

    @property
    def state_after(self) -> bool:
        """Tell whether to give state at the end of the timeline instead of at its start."""
        return self.state_name != STATE


DEFAULT_OPTIONS = Options()
