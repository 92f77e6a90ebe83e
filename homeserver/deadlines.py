"""Ends of very many waits, hardly any of which come: those within a tenth of a second share one timer."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define

from homeserver.clock import Clock, Timer

STEP_MS = 100
"""How late a wait may end."""


@define(eq=False)
class Deadline:
    """The end of one wait."""

    end: Callable[[], object]
    """Ends the wait."""
    _step: _Step

    def cancel(self) -> None:
        """Let it not come; one that has come does not matter."""
        self._step.drop(self)


class _Step:
    """The deadlines that come together."""

    def __init__(self, number: int, steps: dict[int, _Step]) -> None:
        self._number = number
        self._steps = steps
        self._deadlines: set[Deadline] = set()
        self.timer: Timer | None = None

    def add(self, end: Callable[[], object]) -> Deadline:
        """Have one more."""
        deadline = Deadline(end, self)
        self._deadlines.add(deadline)
        return deadline

    def drop(self, deadline: Deadline) -> None:
        """Have one less; the last takes the timer with it."""
        self._deadlines.discard(deadline)
        if not self._deadlines and self.timer is not None and self.timer.active():
            self.timer.cancel()
            del self._steps[self._number]

    def come(self) -> None:
        """End all waits."""
        del self._steps[self._number]
        while self._deadlines:
            self._deadlines.pop().end()


class Deadlines:
    """Calls back at the ends of waits; setting one and taking it back costs far less than a timer does."""

    def __init__(self, clock: Clock) -> None:
        """Start with none."""
        self._clock = clock
        self._steps: dict[int, _Step] = {}

    def set(self, wait_ms: int, end: Callable[[], object]) -> Deadline:
        """Call `end` in `wait_ms`, or up to STEP_MS later."""
        now = self._clock.now_ms()
        number = -(-(now + max(0, wait_ms)) // STEP_MS)
        step = self._steps.get(number)
        if step is None:
            step = self._steps[number] = _Step(number, self._steps)
            step.timer = self._clock.call_later((number * STEP_MS - now) / 1000, step.come)
        return step.add(end)
