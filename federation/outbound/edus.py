"""Where EDUs come from: durable ones from the database, passing ones from memory.

A source is asked when a transaction to a destination is built, and told when it arrived. To-device
messages are durable. Typing, presence and receipts are passing: the last value of a key wins, and of what
could not be delivered only the newest receipts are kept, while this process lives.

Source: server-server-api.md, "EDUs".
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Protocol

from attrs import define, field, frozen

from protocol.identifiers import ServerName
from storage.outbound_edus import OutboundEduStore

MAX_PASSING = 1_000
"""Passing EDUs kept for one destination; beyond it the oldest are dropped."""
RECEIPT = "receipt"
"""How the keys of receipts begin."""
MAX_RECEIPTS = 50
"""Receipts kept for a destination that does not answer."""
MAX_DESTINATIONS = 20_000


@frozen
class EduBatch:
    """EDUs for one transaction, canonical JSON each; `receipt` names them to the source that gave them."""

    edus: Sequence[bytes]
    receipt: object


class EduSource(Protocol):
    """A source of EDUs for destinations."""

    async def take(self, server: ServerName, limit: int) -> EduBatch:
        """Give at most `limit` EDUs for `server`; they stay its until delivered, or are passing."""
        ...

    async def delivered(self, server: ServerName, receipt: object) -> None:
        """Note that a batch arrived, or was refused for good."""
        ...

    def returned(self, server: ServerName, receipt: object) -> None:
        """Note that a batch did not arrive, for what it was sent with was refused; it may be taken again."""

    async def gave_up(self, server: ServerName) -> None:
        """Note that `server` does not answer: what waits for it is bounded, passing EDUs need not be kept."""

    def queued(self, server: ServerName) -> None:
        """Note that the feed told of an EDU for `server` that was put into the database."""


@define
class DurableEdus:
    """EDUs that must arrive, kept in the database until they do; asked for only where some may wait.

    The feed tells every process of every EDU after it is committed. So a server for which none was found
    has none until the feed says so; it is noted before the database is asked, that no word is missed.
    """

    store: OutboundEduStore
    _without: set[ServerName] = field(factory=set, init=False)

    async def take(self, server: ServerName, limit: int) -> EduBatch:
        """Give the oldest EDUs that wait for `server`."""
        if server in self._without:
            return EduBatch((), [])
        if len(self._without) >= MAX_DESTINATIONS:
            self._without.clear()
        self._without.add(server)
        try:
            queued = await self.store.next(server, limit)
        except BaseException:
            self._without.discard(server)
            raise
        if queued:
            self._without.discard(server)
        return EduBatch([one.edu for one in queued], [one.edu_nid for one in queued])

    def queued(self, server: ServerName) -> None:
        """Ask the database again when `server` has its turn."""
        self._without.discard(server)

    async def delivered(self, server: ServerName, receipt: object) -> None:
        """Forget a batch."""
        assert isinstance(receipt, list)
        await self.store.delivered(receipt)

    def returned(self, server: ServerName, receipt: object) -> None:
        """Do nothing: it is in the database still."""

    async def gave_up(self, server: ServerName) -> None:
        """Let the rest wait in the database, but for the oldest beyond the bound."""
        await self.store.trim(server)


@define
class PassingEdus:
    """EDUs of which only the newest counts: typing, presence, receipts."""

    _waiting: OrderedDict[ServerName, OrderedDict[Hashable, bytes]] = field(factory=OrderedDict, init=False)
    _wake: list[Callable[[ServerName], None]] = field(factory=list, init=False)

    def on_waiting(self, wake: Callable[[ServerName], None]) -> None:
        """Have `wake` told of each server for which an EDU waits."""
        self._wake.append(wake)

    def put(self, server: ServerName, key: Hashable, edu: bytes) -> None:
        """Queue canonical JSON for `server` in place of what waits under the same key."""
        waiting = self._waiting.setdefault(server, OrderedDict())
        waiting.pop(key, None)
        waiting[key] = edu
        if len(waiting) > MAX_PASSING:
            waiting.popitem(last=False)
        if len(self._waiting) > MAX_DESTINATIONS:
            self._waiting.popitem(last=False)
        for wake in self._wake:
            wake(server)

    async def take(self, server: ServerName, limit: int) -> EduBatch:
        """Give the oldest EDUs that wait for `server`, and forget them."""
        waiting = self._waiting.get(server)
        taken: list[tuple[Hashable, bytes]] = []
        while waiting and len(taken) < limit:
            taken.append(waiting.popitem(last=False))
        if not waiting:
            self._waiting.pop(server, None)
        return EduBatch([edu for _, edu in taken], taken)

    async def delivered(self, server: ServerName, receipt: object) -> None:
        """Do nothing: they are forgotten already."""

    def returned(self, server: ServerName, receipt: object) -> None:
        """Put them back before what came since, but for those of which there is a newer value."""
        assert isinstance(receipt, list)
        newer = self._waiting.pop(server, OrderedDict())
        older = OrderedDict((key, edu) for key, edu in receipt if key not in newer)
        self._waiting[server] = OrderedDict([*older.items(), *newer.items()])

    def queued(self, server: ServerName) -> None:
        """Do nothing: these are in no database."""

    async def gave_up(self, server: ServerName) -> None:
        """Forget what waits for a server that does not answer, but the newest receipts: they stay true."""
        waiting = self._waiting.pop(server, OrderedDict())
        kept = [key for key in waiting if isinstance(key, tuple) and key[0] == RECEIPT][-MAX_RECEIPTS:]
        if kept:
            self._waiting[server] = OrderedDict((key, waiting[key]) for key in kept)
