"""Rendered events in memory: a cache in bytes, filled by the feed or in bulk, dropped by redactions.

It holds what everyone may share; nothing of one recipient. Bound: `budget` bytes, the least recently
used go first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

from homeserver.events.stored import StoredEvent
from homeserver.sync.render import ClientEvent, as_pdu, render_row, render_stored
from protocol.room_versions import RoomVersion, get_room_version
from storage import client_events
from storage.client_events import ClientEventRow
from storage.database import Database, Transaction
from storage.feed import Entry, Kind, is_change

Name = tuple[int, int]
"""An event's name inside: (room nid, event nid)."""


class Bodies:
    """Events as clients read them, by (room nid, event nid). Belongs to one thread; any may `peek`."""

    def __init__(
        self, database: Database, budget: int = 12 * 1024 * 1024, behind: Bodies | None = None
    ) -> None:
        """Start empty; `budget` is in bytes. What `behind` holds is not read again."""
        self._database = database
        self._budget = budget
        self._behind = behind
        self._bytes = 0
        self._held: OrderedDict[Name, ClientEvent] = OrderedDict()
        self._changes = 0
        self._last_change: int = 0 if behind is None else behind._last_change

    @property
    def bytes_held(self) -> int:
        """Tell the bytes held, roughly."""
        return self._bytes

    @property
    def changes(self) -> int:
        """Count what was dropped for being out of date: what was read meanwhile is not to be kept."""
        return self._changes

    def peek(self, room_nid: int, nid: int) -> ClientEvent | None:
        """Give an event that is held already."""
        held = self._held.get((room_nid, nid))
        return held if held is not None or self._behind is None else self._behind.peek(room_nid, nid)

    def borrowed(self, database: Database) -> Bodies:
        """Give the events for use on a database thread, where `database` is at hand."""
        return Bodies(database, self._budget, self)

    def take(self, borrowed: Bodies, changes: int) -> None:
        """Keep what was read on a thread, if there have been no changes since there were this many."""
        if changes == self._changes:
            self._keep(borrowed._held.values())

    def of_entry(self, entry: Entry) -> ClientEvent | None:
        """Give the event of a feed entry without asking the database, if that is possible."""
        assert entry.room_nid is not None and entry.ref is not None
        found = self.peek(entry.room_nid, entry.ref)
        if found is None and isinstance(entry.payload, StoredEvent):
            if self._last_change > entry.pos:
                return None  # the payload may be out of date
            found = render_stored(entry.payload)
            self._keep([found])
        return found

    async def get(self, wanted: Iterable[Name]) -> dict[Name, ClientEvent]:
        """Give events, asking the database once for all that are not held; unknown ones are absent."""
        found: dict[Name, ClientEvent] = {}
        missing: list[Name] = []
        for name in wanted:
            held = self._held.get(name)
            if held is not None:
                self._held.move_to_end(name)
            elif self._behind is not None:
                held = self._behind.peek(*name)
            if held is None:
                missing.append(name)
            else:
                found[name] = held
        if missing:
            at = self._changes
            loaded = render_all(*await self._database.read(read_rows, missing))
            found |= {(event.room_nid, event.nid): event for event in loaded}
            if at == self._changes:
                self._keep(loaded)
        return found

    def render(self, rows: Sequence[ClientEventRow], versions: dict[int, str]) -> list[ClientEvent]:
        """Render rows another query has read, taking from the cache what is held; the rows are not kept."""
        return [self.peek(row.room_nid, row.event_nid) or _render(row, versions) for row in rows]

    async def because(self, events: Iterable[ClientEvent]) -> dict[Name, ClientEvent]:
        """Give the redactions of those events that are redacted, by the redacted event's name."""
        redacted = [event for event in events if event.redacted_by is not None]
        if not redacted:
            return {}
        found = await self.get({(e.room_nid, e.redacted_by) for e in redacted if e.redacted_by is not None})
        return {
            (e.room_nid, e.nid): found[e.room_nid, e.redacted_by]
            for e in redacted
            if e.redacted_by is not None and (e.room_nid, e.redacted_by) in found
        }

    def apply(self, entries: Sequence[Entry]) -> None:
        """Drop what has changed. A listener of the feed, before any session is woken."""
        for entry in entries:
            if is_change(entry):
                self._changes += 1
                self._last_change = entry.pos
                self._drop_changed(entry)

    def _drop_changed(self, entry: Entry) -> None:
        """Drop the event that has changed: the target of a redaction is the whole room if it is not known."""
        if entry.kind == Kind.CHANGED:
            dropped = self._held.pop((entry.room_nid or 0, entry.ref or 0), None)
            self._bytes -= 0 if dropped is None else dropped.size
            return
        payload = entry.payload
        target = payload.event.redacts if isinstance(payload, StoredEvent) else None
        for name in [
            name
            for name, event in self._held.items()
            if name[0] == entry.room_nid and (target is None or event.event_id == target)
        ]:
            self._bytes -= self._held.pop(name).size

    def _keep(self, events: Iterable[ClientEvent]) -> None:
        """Hold more events, letting the oldest go past the budget."""
        held = self._held
        for event in events:
            name = (event.room_nid, event.nid)
            if name in held:
                self._bytes -= held.pop(name).size
            held[name] = event
            self._bytes += event.size
        while self._bytes > self._budget and len(held) > 1:
            self._bytes -= held.popitem(last=False)[1].size


def read_rows(tx: Transaction, wanted: Sequence[Name]) -> tuple[list[ClientEventRow], dict[int, str]]:
    """Read rows by name, and the versions of rooms in which one of them is redacted."""
    rows = client_events.by_nids(tx, wanted)
    return rows, redacted_versions(tx, rows)


def redacted_versions(tx: Transaction, rows: Sequence[ClientEventRow]) -> dict[int, str]:
    """Give the versions of the rooms in which a row is redacted: rendering needs no others."""
    return client_events.versions(tx, list({row.room_nid for row in rows if row.redacted_by is not None}))


def render_all(rows: Sequence[ClientEventRow], versions: dict[int, str]) -> list[ClientEvent]:
    """Render rows as `read_rows` gives them."""
    return [_render(row, versions) for row in rows]


def _render(row: ClientEventRow, versions: dict[int, str]) -> ClientEvent:
    """Render one row."""
    version: RoomVersion | None = None
    if row.redacted_by is not None:
        version = get_room_version(versions[row.room_nid])
    return render_row(row, version)


def render_pdus(rows: Sequence[ClientEventRow], versions: dict[int, str]) -> list[ClientEvent]:
    """Render rows in the format of federation: the whole PDU, redacted where it must be."""
    return [
        as_pdu(
            _render(row, versions), row, versions.get(row.room_nid) if row.redacted_by is not None else None
        )
        for row in rows
    ]
