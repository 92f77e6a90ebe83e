"""A database seen from inside one of its transactions, for coroutines that do nothing but read.

Services await the database, one hop to a thread for each look-up. Given `Inside` on a database thread, the
same coroutine never waits: however many look-ups an answer takes, it costs one hop and has one snapshot.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, NoReturn, ParamSpec, TypeVar

from attrs import frozen

from storage.database import Dialect, Transaction

P = ParamSpec("P")
T = TypeVar("T")


@frozen(eq=False)
class Inside:
    """The `Database` of work that runs within a transaction."""

    _tx: Transaction

    @property
    def dialect(self) -> Dialect:
        """Tell the engine."""
        return self._tx.dialect

    async def read(
        self, work: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run `work` in the transaction, at once."""
        return work(self._tx, *args, **kwargs)

    async def write(
        self, work: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> NoReturn:
        """Refuse: what is read inside a transaction writes nothing."""
        raise RuntimeError("nothing may be written from inside a transaction that reads")

    async def close(self) -> None:
        """Leave the transaction to whoever opened it."""


def run_at_once(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never waits, as on a database thread; raises RuntimeError if it waits."""
    try:
        work.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    work.close()
    raise RuntimeError("This work waits for something and cannot run on a database thread")
