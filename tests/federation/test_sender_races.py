"""Tests of what happens to a destination while it waits for the database."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from federation.outbound.catch_up import CatchUp
from storage.destinations import DestinationStore
from storage.outbound_edus import OutboundEduStore
from tests.federation.helpers import THERE
from tests.federation.sender_helpers import DEAD, SenderCase


class RaceTests(SenderCase):
    """One destination, and calls that are held up."""

    def setUp(self) -> None:
        """Begin with nothing held up."""
        super().setUp()
        self.held: list[Deferred[None]] = []
        self.destinations = self.process.sender._destinations

    def _hold(self, owner: type, name: str) -> None:
        """Hold up every call of a method until `_let_go`."""
        method: Callable[..., Any] = getattr(owner, name)

        async def slowly(*args: Any) -> Any:
            found = await method(*args)
            self.held.append(Deferred())
            await self.held[-1]
            return found

        self.patch(owner, name, slowly)

    def _let_go(self) -> None:
        held, self.held = self.held, []
        for each in held:
            each.callback(None)
        self._pass()

    @property
    def _position(self) -> int | None:
        """Give the position that is kept of the other server."""
        return self.world.network.outcome(self.process.sending.records.destinations.behind()).get(THERE)

    def test_a_server_that_comes_back_just_before_the_wait(self) -> None:
        """It is sent to at once, not when its back-off would have ended."""
        self.world.network.outcome(self.world.backoff.failed(THERE, self.world.now, 3_600_000))
        self._hold(OutboundEduStore, "trim")
        self.home.say("first")
        self._pass()
        self.assertEqual(len(self.held), 1)
        self.world.network.outcome(self.world.backoff.succeeded(THERE))
        self._let_go()
        self._pass(3)
        self.assertEqual(self.receiver.texts, ["first"])

    def test_a_position_that_goes_back_while_one_is_written(self) -> None:
        """The older one is written too, and its shard does not pass it before."""
        self.home.say("first")
        self._pass()
        self._hold(DestinationStore, "set_position")
        self.receiver.answer = lambda _: DEAD
        self.home.say("second")
        self._pass()
        destination = self.destinations[THERE]
        self.assertEqual((self._position, destination.holds), (1, 1))
        destination.begin_behind(0)
        self._let_go()
        self.assertEqual((self._position, destination.holds), (0, 0))
        self._let_go()
        self.assertEqual((self._position, destination.holds), (0, None))

    def test_a_position_that_goes_back_while_a_backlog_is_read(self) -> None:
        """What was read from the later position is put away."""
        for text in ("first", "second"):
            self.home.say(text)
        self._pass()
        self.receiver.transactions.clear()
        self._hold(CatchUp, "plan")
        destination = self.process.sender._destination(THERE)
        destination.begin_behind(1)
        self._pass()
        destination.begin_behind(0)
        for _ in range(5):
            self._let_go()
        self.assertEqual(self.receiver.texts, ["first", "second"])

    def test_a_queue_that_was_stopped_writes_nothing(self) -> None:
        """Whoever sends to the server now keeps its position."""
        self.home.say("first")
        self._pass()
        self._hold(CatchUp, "plan")
        destination = self.process.sender._destination(THERE)
        destination.begin_behind(1)
        self._pass()
        self.assertEqual(len(self.held), 1)
        destination.stop()
        store = self.process.sending.records.destinations
        self.world.network.outcome(store.set_position(THERE, 0))
        self._let_go()
        self.assertEqual(self._position, 0)
