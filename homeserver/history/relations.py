"""The children of an event, a page at a time, and the threads of a room.

Source: client-server-api/relations.yaml, threads_list.yaml.
"""

from __future__ import annotations

from collections.abc import Sequence

import orjson
from attrs import define, field, frozen

from homeserver.history.places import END, START, place_of, token_after, token_before
from homeserver.history.presenting import Asker, Presenter
from homeserver.history.single_events import SingleEvents
from homeserver.history.visibility import Verdict
from homeserver.sync.bodies import Bodies, redacted_versions
from homeserver.sync.render import ClientEvent, emptied
from homeserver.sync.tokens import FeedToken, HistoryToken
from protocol.identifiers import EventID
from storage import client_events, relations
from storage.client_events import ClientEventRow, Place
from storage.database import Database, Transaction
from storage.relations import Sought, Thread

LEVELS = 3
"""Levels of relations that `recurse` follows."""
MAX_PARENTS = 2000
"""Events whose children are looked for when recursing."""
SCAN_BUDGET = 1000
"""Events looked at for one page."""


@frozen(eq=False)
class RelationsRequest:
    """Which children of an event are asked for."""

    event_id: EventID
    rel_type: str | None
    event_type: str | None
    start: FeedToken | HistoryToken | None
    stop: FeedToken | HistoryToken | None
    backwards: bool
    limit: int
    recurse: bool


@define(eq=False)
class _Scan:
    """A page in the making."""

    kept: list[ClientEvent] = field(factory=list)
    verdicts: dict[int, Verdict] = field(factory=dict)
    scanned: int = 0
    at: Place | None = None
    more: bool = True
    levels: int = 0


@frozen(eq=False)
class _Batch:
    """What one query reads of an event's children."""

    rows: Sequence[ClientEventRow]
    versions: dict[int, str]
    exhausted: bool
    levels: int


@frozen(eq=False)
class Relations:
    """Reads relations and threads."""

    _database: Database
    _bodies: Bodies
    _presenter: Presenter
    _events: SingleEvents

    async def children(self, asker: Asker, request: RelationsRequest) -> bytes:
        """Give a page of an event's children as JSON; raise NotFound for an event one may not see."""
        await self._events.see(asker, request.event_id)
        scan = _Scan()
        while scan.more and len(scan.kept) < request.limit and scan.scanned < SCAN_BUDGET:
            count = request.limit - len(scan.kept)
            batch = await self._database.read(read_children_page, asker, request, scan.at, count)
            scan.levels = batch.levels
            await self._take(batch, scan, asker)
        chunk = await self._presenter.render(scan.kept, scan.verdicts, asker)
        members = [b'"chunk":[%b]' % b",".join(chunk)]
        if scan.more and scan.at is not None:
            token = token_before(scan.at) if request.backwards else token_after(scan.at)
            members.append(b'"next_batch":"%b"' % str(token).encode())
        if request.start is not None:
            members.append(b'"prev_batch":"%b"' % str(request.start).encode())
        if request.recurse:
            members.append(b'"recursion_depth":%d' % scan.levels)
        return b"{%b}" % b",".join(members)

    async def _take(self, batch: _Batch, scan: _Scan, asker: Asker) -> None:
        """Keep of a batch what the asker may see."""
        events = self._bodies.render(batch.rows, batch.versions)
        verdicts = await self._presenter.judge(events, asker)
        scan.verdicts |= verdicts
        scan.more = not batch.exhausted
        for event in events:
            scan.at = (event.depth, event.nid)
            scan.scanned += 1
            if verdicts[event.nid].visible and not asker.ignores(event):
                scan.kept.append(event)

    async def threads(
        self, asker: Asker, start: HistoryToken | None, limit: int, *, participated: bool
    ) -> bytes:
        """Give a page of a room's threads as JSON, the most recently active first.

        A root by an ignored user is given without its content.
        """
        before = END if start is None else (start.depth, start.nid)
        by = asker.session.user_nid if participated else None
        found, rows, versions = await self._database.read(read_threads, asker, before, limit, by)
        roots = {event.event_id: event for event in self._bodies.render(rows, versions)}
        verdicts = await self._presenter.judge(list(roots.values()), asker)
        shown = [
            emptied(root) if asker.ignores(root) else root
            for thread in found[:limit]
            if (root := roots.get(EventID(thread.root_id))) is not None and verdicts[root.nid].visible
        ]
        chunk = await self._presenter.render(shown, verdicts, asker)
        following = b""
        if len(found) > limit > 0:
            last = found[limit - 1]
            token = token_before((last.depth, last.nid))
            following = b',"next_batch":%b' % orjson.dumps(str(token))
        return b'{"chunk":[%b]%b}' % (b",".join(chunk), following)


def read_children_page(
    tx: Transaction, asker: Asker, request: RelationsRequest, at: Place | None, count: int
) -> _Batch:
    """Read the next children; `at` is the last one looked at, None for the first batch."""
    room_nid, backwards = asker.access.room.nid, request.backwards
    parents, levels = [str(request.event_id)], 1
    if request.recurse:
        parents, levels = relations.descendants(tx, room_nid, request.event_id, LEVELS - 1, MAX_PARENTS)
        levels += 1
    if at is None:
        start = place_of(tx, room_nid, request.start, backwards=backwards)
    else:
        start = at if backwards else (at[0], at[1] + 1)
    stop = START if backwards else END
    if request.stop is not None:
        stop = place_of(tx, room_nid, request.stop, backwards=not backwards)
    sought = Sought(room_nid, parents, request.rel_type, request.event_type)
    rows = relations.page(tx, sought, start, backwards=backwards, limit=count + 1)
    if backwards:
        within = [row for row in rows if (row.depth, row.event_nid) >= stop]
    else:
        within = [row for row in rows if (row.depth, row.event_nid) < stop]
    kept = within[:count]
    return _Batch(kept, redacted_versions(tx, kept), len(within) <= count, levels)


def read_threads(
    tx: Transaction, asker: Asker, before: Place, limit: int, by: int | None
) -> tuple[list[Thread], list[ClientEventRow], dict[int, str]]:
    """Read threads with one more than asked, and their roots; for one who left, up to the own leave."""
    room_nid, bound = asker.access.room.nid, asker.access.bound
    if bound is not None:
        before = min(before, (bound[0], bound[1] + 1))
    found = relations.threads(tx, room_nid, before, limit + 1, by)
    rows = client_events.by_ids(tx, room_nid, [thread.root_id for thread in found[:limit]])
    return found, rows, redacted_versions(tx, rows)
