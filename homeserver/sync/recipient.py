"""For whom, and up to where, a delta is rendered."""

from __future__ import annotations

from attrs import frozen

from homeserver.sync.session import Options, Session
from protocol.identifiers import UserID


@frozen(eq=False)
class Recipient:
    """One session at one moment."""

    session: Session
    options: Options
    ignored: frozenset[UserID]
    since: int
    """The feed position the client has; 0: nothing."""
    upto: int
    epoch: int
    now: int
    """Milliseconds, for the age of events."""
