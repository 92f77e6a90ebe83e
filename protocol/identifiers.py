"""Matrix identifiers: typed at the edge, trusted inside.

Each kind is a `NewType` over `str`: free at run time, apart for the type checker. `parse_*` turns
outside text into an identifier or raises `InvalidParam` naming what is wrong; inside, nothing is
checked again.

Source: appendices.md, "Identifier Grammar".
"""

from __future__ import annotations

from typing import NewType

UserID = NewType("UserID", str)
RoomID = NewType("RoomID", str)
RoomAlias = NewType("RoomAlias", str)
EventID = NewType("EventID", str)
ServerName = NewType("ServerName", str)
DeviceID = NewType("DeviceID", str)
KeyID = NewType("KeyID", str)
StateKey = tuple[str, str]
"""A key of room state: (event type, state key)."""
