"""Which of a user's rooms a delta shows, in which section, and between which bounds.

Pure. A departed user's upper bound is the user's own leave: nothing later is looked at (security: C1).

Source: client-server-api/_index.md, "Syncing".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum

from attrs import frozen

from homeserver.sync.memberships import UserRoom
from storage.feed import Entry, Flag, Kind
from storage.memberships import Membership

_AWAY = (Membership.LEAVE, Membership.BAN)


class Section(Enum):
    """The four sections of `rooms`."""

    JOIN = "join"
    INVITE = "invite"
    KNOCK = "knock"
    LEAVE = "leave"


@frozen
class Change:
    """One membership of the reader in a room: the entry that set it, and what it set."""

    entry: Entry
    membership: str


@frozen(eq=False)
class Shown:
    """A room to be shown."""

    room: UserRoom
    section: Section
    after: int
    """The lower bound in the feed; 0 when `full`."""
    upto: int
    full: bool = False
    """Whether state is given whole, since the reader knows none of it."""
    throughout: bool = False
    """Whether the reader was joined from `after` to `upto` without a break."""
    own_only: Entry | None = None
    """Show nothing but this entry's event: the reader was never inside."""
    wanted: bool = False
    """Whether the room is shown even with nothing in it."""


def own_changes(entries: Iterable[Entry]) -> dict[int, list[Entry]]:
    """Sort the reader's own membership entries by room, oldest first."""
    found: dict[int, list[Entry]] = {}
    for entry in entries:
        if entry.room_nid is not None and is_membership(entry):
            found.setdefault(entry.room_nid, []).append(entry)
    return found


def is_membership(entry: Entry) -> bool:
    """Tell whether an entry changes a membership of its user."""
    if entry.kind == Kind.INVITE:
        return True
    return entry.kind in (Kind.EVENT, Kind.STATE) and bool(entry.flags & Flag.MEMBERSHIP)


def shown_since(
    room: UserRoom, after: int, upto: int, before: str, changes: Sequence[Change]
) -> Shown | None:
    """Tell how a room is shown in a delta; `before` is the membership at `after`.

    None: not at all. `changes` are the reader's own, oldest first, within the bounds.
    """
    if room.membership is Membership.JOIN:
        if before == "join" and all(change.membership == "join" for change in changes):
            return Shown(room, Section.JOIN, after, upto, throughout=True)
        return Shown(room, Section.JOIN, 0, upto, full=True, wanted=True)
    if not changes:
        return None
    if room.membership is Membership.INVITE:
        return Shown(room, Section.INVITE, after, upto, wanted=True)
    if room.membership is Membership.KNOCK:
        return Shown(room, Section.KNOCK, after, upto, wanted=True)
    return None if room.forgotten else _left(room, after, before, changes)


def _left(room: UserRoom, after: int, before: str, changes: Sequence[Change]) -> Shown | None:
    """Show a room that was left, up to the last leave from inside."""
    bound, inside = None, before
    for change in changes:
        if inside == "join" and change.membership != "join":
            bound = change.entry.pos
        inside = change.membership
    if bound is None:
        last = changes[-1].entry
        return Shown(room, Section.LEAVE, after, last.pos, own_only=last, wanted=True)
    if before == "join":
        return Shown(room, Section.LEAVE, after, bound, wanted=True)
    return Shown(room, Section.LEAVE, 0, bound, full=True, wanted=True)


def shown_first(rooms: Mapping[int, UserRoom], upto: int) -> list[Shown]:
    """Tell how rooms are shown in a first sync; left ones are for the caller to add."""
    shown = []
    for room in rooms.values():
        if room.membership is Membership.JOIN:
            shown.append(Shown(room, Section.JOIN, 0, upto, full=True, wanted=True))
        elif room.membership is Membership.INVITE:
            shown.append(Shown(room, Section.INVITE, 0, upto, wanted=True))
        elif room.membership is Membership.KNOCK:
            shown.append(Shown(room, Section.KNOCK, 0, upto, wanted=True))
    return shown


def is_away(room: UserRoom) -> bool:
    """Tell whether the user is out of a room that is still listed."""
    return room.membership in _AWAY and not room.forgotten
