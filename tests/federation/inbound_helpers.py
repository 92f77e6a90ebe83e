"""What other servers send us and read from us, over a whole core and without a network."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from typing import Any, cast

from attrs import define, field
from twisted.internet.defer import Deferred, succeed

from federation.inbound.edus import Edus
from federation.inbound.reading import GraphReads
from federation.inbound.sight import Sight
from federation.inbound.staged import StagedPdus
from federation.inbound.transactions import InboundTransactions, Transaction
from federation.key_ring import KeyNeed, KeyRing
from federation.pdus import PduChecker
from federation.ports import RunOnThread
from federation.resident.access import RoomAccess
from homeserver.events.auth_chains import AuthChains
from homeserver.events.nids import Room
from protocol.canonical_json import JsonObject
from protocol.errors import MatrixError
from protocol.events import Event
from protocol.identifiers import ServerName, UserID
from protocol.room_versions import V11
from protocol.signing import VerifyKey
from storage.database import Database, Dialect
from storage.migrate import migrate
from tests.homeserver.events.helpers import NOW, Worker, membership, message, start_worker
from tests.homeserver.events.incoming import IncomingEvents
from tests.homeserver.events.received_helpers import (
    CAROL,
    OTHER,
    OTHER_KEY,
    Peer,
    Remote,
    incoming_of,
    remote_in,
    tip,
)

DAVE = UserID(f"@dave:{OTHER}")
STRANGER = ServerName("stranger.test")


@define(eq=False)
class Keys:
    """Knows the key of the one other server."""

    async def find(self, needs: Collection[KeyNeed]) -> dict[KeyNeed, VerifyKey]:
        """Give its key for all that it has signed."""
        return {need: OTHER_KEY.verify_key for need in needs if need.server == OTHER}


def run_now(work: Callable[..., Any], *args: Any) -> Deferred[Any]:
    """Run work at once, where a thread would."""
    return succeed(work(*args))


@define(eq=False)
class Watched:
    """A database that notes what it is asked."""

    inner: Database
    works: list[object] = field(factory=list)

    @property
    def dialect(self) -> Dialect:
        """Tell the engine."""
        return self.inner.dialect

    async def read(self, work: Any, *args: Any, **kwargs: Any) -> Any:
        """Note and read."""
        self.works.append(work)
        return await self.inner.read(work, *args, **kwargs)

    async def write(self, work: Any, *args: Any, **kwargs: Any) -> Any:
        """Note and write."""
        self.works.append(work)
        return await self.inner.write(work, *args, **kwargs)

    async def close(self) -> None:
        """Leave the closing to who opened it."""


@define(eq=False)
class Here:
    """Our server, with the inbound edge."""

    database: Watched

    worker: Worker
    incoming: IncomingEvents
    transactions: InboundTransactions
    staged: StagedPdus
    reads: GraphReads
    edus: list[JsonObject]
    sent: int = field(default=0)

    async def send(
        self,
        pdus: Sequence[object],
        edus: Sequence[object] = (),
        txn_id: str = "",
        origin: ServerName = OTHER,
    ) -> Any:
        """Hand a transaction in."""
        self.sent += 1
        body = {"pdus": list(pdus), "edus": list(edus), "origin": "lie.test"}
        transaction = Transaction.of(origin, txn_id or f"t{self.sent}", body)
        return json.loads(await self.transactions.take(transaction, NOW))


async def start(database: Database, peer: Peer | None = None) -> Here:
    """Wire our server over a database."""
    await migrate(database)
    database = watched = Watched(database)
    worker = await start_worker(database)
    incoming = incoming_of(worker, peer)
    access = RoomAccess(worker.nids, worker.heads)
    staged = StagedPdus(database, worker.nids, incoming.gaps, worker.clock, "one")
    taken: list[JsonObject] = []

    async def take(origin: ServerName, content: JsonObject, now: int) -> None:
        if content.get("fail"):
            raise RuntimeError("a handler that fails")
        taken.append(content)

    transactions = InboundTransactions(
        database,
        access,
        PduChecker(cast(KeyRing, Keys()), cast(RunOnThread, run_now)),
        incoming.received,
        incoming.outside,
        staged,
        Edus({"m.test": take}),
    )
    reads = GraphReads(
        database, worker.state, AuthChains(database, worker.stored, worker.nids), Sight(access, worker.state)
    )
    return Here(watched, worker, incoming, transactions, staged, reads, taken)


class InboundCase:
    """A server that others send to, on any engine."""

    database: Database
    assertEqual: Callable[..., None]
    assertTrue: Callable[..., None]
    assertIn: Callable[..., None]
    assertNotIn: Callable[..., None]
    flushLoggedErrors: Callable[..., list[Any]]

    async def begin(self, peer: Peer | None = None) -> tuple[Here, Room, Remote]:
        """Make a room of ours that Carol of the other server is in."""
        here = await start(self.database, peer)
        room = (await here.worker.room(V11)).room
        remote = await remote_in(here.worker, room.nid, V11)
        join = remote.put(membership(room.room_id, CAROL, "join"), await tip(here.worker, room.nid))
        self.assertEqual(await here.send([join.pdu]), {"pdus": {join.event_id: {}}})
        return here, room, remote

    def said(self, remote: Remote, room: Room, body: str, parents: Sequence[Event]) -> Event:
        """Have Carol say something."""
        return remote.build(message(room.room_id, body, CAROL), parents)

    async def refused(self, kind: type[MatrixError], asking: Any) -> JsonObject:
        """Give the error that an answer is."""
        try:
            await asking
        except kind as error:
            return error.to_json() if hasattr(error, "to_json") else {"error": error.error}
        raise AssertionError("it was answered")
