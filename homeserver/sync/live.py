"""Live deltas: what the newest stretch of the feed says to those who have nothing of their own in it.

When somebody speaks in a room, nearly every member is told the same: the shared content of the room, and
counts. This path tells at a glance whether a reader is one of them, and then only joins bytes. Whom
anything else concerns (a membership, a receipt, account data, a changed device, ephemeral news, ignored
users, an own event) goes the whole way, which gives the same bytes; so does the first reader of a
content, and leaves it for the rest.

Source: client-server-api/_index.md, "Syncing".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import define, field, frozen

from homeserver.feed.tail import Feed
from homeserver.sync.delta import Delta
from homeserver.sync.memberships import UserRoom
from homeserver.sync.recipient import Recipient
from homeserver.sync.room_part import RoomPart
from homeserver.sync.sent_members import SentMembers
from homeserver.sync.sharing import SharedRoom, SharedRooms, share_key
from homeserver.sync.spans import is_straight
from homeserver.sync.suppliers import NONE_UNREAD, UnreadCount, UnreadCounts
from homeserver.sync.tokens import EphemeralPlace, SyncToken
from protocol.identifiers import RoomID
from storage.feed import Entry, Flag, Kind
from storage.memberships import Membership

MAX_ENTRIES = 1000
"""Entries of a stretch that is looked at here."""
MAX_STRETCHES = 1000
"""Stretches remembered that end at the present position."""
MAX_MADE = 300
"""Parts and deltas remembered that end at the present position."""
_TOLD_TO_ALL = (Kind.EVENT, Kind.STATE, Kind.RECEIPT)
"""Entries of rooms that concern all who are joined; others concern the user they name."""


_Token = tuple[int, int, int, EphemeralPlace]
"""What a sync token is made of."""


@define(eq=False)
class _Run:
    """What a stretch has of one room."""

    first: int
    last: int
    plain: bool = True
    """Whether there is nothing but events that follow one another and change no membership."""


@frozen(eq=False)
class Stretch:
    """Entries between two positions, as far as they concern others than those they name."""

    runs: Mapping[int, _Run]
    """By room nid, in their order."""
    users: frozenset[int]
    """Users whom entries name: they have something of their own."""
    is_plain: bool
    """Whether no entry concerns users whom it does not name, rooms aside."""


@frozen(eq=False)
class LiveRoom:
    """A room of which a reader is told what all are told."""

    room_id: RoomID
    latest: int
    shared: SharedRoom


@define(eq=False)
class _Made:
    """What was made for readers at one position: many are told the same, and nobody is later on."""

    upto: int
    parts: dict[tuple[SharedRoom, int, int], RoomPart] = field(factory=dict)
    """By content and counts."""
    deltas: dict[tuple[_Token, tuple[RoomPart, ...], bytes], Delta] = field(factory=dict)


def stretch_of(entries: Sequence[Entry]) -> Stretch:
    """Look at entries once for all readers."""
    runs: dict[int, _Run] = {}
    users = set()
    devices = False
    for entry in entries:
        if entry.user_nid is not None:
            users.add(entry.user_nid)
            devices = devices or entry.kind == Kind.DEVICE_LIST
        if entry.room_nid is not None and entry.kind in _TOLD_TO_ALL:
            run = runs.get(entry.room_nid)
            if run is None:
                run = runs[entry.room_nid] = _Run(entry.pos, entry.pos)
            run.last = entry.pos
            run.plain = run.plain and _is_plain(entry)
    return Stretch({nid: runs[nid] for nid in sorted(runs)}, frozenset(users), not devices)


def _is_plain(entry: Entry) -> bool:
    """Tell whether an entry is an event that says the same to all who are joined."""
    return (
        is_straight(entry) and entry.user_nid is None and not entry.flags & (Flag.MEMBERSHIP | Flag.REDACTION)
    )


class LiveRooms:
    """Gives the rooms of live deltas."""

    def __init__(self, feed: Feed, shared: SharedRooms, sent: SentMembers, unread: UnreadCounts) -> None:
        """Start with nothing looked at."""
        self._feed = feed
        self._shared = shared
        self._sent = sent
        self._unread = unread
        self._stretches: dict[int, Stretch | None] = {}
        self._upto = -1
        self._made = _Made(-1)

    def rooms(self, rooms: Mapping[int, UserRoom], to: Recipient) -> Mapping[int, LiveRoom] | None:
        """Give the rooms a delta shows, by nid; None: it must be found the whole way.

        Waits for nothing. Ephemeral news and what waits for the device are not looked at here.
        """
        stretch = self._stretch(to.since, to.upto)
        if stretch is None or not stretch.is_plain or to.session.user_nid in stretch.users:
            return None
        if not stretch.runs:
            return {}
        if to.ignored:
            return None
        wanted = to.options.filter
        found: dict[int, LiveRoom] = {}
        for nid in _common(stretch.runs, rooms):
            run, room = stretch.runs[nid], rooms[nid]
            if room.membership is not Membership.JOIN:
                continue
            if not run.plain:
                return None
            if not wanted.allows_room(room.room_id):
                continue
            shared = self._content(nid, run, to)
            if shared is None:
                return None
            if shared.content.tells:
                found[nid] = LiveRoom(room.room_id, run.last, shared)
        return found

    async def parts(self, live: Mapping[int, LiveRoom], to: Recipient) -> Sequence[RoomPart]:
        """Give the parts of rooms, with the reader's counts."""
        counts = await self._unread.of(to.session, live)
        return [self._part(room, counts.get(nid, NONE_UNREAD), to) for nid, room in live.items()]

    def _part(self, room: LiveRoom, unread: UnreadCount, to: Recipient) -> RoomPart:
        """Give the part of a room with these counts: the same one to all who have them."""
        parts = self._made_at(to.upto).parts
        key = (room.shared, unread.notifications, unread.highlights)
        found = None if unread.threads else parts.get(key)
        if found is None:
            found = room.shared.part(room.room_id, room.latest, unread, to.options)
            if not unread.threads:
                parts[key] = found
        return found

    def delta(self, token: _Token, parts: tuple[RoomPart, ...], key_counts: bytes) -> Delta:
        """Give the delta of these parts and counts: the same one to all who are told the same."""
        deltas, key = self._made_at(token[1]).deltas, (token, parts, key_counts)
        found = deltas.get(key)
        if found is None:
            found = deltas[key] = Delta(SyncToken(*token), parts, key_counts=key_counts)
        return found

    def _made_at(self, upto: int) -> _Made:
        """Give where to put what is made at a position."""
        made = self._made
        if made.upto != upto or len(made.parts) + len(made.deltas) >= MAX_MADE:
            made = self._made = _Made(upto)
        return made

    def _stretch(self, after: int, upto: int) -> Stretch | None:
        """Give a stretch that ends at the present position; None: it is not in memory, or too long."""
        if upto != self._upto or len(self._stretches) > MAX_STRETCHES:
            self._stretches.clear()
            self._upto = upto
        if after not in self._stretches:
            entries = self._feed.since(after) if upto - after <= MAX_ENTRIES else None
            self._stretches[after] = None if entries is None else stretch_of(entries)
        return self._stretches[after]

    def _content(self, room_nid: int, run: _Run, to: Recipient) -> SharedRoom | None:
        """Give what all are told of a room, None if that is not known or not what this reader is told.

        A stretch that is too long for the timeline is not known under this name.
        """
        session, options = to.session, to.options
        shared = self._shared.get(room_nid, share_key((room_nid, run.first, run.last, True), None, options))
        if shared is None or shared.content.members_changed or session.user_id in shared.content.senders:
            return None
        if options.filter.lazy_load_members:
            if options.filter.state.include_redundant_members:
                return None
            for user_id, event in shared.content.members.items():
                if not self._sent.knows(session, room_nid, user_id, event.nid, to.since):
                    return None
        return shared


def _common(runs: Mapping[int, _Run], rooms: Mapping[int, UserRoom]) -> list[int]:
    """Give the rooms that are in both, in order."""
    if len(runs) <= len(rooms):
        return [nid for nid in runs if nid in rooms]
    return sorted(nid for nid in rooms if nid in runs)
