"""Tests of the token buckets."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from homeserver.config.sections import Rate, RateLimits
from homeserver.http import rate_limits
from homeserver.http.client_address import address_key
from homeserver.http.rate_limits import RateLimiter
from homeserver.http.routing import RateClass
from protocol.errors import LimitExceeded

NOW = 1_700_000_000_000


def limiter(scale: float = 1.0, *, enabled: bool = True, per_second: float = 2) -> RateLimiter:
    """Make a limiter with two writes a second, five at once."""
    rate = Rate(per_second=per_second, burst=5)
    return RateLimiter(RateLimits(enabled=enabled, scale=scale, writes=rate))


class RateLimiterTests(SynchronousTestCase):
    """Counting requests."""

    def test_a_burst_and_then_the_rate(self) -> None:
        """Five at once, then one each half second; the wait told is the wait needed."""
        buckets = limiter()
        for _ in range(5):
            buckets.take(RateClass.WRITES, "a", NOW)
        refused = self.assertRaises(LimitExceeded, buckets.take, RateClass.WRITES, "a", NOW)
        self.assertEqual(refused.retry_after_ms, 500)
        self.assertRaises(LimitExceeded, buckets.take, RateClass.WRITES, "a", NOW + 499)
        buckets.take(RateClass.WRITES, "a", NOW + 500)

    def test_askers_and_classes_are_counted_apart(self) -> None:
        """One bucket each."""
        buckets = limiter()
        for _ in range(5):
            buckets.take(RateClass.WRITES, "a", NOW)
        buckets.take(RateClass.WRITES, "b", NOW)
        buckets.take(RateClass.READS, "a", NOW)

    def test_scale_multiplies_rates_and_bursts(self) -> None:
        """Twice the scale, twice the burst."""
        buckets = limiter(2.0)
        for _ in range(10):
            buckets.take(RateClass.WRITES, "a", NOW)
        self.assertRaises(LimitExceeded, buckets.take, RateClass.WRITES, "a", NOW)

    def test_the_switch_turns_all_off(self) -> None:
        """Disabled, nothing is counted; without any rate, nothing is let through."""
        buckets = limiter(enabled=False)
        for _ in range(100):
            buckets.take(RateClass.WRITES, "a", NOW)
        self.assertEqual(len(buckets), 0)
        self.assertRaises(LimitExceeded, limiter(per_second=0).take, RateClass.WRITES, "a", NOW)

    def test_a_clock_that_jumps_back_locks_nobody_out(self) -> None:
        """After a jump of a day, the wait is at most one burst's."""
        buckets = limiter()
        buckets.take(RateClass.WRITES, "a", NOW + 86_400_000)
        refused = self.assertRaises(LimitExceeded, buckets.take, RateClass.WRITES, "a", NOW)
        self.assertLessEqual(refused.retry_after_ms, 2500)

    def test_memory_is_bounded(self) -> None:
        """Many askers do not fill the memory (security: L9)."""
        self.patch(rate_limits, "MAX_BUCKETS", 100)
        buckets = limiter()
        for number in range(1000):
            buckets.take(RateClass.WRITES, str(number), NOW)
            self.assertLessEqual(len(buckets), 101)

    def test_an_ipv6_customer_is_one_asker(self) -> None:
        """Addresses of one /64 share a bucket, a mapped IPv4 address is the IPv4 one (security: L9)."""
        self.assertEqual(address_key("2001:db8::1"), address_key("2001:db8::ffff:2"))
        self.assertNotEqual(address_key("2001:db8::1"), address_key("2001:db8:0:1::1"))
        self.assertEqual(address_key("::ffff:1.2.3.4"), address_key("1.2.3.4"))
