"""The choice of the algorithm by the room version.

Source: rooms/v1.md, v2.md and v12.md, "State resolution".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from protocol.identifiers import EventID, StateKey
from protocol.room_versions import RoomVersion, StateResolution
from protocol.state_resolution.requests import Conflict, Steps
from protocol.state_resolution.v1 import resolve_v1
from protocol.state_resolution.v2 import resolve_v2, resolve_v2_1

_Resolution = Callable[[Conflict], Steps[dict[StateKey, EventID | None]]]
_ALGORITHMS: Final[Mapping[StateResolution, _Resolution]] = {
    StateResolution.V1: resolve_v1,
    StateResolution.V2: resolve_v2,
    StateResolution.V2_1: resolve_v2_1,
}


def resolve(version: RoomVersion, conflict: Conflict) -> Steps[dict[StateKey, EventID | None]]:
    """Resolve what states do not agree on: yields requests, is sent answers, gives the winners.

    The result has every conflicted key, with None where no event may stand. It may have further keys, which
    no state has: events from the auth difference then stand there.
    """
    return _ALGORITHMS[version.state_resolution](conflict)
