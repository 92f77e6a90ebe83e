"""Tests of the reactor that knows how long its turns are."""

from __future__ import annotations

import os
import time

from twisted.internet.protocol import Protocol
from twisted.internet.stdio import StandardIO
from twisted.trial.unittest import SynchronousTestCase

from homeserver.reactor import TurnReactor

HELD = 0.02


class Listener(Protocol):
    """Keeps what it reads, and holds its reactor up with each piece."""

    def __init__(self, reactor: TurnReactor) -> None:
        """Read on `reactor`."""
        self.reactor = reactor
        self.read: list[bytes] = []

    def dataReceived(self, data: bytes) -> None:
        """Take a piece; the piece `bad` is a fault, `end` the end."""
        self.read.append(data)
        time.sleep(HELD)
        if data == b"bad":
            raise ValueError("a fault of the callee")
        if data == b"end":
            self.reactor.stop()


class TurnReactorTests(SynchronousTestCase):
    """A reactor of the test's own, driven over pipes."""

    def setUp(self) -> None:
        """Make a reactor that is not the installed one."""
        self.reactor = TurnReactor()
        self.addCleanup(self.reactor._uninstallHandler)
        self.turns: list[float] = []
        self.reactor.tell_turns(self.turns.append)

    def test_turns_are_told(self) -> None:
        """A turn in which a callee works is told with the time that took; waiting does not count."""
        ends = os.pipe()
        listener = Listener(self.reactor)
        StandardIO(listener, stdin=ends[0], stdout=os.open(os.devnull, os.O_WRONLY), reactor=self.reactor)
        self.reactor.callLater(3 * HELD, os.write, ends[1], b"end")
        self.reactor.run(installSignalHandlers=False)
        self.assertEqual(listener.read, [b"end"])
        self.assertGreaterEqual(max(self.turns), HELD)
        self.assertLess(min(self.turns), HELD)
        os.close(ends[1])

    def test_a_fault_of_a_callee(self) -> None:
        """A callee that raises is logged and cut off, and the others are called as before."""
        bad, good = os.pipe(), os.pipe()
        listeners = [Listener(self.reactor), Listener(self.reactor)]
        for listener, ends in zip(listeners, (bad, good), strict=True):
            sink = os.open(os.devnull, os.O_WRONLY)
            StandardIO(listener, stdin=ends[0], stdout=sink, reactor=self.reactor)
        os.write(bad[1], b"bad")
        self.reactor.callLater(3 * HELD, os.write, good[1], b"end")
        self.reactor.run(installSignalHandlers=False)
        self.assertEqual([listener.read for listener in listeners], [[b"bad"], [b"end"]])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        for ends in (bad, good):
            os.close(ends[1])
