"""Which rooms a delta shows: the reader's memberships, then and now, looked up where they moved.

Source: client-server-api/_index.md, "Syncing".
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from attrs import evolve, frozen

from homeserver.sync.bodies import Bodies, Name
from homeserver.sync.memberships import UserRoom
from homeserver.sync.recipient import Recipient
from homeserver.sync.render import ClientEvent
from homeserver.sync.rooms import (
    Change,
    Section,
    Shown,
    is_away,
    own_changes,
    shown_first,
    shown_since,
)
from homeserver.sync.sources import MAX_OWN, Personal
from homeserver.sync.spans import is_straight
from homeserver.sync.states import States
from protocol.identifiers import StateKey
from storage import spans
from storage.database import Database
from storage.feed import Entry
from storage.memberships import Membership
from storage.state_trie import EMPTY_ROOT, StateRoot
from storage.trie_lookup import Sought

_AWAY = "leave"


@frozen(eq=False)
class ShownRooms:
    """Decides which rooms are shown, in which section, between which bounds."""

    _database: Database
    _bodies: Bodies
    _states: States

    async def first(self, rooms: Mapping[int, UserRoom], to: Recipient) -> list[Shown]:
        """Give the rooms of a first sync; those left only if the filter asks for them."""
        allowed = _allowed(rooms, to)
        shown = shown_first(allowed, to.upto)
        if to.options.filter.include_leave:
            away = {nid: room for nid, room in allowed.items() if is_away(room)}
            shown += await self._left(away, to)
        return shown

    async def since(
        self, rooms: Mapping[int, UserRoom], personal: Personal, typing: Collection[int], to: Recipient
    ) -> list[Shown]:
        """Give the rooms of an incremental sync; `typing` are rooms where that changed."""
        allowed = _allowed(rooms, to)
        own = {nid: found for nid, found in own_changes(personal.own).items() if nid in allowed}
        changes, before = await self._changes(own, allowed, to) if own else ({}, {})
        shown: list[Shown] = []
        for nid in _concerned(allowed, personal, own, typing, all_joined=to.options.full_state):
            room = allowed[nid]
            prior = before.get(nid, "join" if room.membership is Membership.JOIN else _AWAY)
            each = shown_since(room, to.since, to.upto, prior, changes.get(nid, ()))
            if each is None:
                continue
            if to.options.full_state and each.section is Section.JOIN:
                each = evolve(each, full=True, wanted=True)
            shown.append(each)
        if to.options.full_state and to.options.filter.include_leave:
            listed = {each.room.room_nid for each in shown}
            away = {nid: room for nid, room in allowed.items() if is_away(room) and nid not in listed}
            shown += await self._left(away, to)
        return shown

    async def _left(self, away: Mapping[int, UserRoom], to: Recipient) -> list[Shown]:
        """Show rooms left at any time, each up to the reader's own leave."""
        if not away:
            return []
        entries = await self._database.read(spans.own, to.session.user_nid, 0, to.upto, MAX_OWN)
        own = {nid: found for nid, found in own_changes(entries).items() if nid in away}
        bodies = await self._bodies.get(_names(own))
        shown = (
            shown_since(away[nid], 0, to.upto, _AWAY, _as_changes(found, away[nid], bodies))
            for nid, found in own.items()
        )
        return [each for each in shown if each is not None]

    async def _changes(
        self, own: Mapping[int, Sequence[Entry]], rooms: Mapping[int, UserRoom], to: Recipient
    ) -> tuple[dict[int, list[Change]], dict[int, str]]:
        """Give the reader's own membership changes, and the memberships before them."""
        bodies: dict[Name, ClientEvent] = {}
        missing: list[Name] = []
        for name, entry in _event_entries(own).items():
            body = self._bodies.of_entry(entry)
            if body is None:
                missing.append(name)
            else:
                bodies[name] = body
        if missing:
            bodies |= await self._bodies.get(missing)
        changes = {nid: _as_changes(found, rooms[nid], bodies) for nid, found in own.items()}
        return changes, await self._before(own, bodies, to)

    async def _before(
        self, own: Mapping[int, Sequence[Entry]], bodies: Mapping[Name, ClientEvent], to: Recipient
    ) -> dict[int, str]:
        """Give the reader's membership in each room at the lower bound."""
        key: StateKey = ("m.room.member", to.session.user_id)
        roots: dict[int, StateRoot] = {}
        unknown: list[tuple[int, int]] = []
        for nid, entries in own.items():
            first = bodies.get((nid, entries[0].ref or 0))
            if is_straight(entries[0]) and first is not None and first.root_before is not None:
                roots[nid] = StateRoot(first.root_before)
            else:
                unknown.append((nid, to.since))
        if unknown:
            found = await self._database.read(spans.roots_at, unknown)
            roots |= {nid: StateRoot(found.get(nid, EMPTY_ROOT)) for nid, _ in unknown}
        states = await self._states.find([Sought(nid, root, [key]) for nid, root in roots.items()])
        names = {(nid, state[key]) for nid, state in zip(roots, states, strict=True) if key in state}
        members = await self._bodies.get(names)
        return dict.fromkeys(roots, _AWAY) | {
            nid: event.membership or _AWAY for (nid, _), event in members.items()
        }


def _allowed(rooms: Mapping[int, UserRoom], to: Recipient) -> Mapping[int, UserRoom]:
    """Leave out the rooms the filter leaves out."""
    wanted = to.options.filter
    if wanted.rooms is None and not wanted.not_rooms:
        return rooms
    return {nid: room for nid, room in rooms.items() if wanted.allows_room(room.room_id)}


def _concerned(
    rooms: Mapping[int, UserRoom],
    personal: Personal,
    own: Mapping[int, object],
    typing: Collection[int],
    *,
    all_joined: bool,
) -> list[int]:
    """Give the rooms that may have something to tell, in a fixed order."""
    if personal.rooms is None or all_joined:
        return sorted(nid for nid, room in rooms.items() if room.membership is Membership.JOIN or nid in own)
    active = personal.rooms.union(typing)
    few = active if len(active) < len(rooms) else rooms.keys()
    return sorted(
        nid
        for nid in few
        if nid in active and nid in rooms and (rooms[nid].membership is Membership.JOIN or nid in own)
    )


def _event_entries(own: Mapping[int, Sequence[Entry]]) -> dict[Name, Entry]:
    """Give the entries that name an event, by its name."""
    return {
        (nid, entry.ref): entry for nid, entries in own.items() for entry in entries if entry.ref is not None
    }


def _names(own: Mapping[int, Sequence[Entry]]) -> list[Name]:
    """Give the names of the events of entries."""
    return list(_event_entries(own))


def _as_changes(entries: Sequence[Entry], room: UserRoom, bodies: Mapping[Name, ClientEvent]) -> list[Change]:
    """Say what each entry set; where the event is not at hand, it set what holds now."""
    changes = []
    for entry in entries:
        body = bodies.get((room.room_nid, entry.ref or 0))
        now = room.membership.name.lower()
        changes.append(Change(entry, now if body is None else body.membership or now))
    return changes
