"""Child processes of tests and benchmarks: started, waited for by polling with a deadline, stopped by pid.

The coroutines here await only the `sleep` they are given, so they run on Twisted (trial) and on asyncio
(the benchmark) alike. A child gets a signal when its parent dies, so nothing outlives a killed run.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from attrs import field, frozen, mutable

Sleep = Callable[[float], Awaitable[object]]
"""Let the event loop turn for some seconds."""

PR_SET_PDEATHSIG = 1
POLL_SECONDS = 0.05
STOP_SECONDS = 30.0


class ProgramFailed(Exception):
    """A child process ended, or did not do in time what was waited for."""


@frozen
class Command:
    """What to run, where, as whom, and which signal asks it to end."""

    argv: Sequence[str]
    cwd: Path
    log: Path
    environment: Mapping[str, str] = field(factory=dict)
    user: str | None = None
    stop_signal: signal.Signals = signal.SIGTERM

    @property
    def title(self) -> str:
        """Give the program's name with its first arguments."""
        return " ".join([Path(self.argv[0]).name, *self.argv[1:3]])


@mutable
class Program:
    """One child process and its log file; may be started again after it ended."""

    command: Command
    _child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Give the process id; raise when it was never started."""
        if self._child is None:
            raise ProgramFailed(f"{self.command.title} was not started")
        return self._child.pid

    @property
    def is_running(self) -> bool:
        """Tell whether the child is alive."""
        return self._child is not None and self._child.poll() is None

    def start(self) -> None:
        """Start the child, its output appended to its log."""
        if self.is_running:
            raise ProgramFailed(f"{self.command.title} is running already")
        with self.command.log.open("ab") as log:
            self._child = subprocess.Popen(
                list(self.command.argv),
                cwd=self.command.cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.command.environment},
                user=self.command.user,
                preexec_fn=_die_with_parent(self.command.stop_signal),
            )

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the child, if it is alive."""
        if self.is_running and self._child is not None:
            self._child.send_signal(number)

    async def stop(self, sleep: Sleep) -> int:
        """Ask the child to end, wait for it, kill it past the deadline; give its exit code."""
        if self._child is None:
            return 0
        self.send(signal.SIGCONT)
        self.send(self.command.stop_signal)
        try:
            await wait_until(lambda: not self.is_running, "the process to end", sleep, STOP_SECONDS)
        except ProgramFailed:
            self.send(signal.SIGKILL)
        return self._child.wait()

    def kill(self) -> None:
        """End the child at once, as `kill -9` does, and reap it."""
        if self._child is not None:
            self.send(signal.SIGKILL)
            self._child.wait()

    async def wait_ready(self, is_ready: Callable[[], bool], sleep: Sleep, seconds: float = 60.0) -> None:
        """Poll `is_ready` until it holds; raise with the end of the log if the child ends or is late."""

        def ready_or_dead() -> bool:
            return not self.is_running or is_ready()

        try:
            await wait_until(ready_or_dead, f"{self.command.title} to be ready", sleep, seconds)
        except ProgramFailed as late:
            raise ProgramFailed(f"{late}\n{self.log_tail()}") from late
        if not self.is_running:
            raise ProgramFailed(f"{self.command.title} ended at start:\n{self.log_tail()}")

    def log_tail(self, size: int = 3000) -> str:
        """Give the end of the log."""
        if not self.command.log.exists():
            return ""
        return self.command.log.read_bytes()[-size:].decode("utf-8", "replace")


async def wait_until(holds: Callable[[], bool], what: str, sleep: Sleep, seconds: float) -> None:
    """Poll until `holds()`; raise `ProgramFailed` naming `what` past the deadline."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise ProgramFailed(f"waited {seconds:g} s in vain for {what}")
        await sleep(POLL_SECONDS)


def _die_with_parent(number: signal.Signals) -> Callable[[], None]:
    """Make the function a child runs before exec, so that Linux signals it when its parent dies."""
    libc = ctypes.CDLL(None)

    def ask_kernel() -> None:
        libc.prctl(PR_SET_PDEATHSIG, int(number))

    return ask_kernel
