"""The process around a homeserver: reactor, log, signals, exit code. What it runs is `app.py`."""

from __future__ import annotations

import gc
import os
import signal
import sys
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.main import installReactor
from twisted.logger import Logger
from twisted.python.failure import Failure

from homeserver.allocator import give_memory_back
from homeserver.config.sections import Config
from homeserver.greeting import next_steps
from homeserver.http.outbound_tls import BadCaFile
from homeserver.key_files import BadKeyFile
from homeserver.listening import CannotListen
from homeserver.logs import start_logging
from homeserver.reactor import TurnReactor
from storage.database import DatabaseGone
from storage.migrate import SchemaTooNew

SWITCH_INTERVAL = 0.0005
"""Seconds a thread may hold the interpreter while another waits. Measured: a one-statement hop to a
database thread beside busy Python takes 1.9 ms instead of 15.7."""
STOP_DEADLINE = 9.0
"""Seconds from SIGTERM until the process ends, finished or not."""
GC_THRESHOLDS = (50_000, 20, 50)
"""Collections are rarer than Python's default: nearly all garbage here is freed by counting."""

_OPERATORS_MISTAKES = (BadCaFile, BadKeyFile, CannotListen, DatabaseGone, SchemaTooNew, OSError)
"""What keeps a server from starting and is mended outside of it: a sentence is told, no traceback."""

_log = Logger()


def run_homeserver(config: Config, path: Path) -> int:
    """Run a homeserver until a signal ends it; relative paths start at the folder of the file at `path`.

    Returns the exit code: 0 after a clean stop, 1 when it could not start.
    """
    os.umask(0o077)
    give_memory_back()
    sys.setswitchinterval(SWITCH_INTERVAL)
    start_logging(config.logging)
    reactor = TurnReactor()
    installReactor(reactor)
    # Modules that take the reactor as they are imported must find ours.
    from homeserver.app import App, start_app

    exit_code = 0
    app: App | None = None

    async def start() -> None:
        nonlocal app
        app = await start_app(config, path.absolute().parent, reactor)
        for line in next_steps(config, path):
            _log.info("{line}", line=line)
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)

    def failed(failure: Failure) -> None:
        nonlocal exit_code
        exit_code = 1
        if failure.check(*_OPERATORS_MISTAKES):
            _log.error("the homeserver could not start: {why}", why=failure.getErrorMessage())
        else:
            _log.failure("the homeserver could not start", failure=failure)
        reactor.stop()

    def stop() -> Deferred[None] | None:
        reactor.callLater(STOP_DEADLINE, os._exit, exit_code)
        return Deferred.fromCoroutine(app.stop()) if app is not None else None

    reactor.callWhenRunning(_stop_once, reactor)
    reactor.callWhenRunning(lambda: Deferred.fromCoroutine(start()).addErrback(failed))
    reactor.addSystemEventTrigger("before", "shutdown", stop)
    reactor.run()
    return exit_code


def _stop_once(reactor: Any) -> None:
    """Let the first signal stop the reactor; more, as a terminal and a supervisor send, change nothing."""
    stopping = False

    def stop(_number: int, _frame: object) -> None:
        nonlocal stopping
        if not stopping:
            stopping = True
            reactor.callFromThread(reactor.stop)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
