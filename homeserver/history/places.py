"""Where in history a token points: the gap just before a place (depth, event nid).

Reading backwards gives what lies before the gap, forwards what lies after it. A token of sync points
between two entries of the feed; it is turned so that nothing is skipped: where arrival and history
disagree, some events are given again rather than never.

Source: client-server-api/_index.md, "Syncing" (the order of events differs between endpoints).
"""

from __future__ import annotations

from homeserver.sync.tokens import MAX_NUMBER, FeedToken, HistoryToken
from storage import spans
from storage.client_events import Place
from storage.database import Transaction

START: Place = (-1, 0)
END: Place = (MAX_NUMBER, MAX_NUMBER)
NEIGHBOURS = 50
"""Entries of the feed beside a sync token that are looked at."""


def place_of(
    tx: Transaction, room_nid: int, token: FeedToken | HistoryToken | None, *, backwards: bool
) -> Place:
    """Give the place just after the gap a token points at; without one, the end where reading begins."""
    if token is None:
        return END if backwards else START
    if isinstance(token, HistoryToken):
        return (token.depth, token.nid)
    before = spans.places_upto(tx, room_nid, token.pos, NEIGHBOURS) if backwards else []
    if before:
        depth, nid = max(before)
        return (depth, nid + 1)
    after = spans.places_after(tx, room_nid, token.pos, NEIGHBOURS)
    return min(after) if after else END


def token_before(place: Place) -> HistoryToken:
    """Give the token of the gap just before an event."""
    return HistoryToken(max(0, place[0]), max(0, place[1]))


def token_after(place: Place) -> HistoryToken:
    """Give the token of the gap just after an event."""
    return HistoryToken(place[0], place[1] + 1)
