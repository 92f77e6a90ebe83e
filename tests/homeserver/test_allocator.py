"""Tests of the allocator's settings."""

from __future__ import annotations

import ctypes

from twisted.trial.unittest import SynchronousTestCase

from homeserver.allocator import give_memory_back


class AllocatorTests(SynchronousTestCase):
    """Setting the C library's allocator."""

    def test_settings_are_taken(self) -> None:
        """The settings are taken where the C library has them, and missed without harm elsewhere."""
        self.assertTrue(give_memory_back() is hasattr(ctypes.CDLL(None), "mallopt"))
