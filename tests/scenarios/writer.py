"""A worker as a process of its own that sends into rooms and says what was acknowledged.

Arguments: database URL, name, number of senders, messages each, then the rooms: the first takes all
senders, the second one more sender, the third a sender whose second message has a poison row.
Writes a line `ROOM EVENT` for each acknowledged event and `done` at the end.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import react

from homeserver.events.write import Poisoned
from homeserver.feed.following import Follower
from protocol.events import EventDraft
from protocol.identifiers import RoomID
from storage.engines import open_database
from storage.feed_writers import Writers
from storage.notifications import FeedNotifications
from storage.transactions import TransactionKey
from tests.homeserver.events.helpers import Worker, message, start_worker
from tests.storage.helpers import REACTOR


async def send_into(worker: Worker, room_id: RoomID, who: str, count: int) -> None:
    """Send messages one after the other, and tell of each that is acknowledged."""
    for n in range(count):
        try:
            stored = await worker.events.send(message(room_id, f"{who} {n}"), now=worker.clock.now_ms())
        except Poisoned:
            continue
        sys.stdout.write(f"{room_id} {stored.event.event_id}\n")
        sys.stdout.flush()


class Poisoner:
    """Give the second message of a room the number of another event, which the database must refuse."""

    def __init__(self, worker: Worker, room_id: RoomID) -> None:
        """Stand between `worker` and its preparation of events."""
        self._inner = worker.events._preparation
        self._room_id = room_id
        self._nids: list[int] = []
        self.nids = self._inner.nids
        worker.events._preparation = self  # type: ignore[assignment]

    async def prepare(self, room_nid: int, draft: EventDraft, txn: TransactionKey | None = None) -> Any:
        """Prepare an event, and spoil it when it is the one."""
        sending = await self._inner.prepare(room_nid, draft, txn)
        if draft.room_id == self._room_id:
            self._nids.append(sending.nid)
            if len(self._nids) == 2:
                sending.nid = self._nids[0]
        return sending


async def run(arguments: Sequence[str]) -> None:
    """Send all and stop."""
    url, name, senders, count, busy, quiet, poisoned = arguments
    database = await open_database(url, REACTOR, pool_size=4)
    writers = Writers(name)
    worker = await start_worker(database, writers)
    follower = Follower(worker.feed, worker.clock)
    notifications = FeedNotifications(url, REACTOR, writers, follower.moved)
    follower.start()
    notifications.start()
    Poisoner(worker, RoomID(poisoned))
    work = [send_into(worker, RoomID(busy), f"{name}.{n}", int(count)) for n in range(int(senders))]
    work += [send_into(worker, RoomID(room), name, int(count)) for room in (quiet, poisoned)]
    await gatherResults([Deferred.fromCoroutine(each) for each in work])
    follower.stop()
    notifications.stop()
    await database.close()
    sys.stdout.write("done\n")
    sys.stdout.flush()


if __name__ == "__main__":
    react(lambda _: Deferred.fromCoroutine(run(sys.argv[1:])), _reactor=reactor)
