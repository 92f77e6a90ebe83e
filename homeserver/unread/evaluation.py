"""Judge events as they are committed: a row for each local member of whom the rule says otherwise.

Runs on a database thread, inside the commit's transaction, after the events' own rows; so that an event and
its verdicts are there together or not at all. Each distinct set of rules is asked once for an event; users
the event mentions are asked for themselves. What it remembers of rooms is dropped by the feed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from threading import Lock

from attrs import evolve, field, frozen

from homeserver.events.event_store import stored_from_row
from homeserver.events.stored import Status, StoredEvent
from homeserver.sync.spans import is_straight
from homeserver.unread.rules import Facts, MaskCache, RuleSets, UserRules
from protocol.events import Event
from protocol.identifiers import RoomID, ServerName, StateKey, UserID, server_of
from protocol.power_levels import PowerLevels
from protocol.unread import (
    BY_DEFAULT,
    HIGHLIGHT,
    SILENT,
    EventClass,
    Masks,
    Verdict,
    classify,
    mentioned,
    mentions_room,
)
from storage import events, feed, memberships, unread
from storage.database import Transaction
from storage.feed import Entry, Flag, Kind, NewEntry
from storage.rows import Rows
from storage.state_trie import StateRoot, find
from storage.trie_nodes import run_in_transaction
from storage.unread import VerdictRow

MAX_ROOMS = 2000
MAX_NOTED = 2_000
_CREATE: StateKey = ("m.room.create", "")
_POWER_LEVELS: StateKey = ("m.room.power_levels", "")
_MAY_CARRY_MENTION = (EventClass.MESSAGE, EventClass.ENCRYPTED)

_NONE: frozenset[int] = frozenset()


@frozen(eq=False)
class Audience:
    """Who in a room may have unread counts."""

    users: Mapping[UserID, int]
    """Joined local users, with their nids."""
    members: int
    """All joined members."""
    rules: Mapping[int, UserRules]
    """Rules by user nid, of those whose rules are not the default ones."""
    version: int
    """The count of changes to anybody's rules when these were read."""
    newcomers: Mapping[int, UserID] = field(factory=dict)
    """Users whose rules were not read yet, by nid."""
    awaits: frozenset[int] = _NONE
    """Memberships, by event nid, that were read before they were committed: until the feed brings them all
    this holds in their own transaction alone, which may yet fail."""

    def after(self, user_id: UserID, nid: int, *, joined: bool) -> Audience:
        """Give who may have unread counts once a local user is, or is no longer, joined."""
        if joined == (user_id in self.users):
            return self
        if joined:
            users, newcomers = {**self.users, user_id: nid}, {**self.newcomers, nid: user_id}
            return evolve(self, users=users, members=self.members + 1, newcomers=newcomers)
        users = {user: each for user, each in self.users.items() if user != user_id}
        return evolve(self, users=users, members=self.members - 1)


@frozen(eq=False)
class Noted:
    """What was found out about an event when it was committed."""

    event_class: EventClass
    verdicts: Mapping[int, Verdict]
    """By user nid: verdicts that differ from the mask."""


class UnreadVerdicts:
    """Judges events for the local members of their rooms. Bound: `MAX_ROOMS` rooms remembered."""

    def __init__(self, rules: RuleSets, masks: MaskCache, server_name: ServerName) -> None:
        """Start knowing no room; users of `server_name` are local."""
        self._rules = rules
        self._masks = masks
        self._server_name = server_name
        self._rooms: OrderedDict[int, Audience] = OrderedDict()
        self._noted: OrderedDict[tuple[int, int], Noted] = OrderedDict()
        self._version = 0
        self._moves = 0
        """Counts memberships; what is read from the database while they move is not kept."""
        self._changed_at = 0
        """The position in the feed of the last change told: what is read as of before it is not kept."""
        self._lock = Lock()

    def rows(self, tx: Transaction, entries: Sequence[NewEntry]) -> list[Rows]:
        """Give the rows of verdicts on the events of entries about to be committed."""
        found: list[Rows] = []
        moving: dict[int | None, list[NewEntry]] = {}
        for entry in entries:
            if entry.flags & Flag.MEMBERSHIP:
                moving.setdefault(entry.room_nid, []).append(entry)
        for entry in entries:
            stored = entry.payload
            if entry.kind == Kind.EVENT and isinstance(stored, StoredEvent):
                found += self._judge(tx, stored, moving.get(entry.room_nid, ()))
        return found

    def noted(self, room_nid: int, nid: int) -> Noted | None:
        """Give what this process found out about an event it committed lately."""
        return self._noted.get((room_nid, nid))

    def audience(self, tx: Transaction, room_nid: int, moving: Sequence[NewEntry] = ()) -> Audience:
        """Give who may have unread counts in a room, from memory or the database.

        `moving` are the entries of memberships of the room that this transaction writes.
        """
        known, version, moves = self._rooms.get(room_nid), self._version, self._moves
        awaits = frozenset(entry.ref or 0 for entry in moving)
        if known is not None and awaits and not known.awaits:
            known = self._expecting(known, moving, awaits)
        if known is not None and known.awaits == awaits and known.version == version and not known.newcomers:
            return known
        upto = feed.tail(tx)
        if known is None or known.awaits != awaits:
            local = memberships.local_members(tx, room_nid)
            members = sum(memberships.servers(tx, room_nid).values())
            known = Audience({UserID(user): nid for user, nid in local.items()}, members, {}, -1, {}, awaits)
        if known.version == version:
            rules = {**known.rules, **self._rules.of(tx, known.newcomers)}
        else:
            rules = dict(self._rules.of(tx, {nid: user for user, nid in known.users.items()}))
        made = evolve(known, rules=rules, version=version, newcomers={})
        with self._lock:
            if moves == self._moves and upto >= self._changed_at:
                self._rooms[room_nid] = made
                if len(self._rooms) > MAX_ROOMS:
                    self._rooms.popitem(last=False)
        return made

    def masks_of(
        self, tx: Transaction, user_nid: int, user_id: UserID, rooms: Mapping[int, RoomID]
    ) -> dict[int, Masks]:
        """Give what a user's rules say of each class, by room; who never changed a rule costs no query."""
        rules = self._rules.of(tx, {user_nid: user_id}).get(user_nid)
        if rules is None:
            return dict.fromkeys(rooms, BY_DEFAULT)
        return {
            room_nid: self._masks.of(rules, room_id, self.audience(tx, room_nid).members)
            for room_nid, room_id in rooms.items()
        }

    def apply(self, entries: Sequence[Entry]) -> None:
        """Follow what entries change, or drop it. A listener of the feed."""
        for entry in entries:
            if entry.kind == Kind.ACCOUNT_DATA and entry.room_nid is None:
                self._version += 1
                self._changed_at = entry.pos
            elif entry.room_nid is not None and (entry.flags & Flag.MEMBERSHIP or entry.kind == Kind.STATE):
                self._move(entry.room_nid, entry)

    def _move(self, room_nid: int, entry: Entry) -> None:
        """Let a room's audience follow an entry, or forget it."""
        with self._lock:
            self._moves += 1
            self._changed_at = entry.pos
            known = self._rooms.pop(room_nid, None)
            followed = None if known is None else self._followed(known, entry)
            if followed is not None:
                self._rooms[room_nid] = followed

    def _expecting(
        self, known: Audience, moving: Sequence[NewEntry], awaits: frozenset[int]
    ) -> Audience | None:
        """Give the audience after memberships that are being written; None where it is not for certain."""
        followed: Audience | None = known
        for entry in moving:
            if followed is not None and not self._is_of_elsewhere(entry):
                followed = self._followed(followed, entry)
        return None if followed is None else evolve(followed, awaits=awaits)

    def _is_of_elsewhere(self, entry: Entry | NewEntry) -> bool:
        """Tell whether a membership is surely that of another server's user, who has no counts."""
        stored = entry.payload
        return isinstance(stored, StoredEvent) and server_of(UserID(stored.event.key[1])) != self._server_name

    def _followed(self, known: Audience, entry: Entry | NewEntry) -> Audience | None:
        """Give the audience after a membership; None where it is not for certain or not of a local user."""
        stored = entry.payload
        if known.awaits and entry.ref not in known.awaits:
            return None
        if not is_straight(entry) or entry.user_nid is None or not isinstance(stored, StoredEvent):
            return None
        if self._is_of_elsewhere(entry):
            return None
        user_id = UserID(stored.event.key[1])
        known = evolve(known, awaits=known.awaits - {entry.ref})
        return known.after(user_id, entry.user_nid, joined=stored.event.membership == "join")

    def _judge(self, tx: Transaction, stored: StoredEvent, moving: Sequence[NewEntry]) -> list[Rows]:
        """Judge one event for everybody, and note what differs from the masks."""
        if stored.status is not Status.ACCEPTED:
            return []
        audience = self.audience(tx, stored.room_nid, moving)
        event, room_nid = stored.event, stored.room_nid
        own = EventClass(classify(event))
        loud = mentions_room(event) and _may_notify_room(tx, stored)
        kind = EventClass.ROOM_MENTION if loud and own in _MAY_CARRY_MENTION else own
        facts = Facts(event.room_id, event.sender, UserID(""), audience.members, loud)
        differing = self._differing(event, kind, facts, audience)
        self._note(room_nid, stored.nid, Noted(kind, differing))
        rows = [unread.class_rows(kind, room_nid, stored.nid)] if kind != stored.event_class else []
        if differing:
            rows.append(
                unread.verdict_rows(
                    [
                        VerdictRow(
                            user,
                            room_nid,
                            stored.nid,
                            stored.depth,
                            stored.thread,
                            int(verdict.notify),
                            int(verdict.highlight),
                        )
                        for user, verdict in differing.items()
                    ]
                )
            )
        return rows

    def _differing(
        self, event: Event, kind: EventClass, facts: Facts, audience: Audience
    ) -> dict[int, Verdict]:
        """Give the verdicts that differ from what the users' masks say of the class."""
        differing: dict[int, Verdict] = {}
        named = {UserID(user) for user in mentioned(event)} & audience.users.keys()
        asked: dict[Hashable, Verdict] = {}
        readers = {audience.users[user]: user for user in named}
        if audience.rules:
            by_nid = {nid: user for user, nid in audience.users.items()}
            readers |= {nid: by_nid[nid] for nid in audience.rules if nid in by_nid}
        for nid, user in readers.items():
            if user == event.sender:
                continue
            rules = audience.rules.get(nid)
            if rules is None:
                verdict = _default_mention(event)
            elif user in named:
                verdict = rules.verdict(event, evolve(facts, reader=user))
            else:
                if rules.key not in asked:
                    asked[rules.key] = rules.verdict(event, evolve(facts, reader=user))
                verdict = asked[rules.key]
            if verdict != self._masks.of(rules, facts.room_id, facts.members)[kind]:
                differing[nid] = verdict
        return differing

    def _note(self, room_nid: int, nid: int, noted: Noted) -> None:
        """Remember it until the feed has brought the event."""
        self._noted[room_nid, nid] = noted
        if len(self._noted) > MAX_NOTED:
            self._noted.pop(next(iter(self._noted)), None)


def _default_mention(event: Event) -> Verdict:
    """Say what the default rules make of an event that mentions the reader."""
    if event.type == "m.room.member":
        return SILENT
    notice = event.type == "m.room.message" and event.content.get("msgtype") == "m.notice"
    return SILENT if notice else HIGHLIGHT


def _may_notify_room(tx: Transaction, stored: StoredEvent) -> bool:
    """Tell whether the sender's power suffices to mention the room, by the state before the event."""
    if stored.root_before is None:
        return False
    room, version = stored.room_nid, stored.event.version
    state = run_in_transaction(tx, room, find(StateRoot(stored.root_before), [_CREATE, _POWER_LEVELS]))
    rows = {row.event_nid: row for row in events.by_nid(tx, room, list(state.values()))}
    found = {
        key: stored_from_row(rows[nid], stored.event.room_id, version).event
        for key, nid in state.items()
        if nid in rows
    }
    if _CREATE not in found:
        return False
    power = PowerLevels.of(version, found[_CREATE], found.get(_POWER_LEVELS))
    return power.user(stored.event.sender) >= power.notifications("room")
