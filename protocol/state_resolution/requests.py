"""What state resolution is given, what it asks for, and what it is answered.

The algorithms are generators which yield requests, so that their driver decides where events, states and
auth chains come from. Nothing here reads anything.

Source: rooms/fragments/v2-state-res.md and rooms/v12.md, "State resolution".
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import TypeVar

from attrs import frozen

from protocol.events import Event
from protocol.identifiers import EventID, StateKey


@frozen
class Conflict:
    """What the states to be resolved do not agree on.

    `candidates` has each key under which they do not all have the same event, and every event that one of
    them has there. A key that some state lacks has its other states' events: perhaps only one.
    """

    candidates: Mapping[StateKey, frozenset[EventID]]

    @property
    def events(self) -> frozenset[EventID]:
        """Give the conflicted state set."""
        return frozenset().union(*self.candidates.values())


@frozen
class NeedEvents:
    """Asks for a mapping from these IDs to events; rejected and unknown ones are to be left out.

    An empty request asks for nothing but a pause: there is long work ahead.
    """

    ids: frozenset[EventID]


@frozen
class NeedUnconflicted:
    """Asks for a mapping from these keys to the events that all states have there; others are left out."""

    keys: frozenset[StateKey]


@frozen
class NeedAuthDifference:
    """Asks for the IDs of all events that some of the states rest on and others do not.

    A state rests on its own events and on their auth chains.
    """


@frozen
class NeedSubgraph:
    """Asks for the IDs on all auth paths between any two of these events, these events included."""

    ids: frozenset[EventID]


Request = NeedEvents | NeedUnconflicted | NeedAuthDifference | NeedSubgraph
Answer = Mapping[EventID, Event] | Mapping[StateKey, EventID] | frozenset[EventID]

T = TypeVar("T")
Steps = Generator[Request, Answer, T]
"""An algorithm, or a part of one, that gives a `T` in the end."""
