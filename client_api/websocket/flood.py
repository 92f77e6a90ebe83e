"""How much a client may send: a bucket of frames, and frames that are none.

Source: protocol/spec.md, "Closing"; security W2, W4, W12.
"""

from __future__ import annotations

from attrs import define

FRAMES_PER_SECOND = 200
BURST = 2000
MAX_BAD = 5
"""Messages that are no JSON at all, before the session ends."""


@define(eq=False)
class Allowance:
    """What one connection may still send."""

    _full_at: float = 0.0
    _bad: int = 0

    def take(self, now: int) -> bool:
        """Count a frame (fragments and control frames too); tells whether it is within the bounds."""
        cost = 1000 / FRAMES_PER_SECOND
        full_at = max(self._full_at, now) + cost
        if full_at - now > BURST * cost:
            return False
        self._full_at = full_at
        return True

    def take_bad(self) -> bool:
        """Count a message that is no frame at all; tells whether there may be more of them."""
        self._bad += 1
        return self._bad < MAX_BAD
