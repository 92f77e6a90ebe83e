"""The rooms of a delta as bytes: shared where all recipients are told the same, else made for the reader.

Source: client-server-api/_index.md, "Syncing".
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence

import orjson
from attrs import frozen

from homeserver.sync.ephemeral_events import ephemeral_of, visible_receipts
from homeserver.sync.joined import RoomContent, RoomContents, Task
from homeserver.sync.one_hop import OneHop, Reads
from homeserver.sync.recipient import Recipient
from homeserver.sync.render import ClientEvent, event_list
from homeserver.sync.room_bytes import (
    EMPTY_EVENTS,
    NO_EXTRAS,
    Extras,
    JoinedParts,
    joined_json,
    left_json,
    state_bytes,
    timeline_bytes,
)
from homeserver.sync.room_part import RoomPart
from homeserver.sync.rooms import Section
from homeserver.sync.sent_members import SentMembers
from homeserver.sync.sharing import SharedRoom, SharedRooms, share_key
from homeserver.sync.summary import Summaries, summary_bytes
from homeserver.sync.suppliers import AccountDatum, Delivery, Receipt, UnreadCount, UnreadCounts
from homeserver.sync.tails import Tails
from protocol.identifiers import UserID

ROOMS_A_HOP = 100
"""Rooms read in one transaction and rendered in one turn: who is in thousands holds nobody up."""


@frozen(eq=False)
class Beside:
    """What rooms have to tell beside their events, as far as the filter lets it pass."""

    receipts: Mapping[int, Sequence[Receipt]] = {}
    typing: Mapping[int, Sequence[UserID]] = {}
    account_data: Mapping[int, Sequence[AccountDatum]] = {}
    delivered: Mapping[int, Sequence[Delivery]] = {}
    counted: Collection[int] = ()
    """Rooms whose unread counts moved by the reader's own doing."""


@frozen(eq=False)
class RoomParts:
    """Renders rooms; those of which all is told are read in few hops, others from memory where possible."""

    _reads: Reads
    _hop: OneHop
    _shared: SharedRooms
    _summaries: Summaries
    _sent: SentMembers
    _unread: UnreadCounts

    async def parts(self, tasks: Sequence[Task], beside: Beside, to: Recipient) -> list[RoomPart]:
        """Give the parts of joined and left rooms that have anything to tell."""
        rooms = await self._rendered(tasks, to)
        told = [task for task in tasks if _tells(task, rooms[task.room_nid].content, beside)]
        joined = [task.room_nid for task in told if task.shown.section is Section.JOIN]
        unread = await self._unread.of(to.session, joined, to.ignored) if joined else {}
        changed = [room for room in joined if rooms[room].content.members_changed]
        summaries = await self._summaries.of(changed) if changed else {}
        found = []
        for task in told:
            room = task.room_nid
            summary = summaries.get(room)
            own = _Own(
                b"{}" if summary is None else summary_bytes(summary, to.session.user_id),
                unread.get(room, UnreadCount()),
            )
            body = self._body(task, rooms[room], beside, to, own)
            latest = task.span.entries[-1].pos if task.span.entries else task.shown.after
            found.append(RoomPart(task.shown.section, task.shown.room.room_id, body, latest))
        return found

    async def _rendered(self, tasks: Sequence[Task], to: Recipient) -> dict[int, SharedRoom]:
        """Give the rendered content of each room, from what is shared or made now."""
        found: dict[int, SharedRoom] = {}
        missing: list[Task] = []
        for task in tasks:
            shared = self._shared.get(task.room_nid, _key(task, to)) if _is_shareable(task, to) else None
            if shared is None or self._is_personal(shared.content, to):
                missing.append(task)
            else:
                found[task.room_nid] = shared
        for start in range(0, len(missing), ROOMS_A_HOP):
            await self._make(missing[start : start + ROOMS_A_HOP], to, found)
        return found

    async def _make(self, tasks: Sequence[Task], to: Recipient, found: dict[int, SharedRoom]) -> None:
        """Read and render rooms, and keep what others may share."""
        changes = self._shared.changes
        if any(task.shown.full for task in tasks):
            contents, tails = await self._hop.run(_found, tasks, to)
        else:
            contents, tails = await _found(self._reads, tasks, to)
        for task in tasks:
            extras = tails.get(task.room_nid, NO_EXTRAS)
            made = found[task.room_nid] = _render(contents[task.room_nid], extras, to)
            is_same_for_others = _is_shareable(task, to) and extras is NO_EXTRAS and not to.ignored
            if is_same_for_others and changes == self._shared.changes:
                self._shared.keep(task.room_nid, _key(task, to), made)

    def _is_personal(self, content: RoomContent, to: Recipient) -> bool:
        """Tell whether this reader must be told otherwise than the rest."""
        return to.session.user_id in content.senders or not to.ignored.isdisjoint(content.senders)

    def _body(self, task: Task, room: SharedRoom, beside: Beside, to: Recipient, own: _Own) -> bytes:
        """Join one room's JSON."""
        members = self._unknown_members(task, room.content, to)
        wanted = to.options.filter
        state = room.state
        if members:
            state = state_bytes(room.content, members, wanted, to.now)
        name = to.options.state_name
        data = _account_data(beside.account_data.get(task.room_nid, ()))
        if task.shown.section is Section.LEAVE:
            return left_json(room.timeline, state, name, data)
        receipts = visible_receipts(beside.receipts.get(task.room_nid, ()), to.session.user_id)
        typing = beside.typing.get(task.room_nid)
        delivered = beside.delivered.get(task.room_nid, ())
        ephemeral = ephemeral_of(receipts, delivered, typing, to.ignored)
        return joined_json(
            JoinedParts(
                room.timeline,
                state,
                name,
                own.summary,
                event_list(ephemeral) if ephemeral else EMPTY_EVENTS,
                data,
                own.unread,
                wanted.timeline.unread_thread_notifications,
            )
        )

    def _unknown_members(self, task: Task, content: RoomContent, to: Recipient) -> list[ClientEvent]:
        """Give the lazily loaded members that the session does not have yet, and note what it gets.

        Where all state is given the client has none: it may have forgotten the room when its user left.
        """
        room_nid, wanted = task.room_nid, to.options.filter.state
        if not wanted.lazy_load_members:
            return []
        given = []
        for user_id, event in content.members.items():
            known = self._sent.knows(to.session, room_nid, user_id, event.nid, to.since)
            if not known or task.shown.full or wanted.include_redundant_members:
                given.append(event)
                self._sent.note(to.session, room_nid, user_id, event.nid, to.upto)
        for event in (*content.state, *content.timeline.events):
            if event.membership is not None and event.state_key is not None:
                self._sent.note(to.session, room_nid, event.state_key, event.nid, to.upto)
        return given


@frozen(eq=False)
class _Own:
    """What of a joined room is the reader's own."""

    summary: bytes
    unread: UnreadCount


async def _found(
    reads: Reads, tasks: Sequence[Task], to: Recipient
) -> tuple[dict[int, RoomContent], dict[int, Extras]]:
    """Find the contents of rooms, and what in them is the reader's own."""
    rooms = RoomContents(reads.database, reads.bodies, reads.states, reads.visibility)
    contents = await rooms.find(tasks, to.session, to.options, to.ignored)
    readers = {task.room_nid: task.reader for task in tasks}
    return contents, await Tails(reads.database, reads.aggregations).of(contents, readers, to)


def _render(content: RoomContent, extras: Extras, to: Recipient) -> SharedRoom:
    """Render a content."""
    wanted = to.options.filter
    timeline = timeline_bytes(content, wanted, to.now, to.epoch, extras)
    return SharedRoom(content, timeline, state_bytes(content, (), wanted, to.now, extras))


def _is_shareable(task: Task, to: Recipient) -> bool:
    """Tell whether a room's content is the same for all who were joined all the time."""
    shown = task.shown
    plain = shown.section is Section.JOIN and shown.throughout and not shown.full
    return plain and not task.judged and bool(task.span.entries)


def _key(task: Task, to: Recipient) -> Hashable:
    """Name a shareable content within its room."""
    span = task.span
    return share_key(span.key, None if span.complete else span.after, to.options)


def _tells(task: Task, content: RoomContent, beside: Beside) -> bool:
    """Tell whether there is anything to say about a room."""
    room = task.room_nid
    if task.shown.wanted or content.tells:
        return True
    places = (beside.receipts, beside.typing, beside.account_data, beside.delivered, beside.counted)
    return any(room in where for where in places)


def _account_data(data: Iterable[AccountDatum]) -> bytes:
    """Give the account data of a room."""
    events = [b'{"type":%b,"content":%b}' % (orjson.dumps(each.type), each.content) for each in data]
    return event_list(events) if events else EMPTY_EVENTS
