"""State resolution: which state holds after events whose states differ. Pure; drivers bring the events.

Source: rooms/v1.md, rooms/fragments/v2-state-res.md and rooms/v12.md, "State resolution".
"""

from protocol.state_resolution.in_memory import resolve_in_memory
from protocol.state_resolution.requests import (
    Answer,
    Conflict,
    NeedAuthDifference,
    NeedEvents,
    NeedSubgraph,
    NeedUnconflicted,
    Request,
    Steps,
)
from protocol.state_resolution.resolving import resolve

__all__ = [
    "Answer",
    "Conflict",
    "NeedAuthDifference",
    "NeedEvents",
    "NeedSubgraph",
    "NeedUnconflicted",
    "Request",
    "Steps",
    "resolve",
    "resolve_in_memory",
]
