"""Tests of the reactor that knows how long its turns are."""

from __future__ import annotations

import os
import socket
import time

from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.interfaces import IWriteDescriptor
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.stdio import StandardIO
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from homeserver.reactor import TurnReactor

HELD = 0.02
PIECES = [bytes([65 + n]) * 300_000 for n in range(26)]


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


class Talker(Protocol):
    """Says something long in pieces as soon as it is connected, and hangs up."""

    def __init__(self, reactor: TurnReactor) -> None:
        """Talk on `reactor`."""
        self.reactor = reactor

    def connectionMade(self) -> None:
        """Talk."""
        for piece in PIECES:
            self.transport.write(piece)
        self.transport.loseConnection()


class Hearer(Protocol):
    """Keeps what it hears until the other hangs up."""

    def __init__(self, reactor: TurnReactor) -> None:
        """Hear on `reactor`."""
        self.reactor = reactor
        self.heard = bytearray()

    def dataReceived(self, data: bytes) -> None:
        """Take a piece."""
        self.heard += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """End."""
        self.reactor.stop()


@implementer(IWriteDescriptor)
class Writer:
    """One end of a pair of sockets that counts how often it may write."""

    def __init__(self, reactor: TurnReactor) -> None:
        """Have something for one call."""
        self.reactor = reactor
        self.ends = socket.socketpair()
        self.calls = 0
        self.left = 1

    def fileno(self) -> int:
        """Give the number of the socket."""
        return self.ends[0].fileno()

    def logPrefix(self) -> str:
        """Name it."""
        return "writer"

    def doWrite(self) -> None:
        """Count, and stop when nothing is left."""
        self.calls += 1
        self.left -= 1
        if self.left <= 0:
            self.reactor.removeWriter(self)

    def connectionLost(self, reason: Failure) -> None:
        """Let nothing happen."""


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

    def test_all_that_is_written_arrives(self) -> None:
        """What a socket does not take at once follows when it can, in order, before the connection ends."""
        port = self.reactor.listenTCP(0, Factory.forProtocol(lambda: Talker(self.reactor)), 5, "127.0.0.1")
        hearer = Hearer(self.reactor)
        connected = []
        endpoint = TCP4ClientEndpoint(self.reactor, "127.0.0.1", port.getHost().port)
        self.reactor.callWhenRunning(lambda: connected.append(connectProtocol(endpoint, hearer)))
        self.reactor.run(installSignalHandlers=False)
        self.assertEqual(bytes(hearer.heard), b"".join(PIECES))
        self.assertEqual(self.reactor.getWriters(), [])

    def test_a_socket_that_takes_all_is_never_watched(self) -> None:
        """What is written in a turn is sent at its end, and the one who writes is called once."""
        writer = Writer(self.reactor)
        for _ in range(3):
            self.reactor.addWriter(writer)
        self.assertEqual(self.reactor.getWriters(), [writer])
        self.reactor.doPoll(0)
        self.assertEqual((writer.calls, self.reactor.getWriters()), (1, []))
        writer.left = 2
        self.reactor.addWriter(writer)
        self.reactor.doPoll(0)
        self.assertEqual((writer.calls, self.reactor.getWriters()), (3, []))

    def test_one_that_is_removed_writes_no_more(self) -> None:
        """Whoever stops writing before the turn ends is not called."""
        writer = Writer(self.reactor)
        self.reactor.addWriter(writer)
        self.reactor.removeWriter(writer)
        self.reactor.doPoll(0)
        self.assertEqual(writer.calls, 0)
        self.reactor.addWriter(writer)
        self.assertIn(writer, self.reactor.removeAll())
        self.reactor.doPoll(0)
        self.assertEqual(writer.calls, 0)
