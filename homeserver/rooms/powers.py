"""Who may do what in a room, read from its head."""

from __future__ import annotations

from homeserver.events.heads import RoomHead
from protocol.identifiers import StateKey
from protocol.power_levels import PowerLevels

CREATE: StateKey = ("m.room.create", "")
POWER_LEVELS: StateKey = ("m.room.power_levels", "")
JOIN_RULES: StateKey = ("m.room.join_rules", "")


async def power_in(head: RoomHead) -> PowerLevels:
    """Give the power levels in force."""
    state = await head.state((CREATE, POWER_LEVELS))
    return PowerLevels.of(head.version, state[CREATE], state.get(POWER_LEVELS))
