"""Who may see an event of a room: the decision, given the history visibility and memberships at it.

Whoever asks knows the state before the event, on its own branch; nothing is looked up here.

Source: client-server-api/modules/history_visibility.md, "Server behaviour"; server-server-api.md,
"Backfilling and retrieving missing events".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from protocol.identifiers import StateKey

VISIBILITY_KEY: Final[StateKey] = ("m.room.history_visibility", "")
_KNOWN: Final = frozenset(("world_readable", "shared", "invited", "joined"))
_MEMBERSHIPS_NEEDED: Final[Mapping[str, frozenset[str]]] = {
    "joined": frozenset(("join",)),
    "invited": frozenset(("join", "invite")),
}


def parse_visibility(value: object) -> str:
    """Read a history visibility; absent or not understood, it is `shared`."""
    return value if isinstance(value, str) and value in _KNOWN else "shared"


def allows(visibility: str, membership: str, joined_after: bool) -> bool:
    """Tell whether a user may see an event, by one visibility and the user's membership at it.

    `joined_after`: the user was joined at some time after the event.
    """
    if visibility == "world_readable" or membership == "join":
        return True
    if visibility == "shared":
        return joined_after
    return visibility == "invited" and membership == "invite"


def user_sees(visibilities: Iterable[str], memberships: Iterable[str], joined_after: bool) -> bool:
    """Tell whether a user may see an event, given what held before it, and what after if it changed that.

    Of changes of the visibility, and of the user's own membership, either is enough.
    """
    either = tuple(memberships)
    return any(allows(each, membership, joined_after) for each in visibilities for membership in either)


def memberships_needed(visibility: str) -> frozenset[str] | None:
    """Give the memberships before an event of which a server in the room needs one to see it; None: none.

    A server sees what one of its users could. The rest it is given redacted, so that the graph stays whole,
    and a server that is not in the room is given nothing (security: F10).
    """
    return _MEMBERSHIPS_NEEDED.get(visibility)
