"""Token buckets by class of request and by who asks.

A bucket is one number: the moment at which it will be full again. Full buckets are forgotten, so memory is
bounded by who asked lately. Buckets are of this process; workers do not share them.

Source: client-server-api/_index.md, "Rate limiting"; security L9, D11.
"""

from __future__ import annotations

import math

from attrs import frozen

from homeserver.config.sections import Rate, RateLimits
from homeserver.http.routing import RateClass
from protocol.errors import LimitExceeded

MAX_BUCKETS = 100_000
CLOSED_WAIT_MS = 60_000
"""What a class without any rate tells of when to come again."""


@frozen
class _Bucket:
    """A rate: milliseconds that one request costs, and how many may be owed."""

    cost: float
    tolerance: float

    @classmethod
    def of(cls, rate: Rate, scale: float) -> _Bucket | None:
        """Scale a configured rate; None lets nothing through."""
        per_second = rate.per_second * scale
        if per_second <= 0:
            return None
        cost = 1000 / per_second
        return cls(cost, max(1.0, rate.burst * scale) * cost)


class RateLimiter:
    """Count requests and refuse those over the rate."""

    def __init__(self, config: RateLimits) -> None:
        """Take the rates of all classes from the configuration."""
        self._enabled = config.enabled
        self._rates = {
            limit: _Bucket.of(getattr(config, limit.value), config.scale)
            for limit in RateClass
            if limit is not RateClass.NONE
        }
        self._full_at: dict[tuple[RateClass, str], float] = {}

    def take(self, limit: RateClass, key: str, now: int) -> None:
        """Count one request of `key` at `now` (milliseconds); raises LimitExceeded, counting nothing."""
        if not self._enabled or limit is RateClass.NONE:
            return
        bucket = self._rates[limit]
        if bucket is None:
            raise LimitExceeded(CLOSED_WAIT_MS)
        name = (limit, key)
        full_at = min(max(self._full_at.get(name, 0.0), now), now + bucket.tolerance) + bucket.cost
        wait = full_at - now - bucket.tolerance
        # A hundredth of a millisecond is the arithmetic's, not the asker's.
        if wait > 0.01:
            raise LimitExceeded(math.ceil(wait))
        self._full_at[name] = full_at
        if len(self._full_at) > MAX_BUCKETS:
            self._forget(now)

    def _forget(self, now: int) -> None:
        """Forget buckets that are full; if hardly any is, the half that is fullest."""
        self._full_at = {name: full_at for name, full_at in self._full_at.items() if full_at > now}
        if len(self._full_at) > MAX_BUCKETS // 2:
            keep = sorted(self._full_at.items(), key=lambda item: -item[1])[: MAX_BUCKETS // 2]
            self._full_at = dict(keep)

    def __len__(self) -> int:
        """Tell how many buckets are not full, or were not when last looked at."""
        return len(self._full_at)
