"""Twisted's epoll reactor, with an eye on the length of its turns.

A turn lasts from one wait for events to the next: in it timers and whoever has something to read or write
are called. Nobody is served meanwhile, so no turn may be long. Two looks at the clock a turn see each of
them, where a timer would have to wake a resting process to see some. A callee is called straight, without
the log context that Twisted sets up for each event and that nothing here reads.

Source: design, "Chosen parts"; "Bad input, faults, security".
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

from twisted.internet.epollreactor import EPollReactor
from twisted.logger import Logger

_log = Logger()


class TurnReactor(EPollReactor):
    """An epoll reactor that tells how long its turns are."""

    def __init__(self) -> None:
        """Begin with nobody to tell."""
        super().__init__()  # type: ignore[no-untyped-call]
        self._tell: Callable[[float], object] | None = None
        self._awake = 0.0

    def tell_turns(self, tell: Callable[[float], object] | None) -> None:
        """Call `tell` with the seconds each turn took; None: tell nobody."""
        self._tell = tell
        self._awake = perf_counter()

    def doPoll(self, timeout: float | None) -> None:
        """Wait for events until the next timer is due, and call whom they are for."""
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
