"""Work that is started here and now: in the background, or for whoever waits for its result."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from types import coroutine
from typing import Any, TypeVar, cast

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

log = Logger()

R = TypeVar("R")


def run_in_background(work: Coroutine[Any, Any, object], what: str) -> Deferred[None]:
    """Start `work`; log its failure as the failure of `what`. The one way to start what nobody waits for.

    The answer fires with None when the work has ended, well or badly; a service that stops may wait for it.
    """
    try:
        waiting = work.send(None)
    except StopIteration:
        return succeed(None)
    except Exception:
        log.failure("{what} failed", what=what)
        return succeed(None)

    async def guarded() -> None:
        try:
            await _rest(work, waiting)
        except Exception:
            log.failure("{what} failed", what=what)

    return Deferred.fromCoroutine(guarded())


@coroutine
def _rest(work: Coroutine[Any, Any, R], waiting: Any) -> Generator[Any, Any, R]:
    """Go on with work that has begun and waits for something.

    Most work begins and ends without waiting; that costs no Deferred, which is why it is begun by hand.
    """
    step: Callable[[Any], Any]
    while True:
        try:
            value = yield waiting
            step = work.send
        except GeneratorExit:
            work.close()
            raise
        except BaseException as error:
            value, step = error, work.throw
        try:
            waiting = step(value)
        except StopIteration as end:
            return cast(R, end.value)
