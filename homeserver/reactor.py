"""Twisted's epoll reactor, with an eye on the length of its turns, and writing at their end.

A turn lasts from one wait for events to the next: in it timers and whoever has something to read or write
are called. Nobody is served meanwhile, so no turn may be long. Two looks at the clock a turn see each of
them, where a timer would have to wake a resting process to see some. A callee is called straight, without
the log context that Twisted sets up for each event and that nothing here reads.

Nearly always a socket takes at once what is written to it. So whatever was written in a turn is sent at its
end, in one call of the system for each socket; only a socket that does not take all is watched by epoll,
which costs two calls more and another turn.

Source: design, "Chosen parts"; "Bad input, faults, security".
"""

from __future__ import annotations

from collections.abc import Callable
from select import EPOLLOUT
from time import perf_counter
from typing import Any

from twisted.internet.epollreactor import EPollReactor
from twisted.logger import Logger

_log = Logger()


class TurnReactor(EPollReactor):
    """An epoll reactor that writes at the end of its turns, and tells how long they are."""

    def __init__(self) -> None:
        """Begin with nobody to tell."""
        self._unsent: dict[Any, None] = {}
        super().__init__()  # type: ignore[no-untyped-call]
        self._tell: Callable[[float], object] | None = None
        self._awake = 0.0

    def tell_turns(self, tell: Callable[[float], object] | None) -> None:
        """Call `tell` with the seconds each turn took; None: tell nobody."""
        self._tell = tell
        self._awake = perf_counter()

    def addWriter(self, writer: Any) -> None:
        """Let something write at the end of the turn, and then whenever it can, until it has no more."""
        if writer.fileno() not in self._writes:
            self._unsent[writer] = None

    def removeWriter(self, writer: Any) -> None:
        """Let something write no more."""
        if writer in self._unsent:
            del self._unsent[writer]
        else:
            super().removeWriter(writer)  # type: ignore[no-untyped-call]

    def removeAll(self) -> list[Any]:
        """Forget all that reads or writes, and give it."""
        unsent, self._unsent = self._unsent, {}
        removed: list[Any] = super().removeAll()  # type: ignore[no-untyped-call]
        return [*removed, *(each for each in unsent if each not in removed)]

    def getWriters(self) -> list[Any]:
        """Give all that writes."""
        return [*super().getWriters(), *self._unsent]  # type: ignore[no-untyped-call]

    def _send(self) -> None:
        """Let everything write that has something to, once; epoll watches what did not get rid of all."""
        for writer in list(self._unsent):
            if writer not in self._unsent:
                continue
            try:
                self._doReadOrWrite(writer, writer.fileno(), EPOLLOUT)  # type: ignore[no-untyped-call]
            except Exception:
                _log.failure("something could not be written")
            if writer in self._unsent:
                del self._unsent[writer]
                super().addWriter(writer)  # type: ignore[no-untyped-call]

    def doPoll(self, timeout: float | None) -> None:
        """Wait for events until the next timer is due, and call whom they are for."""
        if self._unsent:
            self._send()
        if self._unsent:
            timeout = 0
        if self._tell is not None:
            self._tell(perf_counter() - self._awake)
        ready = self._poller.poll(timeout, len(self._selectables))
        self._awake = perf_counter()
        for number, event in ready:
            selectable = self._selectables.get(number)
            if selectable is None:  # closed by a callee before it
                continue
            try:
                self._doReadOrWrite(selectable, number, event)  # type: ignore[no-untyped-call]
            except Exception:
                _log.failure("an event of the network was not handled")

    doIteration = doPoll
