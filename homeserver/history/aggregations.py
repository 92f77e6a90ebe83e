"""Bundled aggregations: what the children of an event add to its `unsigned`.

Edits (`m.replace`), threads and references; annotations are not aggregated. A child counts only if its
reader may see it and does not ignore its sender (security: C11). All events of an answer are served by one
look-up of children, one of states and one of bodies, whatever their number.

Source: client-server-api/_index.md, "Aggregations of child events"; modules/event_replacements.md,
modules/threading.md, modules/reference_relations.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import orjson
from attrs import frozen

from homeserver.history.visibility import Reader, Visibility
from homeserver.sync.bodies import Bodies, Name
from homeserver.sync.render import ClientEvent, Unsigned, finish
from protocol.identifiers import RoomID, UserID
from storage import relations
from storage.database import Database, Transaction
from storage.relations import Child

REPLACE, THREAD, REFERENCE = "m.replace", "m.thread", "m.reference"
MAX_CHILDREN = 5000
"""Children looked at for one answer, the newest; counts of longer threads stop there."""
CANDIDATES = 3
"""Newest children of each kind that are tried until one is valid and visible."""
MAX_REFERENCES = 100


@frozen(eq=False)
class Viewer:
    """Who is shown aggregations."""

    user_id: UserID
    user_nid: int
    ignored: frozenset[UserID]
    readers: Mapping[int, Reader]
    """How the viewer stands to each room, by room nid."""
    now: int
    room_ids: Mapping[int, RoomID] | None = None
    """For `room_id` in nested events; None: without, as in sync."""


class _NewContent(msgspec.Struct):
    """Whether an edit's content has what replaces."""

    new_content: msgspec.Raw | msgspec.UnsetType = msgspec.field(name="m.new_content", default=msgspec.UNSET)


Children = tuple[list[Child], set[int]]
"""What `read_children` gives: the children of events, and the numbers of ignored users."""


@frozen(eq=False)
class _Family:
    """The children of one event, newest first, by relation."""

    parent: ClientEvent
    edits: Sequence[Child]
    threaded: Sequence[Child]
    references: Sequence[Child]


@frozen(eq=False)
class Aggregations:
    """Bundles relations with events."""

    _database: Database
    _bodies: Bodies
    _visibility: Visibility

    async def bundle(self, events: Sequence[ClientEvent], viewer: Viewer) -> dict[Name, bytes]:
        """Give the `m.relations` object of those events that have one, by name."""
        return await self._bundle(events, viewer, nested=False)

    async def _bundle(
        self, events: Sequence[ClientEvent], viewer: Viewer, *, nested: bool
    ) -> dict[Name, bytes]:
        """Bundle; for the latest events of threads (`nested`) no threads are looked for again."""
        parents = [event for event in events if event.state_key is None]
        if not parents:
            return {}
        names = [(event.room_nid, event.event_id) for event in parents]
        found, ignored = await self._database.read(read_children, names, viewer.ignored)
        families = _families(parents, found, ignored)
        if not families:
            return {}
        bodies = await self._candidates(families, viewer)
        latest = {} if nested else _latest(families, bodies)
        inner = await self._bundle(list(latest.values()), viewer, nested=True) if latest else {}
        made: dict[Name, bytes] = {}
        for family in families:
            parts = _relations(family, bodies, latest, inner, viewer)
            if parts:
                made[family.parent.room_nid, family.parent.nid] = b"{%b}" % b",".join(parts)
        return made

    async def _candidates(self, families: Sequence[_Family], viewer: Viewer) -> dict[Name, ClientEvent]:
        """Give those of the newest children that the viewer may see."""
        names = {
            (child.room_nid, child.nid)
            for family in families
            for child in (
                *family.edits[:CANDIDATES],
                *family.threaded[:CANDIDATES],
                *family.references[:MAX_REFERENCES],
            )
        }
        bodies = await self._bodies.get(names)
        verdicts = await self._visibility.judge(list(bodies.values()), viewer.readers)
        return {name: event for name, event in bodies.items() if verdicts[event.nid].visible}


def read_children(
    tx: Transaction, parents: Sequence[tuple[int, str]], ignored: frozenset[UserID]
) -> Children:
    """Read the children of events named by (room nid, event ID), and the numbers of ignored users."""
    found = relations.children(tx, parents, MAX_CHILDREN)
    return found, relations.user_nids(tx, list(ignored)) if found and ignored else set()


def _families(parents: Sequence[ClientEvent], children: Sequence[Child], ignored: set[int]) -> list[_Family]:
    """Sort children by parent and relation."""
    by_parent: dict[tuple[int, str], list[Child]] = {}
    for child in children:
        if child.sender_nid not in ignored:
            by_parent.setdefault((child.room_nid, child.parent_id), []).append(child)
    families = []
    for parent in parents:
        own = by_parent.get((parent.room_nid, parent.event_id))
        if own:
            edits = [child for child in own if child.rel_type == REPLACE and not child.is_state]
            edits.sort(key=lambda child: (child.ts, child.event_id), reverse=True)
            threaded = [child for child in own if child.rel_type == THREAD]
            references = [child for child in own if child.rel_type == REFERENCE]
            families.append(_Family(parent, edits, threaded, references))
    return families


def _edit(family: _Family, bodies: Mapping[Name, ClientEvent]) -> ClientEvent | None:
    """Give the most recent valid edit of an event that may be edited."""
    parent = family.parent
    if parent.redacted_by is not None or parent.rel_type == REPLACE:
        return None
    for child in family.edits[:CANDIDATES]:
        event = bodies.get((child.room_nid, child.nid))
        if event is None or event.sender != parent.sender or event.type != parent.type:
            continue
        encrypted = event.type == "m.room.encrypted"
        if encrypted or msgspec.json.decode(event.content, type=_NewContent).new_content is not msgspec.UNSET:
            return event
    return None


def _latest(families: Sequence[_Family], bodies: Mapping[Name, ClientEvent]) -> dict[Name, ClientEvent]:
    """Give the latest visible event of each thread, by the root's name."""
    found: dict[Name, ClientEvent] = {}
    for family in families:
        for child in family.threaded[:CANDIDATES]:
            event = bodies.get((child.room_nid, child.nid))
            if event is not None:
                found[family.parent.room_nid, family.parent.nid] = event
                break
    return found


def _relations(
    family: _Family,
    bodies: Mapping[Name, ClientEvent],
    latest: Mapping[Name, ClientEvent],
    inner: Mapping[Name, bytes],
    viewer: Viewer,
) -> list[bytes]:
    """Give the members of one event's `m.relations`."""
    parent, parts = family.parent, []
    room_id = None if viewer.room_ids is None else viewer.room_ids.get(parent.room_nid)
    edit = _edit(family, bodies)
    if edit is not None:
        parts.append(b'"m.replace":' + finish(edit, viewer.now, room_id=room_id))
    last = latest.get((parent.room_nid, parent.nid))
    if last is not None:
        unsigned = Unsigned(relations=inner.get((last.room_nid, last.nid)))
        took_part = parent.sender == viewer.user_id or any(
            child.sender_nid == viewer.user_nid for child in family.threaded
        )
        parts.append(
            b'"m.thread":{"latest_event":%b,"count":%d,"current_user_participated":%b}'
            % (
                finish(last, viewer.now, unsigned, room_id),
                _count(family, viewer),
                b"true" if took_part else b"false",
            )
        )
    chunk = [
        b'{"event_id":%b}' % orjson.dumps(child.event_id)
        for child in reversed(family.references[:MAX_REFERENCES])
        if (child.room_nid, child.nid) in bodies
    ]
    if chunk:
        parts.append(b'"m.reference":{"chunk":[%b]}' % b",".join(chunk))
    return parts


def _count(family: _Family, viewer: Viewer) -> int:
    """Count a thread's events; one who has left counts none that came after."""
    reader = viewer.readers.get(family.parent.room_nid)
    departure = None if reader is None or reader.joined else reader.departure
    if departure is None:
        return len(family.threaded)
    return sum((child.depth, child.nid) < departure for child in family.threaded)
