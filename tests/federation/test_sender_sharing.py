"""Tests of several processes that share the sending."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred

from federation.client import Transactions
from protocol.events import EventDraft
from protocol.identifiers import ServerName
from storage.catch_up import CatchUpStore, Owed
from storage.database import DatabaseGone
from storage.destinations import DestinationStore
from storage.federation_shards import SHARDS, ShardStore
from tests.federation.helpers import THERE
from tests.federation.network import Answer
from tests.federation.sender_helpers import ALICE, DEAD, ROOM, Process, Receiver, SenderCase


class OnceGone:
    """A store of what is owed that cannot be reached the first time."""

    def __init__(self, store: CatchUpStore) -> None:
        """Pass on to `store` but once."""
        self._store = store
        self._asked = 0

    async def servers_owed(self, after: int, upto: int) -> Collection[ServerName]:
        """Give the servers that are owed something."""
        self._asked += 1
        if self._asked == 1:
            raise DatabaseGone("away")
        return await self._store.servers_owed(after, upto)

    async def memberships(self, after: int, upto: int, limit: int) -> Sequence[Owed]:
        """Give the memberships built here."""
        return await self._store.memberships(after, upto, limit)


class SharingTests(SenderCase):
    """Several processes on one database."""

    def test_each_destination_is_sent_to_by_one_process(self) -> None:
        """Shards are shared out; every server gets each event once."""
        receivers = []
        for number in range(12):
            name = f"s{number}.example"
            receivers.append(Receiver(self.world.server(name, 3)))
            self.home.join(ServerName(name))
        second = Process(self.home, "second")
        second.start()
        self._pass(20)
        held = self.world.database.rows("SELECT holder, COUNT(*) FROM federation_shards GROUP BY holder")
        self.assertEqual(dict(held), {"one": SHARDS // 2, "second": SHARDS // 2})
        self.home.say("x")
        self._pass(20)
        self.assertEqual([receiver.texts for receiver in receivers], [["x"]] * 12)

    def test_a_dead_process_is_replaced(self) -> None:
        """When its leases end, another goes on where it stood."""
        second = Process(self.home, "second")
        second.start()
        self._pass(20)
        second.die()
        self.process.die()
        third = Process(self.home, "third")
        self.home.listeners.clear()
        self.home.say("meanwhile")
        third.start()
        self._pass(60)
        self.assertEqual(self.receiver.texts, ["meanwhile"])

    def test_a_take_over_that_fails_is_tried_again(self) -> None:
        """When the database goes away in the middle, what is owed in the shards is sent all the same."""
        self.process.die()
        self.home.listeners.clear()
        self.home.say("meanwhile")
        second = Process(self.home, "second")
        owed = OnceGone(second.sender.sources.owed)
        second.sender.sources = evolve(second.sender.sources, owed=owed)
        second.start()
        self._pass(60)
        self.assertEqual(len(self.flushLoggedErrors(DatabaseGone)), 1)
        self.assertEqual(self.receiver.texts, ["meanwhile"])

    def test_a_take_over_that_fails_forgets_nobody_s_backlog(self) -> None:
        """A server that was behind already goes on from there, not from where its shard stands."""
        self.receiver.answer = lambda _: DEAD
        self.home.say("first")
        self._pass(10)
        self.home.say("second")
        self._pass(10)
        self.process.die()
        self.home.listeners.clear()
        self.home.say("meanwhile")
        behind, asked = DestinationStore.behind, [0]

        async def once_gone(store: DestinationStore) -> Mapping[ServerName, int]:
            asked[0] += 1
            if asked[0] == 1:
                raise DatabaseGone("away")
            return await behind(store)

        self.patch(DestinationStore, "behind", once_gone)
        Process(self.home, "second").start()
        self._pass(60)
        self.receiver.transactions.clear()
        self.receiver.answer = lambda _: Answer()
        self._pass(120)
        self.flushLoggedErrors(DatabaseGone)
        self.assertEqual(self.receiver.texts, ["first", "second", "meanwhile"])

    def test_an_invite_withdrawn_as_the_process_died(self) -> None:
        """A server outside the room is told of it all the same, by the process that takes over."""
        other = Receiver(self.world.server("other.example", 3))
        self._pass(10)
        self.process.die()
        self.home.listeners.clear()
        for user in ("@u:other.example", "@v:other.example"):
            content = {"membership": "leave", "body": user}
            draft = EventDraft(ROOM, "m.room.member", ALICE, content, state_key=user)
            self.home.tell(self.home.store(draft))
        Process(self.home, "second").start()
        self._pass(60)
        self.assertEqual(other.texts, ["@u:other.example", "@v:other.example"])

    def test_a_stop_while_a_fault_is_waited_out(self) -> None:
        """What waits in memory alone is held by the shard's position, also of a queue that just ends."""
        send = Transactions.send

        async def once_gone(*args: Any) -> Any:
            self.patch(Transactions, "send", send)
            raise DatabaseGone("away")

        self.patch(Transactions, "send", once_gone)
        self.home.say("first")
        self._pass()
        self.world.network.outcome(self.process.sender.stop())
        self.home.listeners.clear()
        Process(self.home, "second").start()
        self._pass(10)
        self.flushLoggedErrors(DatabaseGone)
        self.assertEqual(self.receiver.texts, ["first"])

    def test_a_stop_while_leases_are_renewed(self) -> None:
        """No lease is held afterwards, and nothing is sent."""
        renew, held = ShardStore.renew, Deferred[None]()

        async def slowly(store: ShardStore, *args: Any) -> Mapping[int, int]:
            await held
            return await renew(store, *args)

        self.patch(ShardStore, "renew", slowly)
        self._pass(6)
        stopping = Deferred.fromCoroutine(self.process.sender.stop())
        self._pass()
        held.callback(None)
        self._pass()
        self.successResultOf(stopping)
        holders = self.world.database.rows("SELECT DISTINCT holder FROM federation_shards")
        self.assertEqual(holders, [(None,)])

    def test_what_is_said_while_leases_have_ended(self) -> None:
        """When leases were not renewed in time, what was said meanwhile is sent once they are held again."""
        renew = ShardStore.renew
        reached = [False]

        async def renewed(store: ShardStore, *args: Any) -> Mapping[int, int]:
            if not reached[0]:
                raise DatabaseGone("away")
            return await renew(store, *args)

        self.patch(ShardStore, "renew", renewed)
        self._pass(40)
        self.home.say("meanwhile")
        self._pass(6)
        reached[0] = True
        self._pass(20)
        self.home.say("after")
        self._pass()
        self.flushLoggedErrors(DatabaseGone)
        self.assertEqual(self.receiver.texts, ["meanwhile", "after"])

    def test_a_shard_lost_and_won_back_while_sending(self) -> None:
        """The end of what was under way before does not put away the queue that is in use since."""
        self.receiver.answer = lambda _: DEAD
        self.home.say("first")
        destinations = self.process.sender._destinations
        before = destinations.pop(THERE)
        before.stop()
        self.home.say("second")
        after = destinations[THERE]
        self._pass(3)
        self.assertTrue(destinations.get(THERE) is after)
