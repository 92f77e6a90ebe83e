"""From rooms to be shown to their parts: stretches of the feed, what stands beside the events, then bytes.

Source: client-server-api/_index.md, "Syncing".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import frozen

from homeserver.history.visibility import Reader
from homeserver.sync.bodies import Bodies, Name
from homeserver.sync.ephemeral_events import DELIVERED, RECEIPT, TYPING
from homeserver.sync.filters import EventFilter
from homeserver.sync.invites import Invites
from homeserver.sync.joined import Task
from homeserver.sync.recipient import Recipient
from homeserver.sync.render import ClientEvent
from homeserver.sync.room_part import RoomPart
from homeserver.sync.room_parts import Beside, RoomParts
from homeserver.sync.rooms import Section, Shown
from homeserver.sync.sources import DatabaseSource, Personal, Source
from homeserver.sync.spans import RoomSpan, of_one
from homeserver.sync.summary import Summaries, anyones_heroes, heroes_of
from homeserver.sync.suppliers import AccountDatum, Deliveries, Delivery, Receipt, Receipts
from homeserver.sync.timeline import scan_limit
from protocol.identifiers import RoomID, UserID
from storage.database import Database
from storage.feed import Entry, Flag, Kind
from storage.spans import Bounds

_COUNTING = (Kind.RECEIPT, Kind.UNREAD)


@frozen(eq=False)
class Told:
    """What is known before rooms are rendered."""

    shown: Sequence[Shown]
    source: Source
    personal: Personal | None
    account_data: Sequence[AccountDatum]
    typing: Mapping[int, Sequence[UserID]]


@frozen(eq=False)
class RoomsOfDelta:
    """Gives the parts of all rooms a delta shows."""

    _database: Database
    _bodies: Bodies
    _parts: RoomParts
    _invites: Invites
    _receipts: Receipts
    _deliveries: Deliveries
    _summaries: Summaries

    async def parts(self, told: Told, to: Recipient) -> list[RoomPart]:
        """Give the parts, joined and left rooms first."""
        inside = [each for each in told.shown if each.section in (Section.JOIN, Section.LEAVE)]
        outside = [each for each in told.shown if each.section in (Section.INVITE, Section.KNOCK)]
        found: list[RoomPart] = []
        if inside:
            tasks = await self._tasks(inside, told, to)
            found += await self._parts.parts(tasks, await self._beside(tasks, told, to), to)
        if outside:
            stripped = await self._invites.of(outside, to.session, to.ignored)
            found += [
                RoomPart(each.section, each.room.room_id, stripped[each.room.room_nid], each.upto)
                for each in outside
                if each.room.room_nid in stripped
            ]
        return found

    async def _tasks(self, shown: Sequence[Shown], told: Told, to: Recipient) -> list[Task]:
        """Read the stretches of the feed, and how the reader stands to each room."""
        found = await self._spans(shown, told.source, to)
        leaves = await self._leaves([each for each in shown if each.section is Section.LEAVE], found)
        heroes = await self._heroes(shown, found, to) if to.options.filter.lazy_load_members else {}
        tasks = []
        for each in shown:
            room = each.room.room_nid
            reader = Reader(to.session.user_id, joined=True)
            if each.section is Section.LEAVE:
                leave = leaves.get(room)
                place = None if leave is None else (leave.depth, leave.nid)
                reader = Reader(to.session.user_id, departure=place)
            tasks.append(Task(each, found[room], reader, heroes.get(room, ())))
        return tasks

    async def _heroes(
        self, shown: Sequence[Shown], found: Mapping[int, RoomSpan], to: Recipient
    ) -> dict[int, tuple[UserID, ...]]:
        """Give the heroes of rooms that are new to the reader; of those in which members changed, anybody's.

        What is told of the latter is shared by readers, whose heroes differ by themselves.
        """
        moved = {
            each.room.room_nid
            for each in shown
            if each.section is Section.JOIN and not each.full and _may_move(found[each.room.room_nid])
        }
        wanted = [each.room.room_nid for each in shown if each.full or each.room.room_nid in moved]
        summaries = await self._summaries.of(wanted) if wanted else {}
        return {
            nid: anyones_heroes(each) if nid in moved else heroes_of(each, to.session.user_id)
            for nid, each in summaries.items()
        }

    async def _spans(self, shown: Sequence[Shown], source: Source, to: Recipient) -> dict[int, RoomSpan]:
        """Read from the source; rooms that are new to the reader reach back beyond it, to the database.

        Of a room whose reader was never inside nothing is read: the reader's own entry is all there is.
        """
        n = scan_limit(to.options.filter, drops=bool(to.ignored))
        bounds = [
            Bounds(each.room.room_nid, each.after, each.upto, n) for each in shown if each.own_only is None
        ]
        near = [each for each in bounds if each.after >= to.since > 0]
        far = [each for each in bounds if not each.after >= to.since > 0]
        found = {
            each.room.room_nid: of_one(each.room.room_nid, each.after, each.own_only)
            for each in shown
            if each.own_only is not None
        }
        found |= await source.spans(near) if near else {}
        if far:
            found |= await DatabaseSource(self._database, 0, to.upto).spans(far)
        return found

    async def _leaves(self, shown: Sequence[Shown], found: Mapping[int, RoomSpan]) -> dict[int, ClientEvent]:
        """Give the reader's own leave of each room that was left."""
        names: list[Name] = []
        for each in shown:
            span = found[each.room.room_nid]
            if span.events and span.events[-1].pos == each.upto:
                names.append((each.room.room_nid, span.events[-1].ref or 0))
        bodies = await self._bodies.get(names) if names else {}
        return {room: event for (room, _), event in bodies.items()}

    async def _beside(self, tasks: Sequence[Task], told: Told, to: Recipient) -> Beside:
        """Gather receipts, account data, typing, and whose counts the reader moved; none that is filtered."""
        names = {task.room_nid: task.shown.room.room_id for task in tasks}
        allowed, own = to.options.filter.ephemeral, told.personal.own if told.personal is not None else ()
        counted = {entry.room_nid for entry in own if entry.kind in _COUNTING and entry.room_nid is not None}
        return Beside(
            await self._receipts_in(tasks, allowed),
            {
                nid: users
                for nid, users in told.typing.items()
                if nid in names and allowed.allows(names[nid], TYPING)
            },
            _data_by_room(told.account_data, names, to.options.filter.room_account_data),
            await self._delivered(own, names, allowed),
            counted,
        )

    async def _receipts_in(
        self, tasks: Sequence[Task], allowed: EventFilter
    ) -> Mapping[int, Sequence[Receipt]]:
        """Give the receipts of joined rooms: all where the reader knows none, else those that moved."""
        wanted: dict[int, frozenset[int] | None] = {
            task.room_nid: None if task.shown.full else task.span.receipts
            for task in tasks
            if task.shown.section is Section.JOIN
            and (task.shown.full or task.span.receipts)
            and allowed.allows(task.shown.room.room_id, RECEIPT)
        }
        if not wanted or allowed.never:
            return {}
        return {room: got for room, got in (await self._receipts.of(wanted)).items() if got}

    async def _delivered(
        self, own: Sequence[Entry], names: Mapping[int, RoomID], allowed: EventFilter
    ) -> Mapping[int, Sequence[Delivery]]:
        """Give the marks that moved."""
        moved: dict[int, frozenset[int]] = {}
        for entry in own:
            nid = entry.room_nid
            if entry.kind != Kind.DELIVERED or nid is None or nid not in names or entry.ref is None:
                continue
            if allowed.allows(names[nid], DELIVERED):
                moved[nid] = moved.get(nid, frozenset()) | {entry.ref}
        return await self._deliveries.of(moved) if moved else {}


def _may_move(span: RoomSpan) -> bool:
    """Tell whether members of a room may have changed."""
    return not (span.complete and span.straight) or any(
        entry.flags & Flag.MEMBERSHIP for entry in span.entries
    )


def _data_by_room(
    data: Sequence[AccountDatum], names: Mapping[int, RoomID], allowed: EventFilter
) -> dict[int, list[AccountDatum]]:
    """Sort account data by room, leaving out what the filter leaves out."""
    found: dict[int, list[AccountDatum]] = {}
    for each in data:
        nid = each.room_nid
        if nid is not None and nid in names and allowed.allows(names[nid], each.type):
            found.setdefault(nid, []).append(each)
    return found
