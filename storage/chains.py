"""Auth chains as stretches of chains of events: which events lie in them.

The arithmetic on auth clocks is in `homeserver.events.clocks`; here its answers become events.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from storage.database import Transaction

_MEMBERS = """
    WITH spans(room_nid, chain, after, upto) AS ( VALUES ?)
    SELECT e.event_nid, e.event_id FROM spans AS s
    JOIN events AS e ON e.room_nid = s.room_nid AND e.chain = s.chain
        AND e.number > s.after AND e.number <= s.upto
"""
_CLOCKS = """
    WITH spans(room_nid, chain, after, upto) AS ( VALUES ?)
    SELECT e.event_nid, e.event_id, e.chain, e.number, e.clock FROM spans AS s
    JOIN events AS e ON e.room_nid = s.room_nid AND e.chain = s.chain
        AND e.number > s.after AND e.number <= s.upto
"""
_SPANS_A_QUERY = 500

SpanRow = tuple[int, int, int]
"""(chain, after, upto): the events of a chain with `after < number <= upto`."""


class ChainEvent(NamedTuple):
    """A state event with its auth clock, as packed."""

    event_nid: int
    event_id: str
    chain: int
    number: int
    clock: bytes


def events_in(tx: Transaction, room_nid: int, spans: Sequence[SpanRow]) -> dict[int, str]:
    """Give (nid, event ID) of all events of a room that lie in some of the stretches."""
    found: dict[int, str] = {}
    for start in range(0, len(spans), _SPANS_A_QUERY):
        part = [(room_nid, *span) for span in spans[start : start + _SPANS_A_QUERY]]
        found.update(tx.values(_MEMBERS, part))
    return found


def clocks_in(tx: Transaction, room_nid: int, spans: Sequence[SpanRow]) -> list[ChainEvent]:
    """Give the clocks of all events of a room that lie in some of the stretches."""
    found: list[ChainEvent] = []
    for start in range(0, len(spans), _SPANS_A_QUERY):
        part = [(room_nid, *span) for span in spans[start : start + _SPANS_A_QUERY]]
        found += [ChainEvent._make(row) for row in tx.values(_CLOCKS, part)]
    return found
