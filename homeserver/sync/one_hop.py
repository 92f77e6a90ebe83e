"""Whole answers read on a database thread, in one hop and one snapshot.

The coroutines that judge and complete events run there as they are, against `storage.inside`. They look at
the caches of the reactor's thread but change nothing in them; what those lacked is kept when the answer is
back, unless an event has changed meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, TypeVar

from attrs import frozen

from homeserver.history.aggregations import Aggregations
from homeserver.history.visibility import Visibility
from homeserver.sync.bodies import Bodies
from homeserver.sync.states import States
from storage.database import Database, Transaction
from storage.inside import Inside, run_at_once
from storage.trie_nodes import BorrowedNodes, NodeCache

P = ParamSpec("P")
T = TypeVar("T")


@frozen(eq=False)
class Reads:
    """What reads events: of the reactor's thread, or within one transaction."""

    database: Database
    bodies: Bodies
    states: States
    visibility: Visibility
    aggregations: Aggregations


@frozen(eq=False)
class OneHop:
    """Runs coroutines that read on database threads."""

    _database: Database
    _bodies: Bodies
    _nodes: NodeCache

    async def run(
        self, work: Callable[Concatenate[Reads, P], Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a coroutine that awaits nothing but what it is given."""
        changes = self._bodies.changes

        def within(tx: Transaction) -> tuple[T, Bodies, BorrowedNodes]:
            database, nodes = Inside(tx), BorrowedNodes(self._nodes)
            bodies, states = self._bodies.borrowed(database), States(database, nodes)
            visibility = Visibility(states, bodies)
            aggregations = Aggregations(database, bodies, visibility)
            reads = Reads(database, bodies, states, visibility, aggregations)
            return run_at_once(work(reads, *args, **kwargs)), bodies, nodes

        result, bodies, nodes = await self._database.read(within)
        self._bodies.take(bodies, changes)
        self._nodes.add_all(nodes.loaded)
        return result
