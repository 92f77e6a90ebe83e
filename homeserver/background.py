"""The one way to start work that nobody waits for: its failure is logged, never lost."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

log = Logger()


def run_in_background(work: Coroutine[Any, Any, object], what: str) -> Deferred[None]:
    """Start `work`; log its failure as the failure of `what`.

    The answer fires with None when the work has ended, well or badly; a service that stops may wait for it.
    """

    async def guarded() -> None:
        try:
            await work
        except Exception:
            log.failure("{what} failed", what=what)

    return Deferred.fromCoroutine(guarded())
