"""Who makes a request: an account, one of its devices, and what the account may do at present."""

from __future__ import annotations

from attrs import frozen

from protocol.identifiers import DeviceID, UserID


@frozen
class Requester:
    """An authenticated account on one of its devices, as it stands now."""

    user_id: UserID
    user_nid: int
    device_id: DeviceID
    session_nid: int
    """The session of the access token, named by feed entries of kind SESSION."""
    is_guest: bool = False
    is_admin: bool = False
    suspended: bool = False
    """May read, leave and manage the account, but not speak."""
    locked: bool = False
    """May do nothing but log out."""
    shadow_banned: bool = False
    """Believes to speak, but nobody hears."""
    rate_limited: bool = True
