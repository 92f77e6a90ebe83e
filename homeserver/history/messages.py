"""Pages of a room's history, in either direction.

The end is told by the index, never by an empty page: where hidden or filtered events use up a scan's
budget, the page is short and has a token that goes on (security: C3). Where history was never fetched,
other servers are asked once.

Source: client-server-api/message_pagination.yaml.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from attrs import define, field, frozen

from homeserver.history.places import END, START, place_of, token_after, token_before
from homeserver.history.presenting import Asker, Presenter
from homeserver.history.visibility import Verdict
from homeserver.sync.filters import ALL_EVENTS, EventFilter
from homeserver.sync.one_hop import OneHop, Reads
from homeserver.sync.render import ClientEvent
from homeserver.sync.state import MEMBER
from homeserver.sync.tails import Tails
from homeserver.sync.timeline import passes
from homeserver.sync.tokens import FeedToken, HistoryToken
from storage import client_events, gaps
from storage.client_events import Place
from storage.database import Transaction
from storage.state_trie import EMPTY_ROOT, StateRoot
from storage.trie_lookup import Sought

SCAN_BUDGET = 1000
"""Events looked at for one page."""
LEAST_SCAN = 80
"""The least number of events read at once, where many may be hidden."""


class Backfill(Protocol):
    """Fetches history from other servers (implemented by federation)."""

    async def fill(self, room_nid: int, depth: int) -> bool:
        """Fetch events before a depth in a room with a gap there; tell whether any came."""
        ...


@frozen(eq=False)
class PageRequest:
    """Which page is asked for."""

    start: FeedToken | HistoryToken | None
    stop: FeedToken | HistoryToken | None
    backwards: bool
    limit: int
    wanted: EventFilter = ALL_EVENTS


@frozen(eq=False)
class Page:
    """A page of rendered events; `end` None: there is nothing more in this direction."""

    chunk: Sequence[bytes]
    start: HistoryToken | FeedToken
    end: HistoryToken | None
    state: Sequence[bytes] = ()
    events: Sequence[ClientEvent] = ()
    """The events of the chunk, in its order."""

    def to_json(self) -> bytes:
        """Give the answer of `/messages`."""
        end = b"" if self.end is None else b',"end":"%b"' % str(self.end).encode()
        state = b',"state":[%b]' % b",".join(self.state) if self.state else b""
        chunk = b",".join(self.chunk)
        return b'{"chunk":[%b],"start":"%b"%b%b}' % (chunk, str(self.start).encode(), end, state)


@frozen(eq=False)
class Batch:
    """Where the next events of a page lie, in the order of reading."""

    start: Place
    """The gap from which it was read."""
    places: Sequence[Place]
    exhausted: bool
    """Whether the index ended, or the asked stop was reached, within the batch."""
    gap: int | None
    """The depth below which history was never fetched, if that lies within the batch or right after."""


@define(eq=False)
class _Scan:
    """A page in the making."""

    kept: list[ClientEvent] = field(factory=list)
    verdicts: dict[int, Verdict] = field(factory=dict)
    scanned: int = 0
    first: Place | None = None
    at: Place | None = None
    """The last event looked at."""
    more: bool = True


@frozen(eq=False)
class Messages:
    """Reads pages of history, each in one hop to a database thread."""

    _hop: OneHop
    _backfill: Backfill | None = None

    async def page(self, asker: Asker, request: PageRequest) -> Page:
        """Give a page of what the asker may see."""
        asks = self._backfill is not None and asker.access.joined
        page = await self._hop.run(_read_page, asker, request, stop_at_gap=asks)
        if isinstance(page, Gap):
            if self._backfill is not None:
                await self._backfill.fill(asker.access.room.nid, page.depth)
            page = await self._hop.run(_read_page, asker, request, stop_at_gap=False)
        assert isinstance(page, Page)
        return page


@frozen(eq=False)
class Gap:
    """What ends the reading of a page: history below a depth was never fetched."""

    depth: int


async def _read_page(reads: Reads, asker: Asker, request: PageRequest, *, stop_at_gap: bool) -> Page | Gap:
    """Read a page within a transaction, or up to the first gap."""
    tails = Tails(reads.database, reads.aggregations)
    presenter = Presenter(reads.bodies, reads.states, reads.visibility, reads.aggregations, tails)
    scan = _Scan(more=request.wanted.allows_room(asker.access.room.room_id))
    while scan.more and len(scan.kept) < request.limit and scan.scanned < SCAN_BUDGET:
        missing = request.limit - len(scan.kept)
        unlikely_enough = scan.scanned > 0 or not request.wanted.passes_all
        count = min(max(missing, LEAST_SCAN if unlikely_enough else 0), SCAN_BUDGET - scan.scanned)
        batch = await reads.database.read(read_batch, asker, request, scan.at, count)
        if stop_at_gap and batch.gap is not None:
            return Gap(batch.gap)
        await _take(batch, scan, reads, presenter, asker, request)
    chunk = await presenter.render(scan.kept, scan.verdicts, asker)
    state: Sequence[bytes] = ()
    if request.wanted.lazy_load_members and scan.kept:
        state = await presenter.plain(await _speakers(reads, scan.kept), asker)
    end = _token_past(scan, request) if scan.more else None
    return Page(chunk, _start(scan, request), end, state, scan.kept)


async def _take(
    batch: Batch, scan: _Scan, reads: Reads, presenter: Presenter, asker: Asker, request: PageRequest
) -> None:
    """Keep of a batch what may be shown, up to the limit."""
    room_nid = asker.access.room.nid
    events = await reads.bodies.get([(room_nid, nid) for _, nid in batch.places])
    verdicts = await presenter.judge(list(events.values()), asker)
    scan.verdicts |= verdicts
    scan.first = batch.start if scan.first is None else scan.first
    for place in batch.places:
        if len(scan.kept) == request.limit:
            return
        scan.at = place
        scan.scanned += 1
        event = events[room_nid, place[1]]
        shown = verdicts[event.nid].visible and not asker.ignores(event)
        if shown and passes(event, request.wanted):
            scan.kept.append(event)
    scan.more = not batch.exhausted


async def _speakers(reads: Reads, events: Sequence[ClientEvent]) -> Sequence[ClientEvent]:
    """Give the members who speak in a page, as they were at its newest event, for lazy loading."""
    newest = max(events, key=lambda event: (event.depth, event.nid))
    keys = [(MEMBER, sender) for sender in dict.fromkeys(event.sender for event in events)]
    root = StateRoot(newest.root_before or EMPTY_ROOT)
    state = (await reads.states.find([Sought(newest.room_nid, root, keys)]))[0]
    found = await reads.bodies.get((newest.room_nid, nid) for nid in state.values())
    return list(found.values())


def read_batch(tx: Transaction, asker: Asker, request: PageRequest, at: Place | None, count: int) -> Batch:
    """Find the next events of a page; `at` is the last one looked at, None for the first batch."""
    room_nid, backwards = asker.access.room.nid, request.backwards
    start, stop = _limits(tx, asker, request)
    if at is not None:
        start = at if backwards else (at[0], at[1] + 1)
    if backwards:
        found = client_events.places_before(tx, room_nid, start, count + 1)
        within = [place for place in found if place >= stop]
    else:
        found = client_events.places_after(tx, room_nid, (start[0], start[1] - 1), count + 1)
        within = [place for place in found if place < stop]
    exhausted = len(within) <= count
    within = within[:count]
    gap = _gap(tx, room_nid, start, within, exhausted) if backwards else None
    return Batch(start, within, exhausted, gap)


def _limits(tx: Transaction, asker: Asker, request: PageRequest) -> tuple[Place, Place]:
    """Give the places between which a page lies; for one who left, nothing after the own leave."""
    room_nid, backwards = asker.access.room.nid, request.backwards
    start = place_of(tx, room_nid, request.start, backwards=backwards)
    stop = place_of(tx, room_nid, request.stop, backwards=not backwards)
    bound = asker.access.bound
    if bound is not None:
        last = (bound[0], bound[1] + 1)
        return (min(start, last), stop) if backwards else (start, min(stop, last))
    return start, stop


def _gap(
    tx: Transaction, room_nid: int, start: Place, places: Sequence[Place], exhausted: bool
) -> int | None:
    """Give the depth of the nearest gap, if reading comes upon it."""
    near = gaps.near(tx, room_nid, start[0], 1)
    if not near:
        return None
    depth = near[0].depth
    return depth if exhausted or not places or depth >= places[-1][0] else None


def _token_past(scan: _Scan, request: PageRequest) -> HistoryToken | None:
    """Give the token from which reading goes on."""
    if scan.at is None:
        return None
    return token_before(scan.at) if request.backwards else token_after(scan.at)


def _start(scan: _Scan, request: PageRequest) -> HistoryToken | FeedToken:
    """Give the token the page began with; without one, that of the end where it began."""
    if request.start is not None:
        return request.start
    if scan.first is None or scan.first in (START, END):
        return token_before(END if request.backwards else (0, 0))
    return token_before(scan.first)
