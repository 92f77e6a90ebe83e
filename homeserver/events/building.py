"""Build a local event on a place, and write down what its commit brings. Pure.

Two callers share this: `sending`, on the reactor with a head from memory, and `rebuilding`, on a database
thread with the room locked. Both first gather what an event needs (`Ground`), each in its own way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from attrs import define, field, frozen
from twisted.internet.defer import Deferred

from homeserver.events.clocks import AuthClock, assign
from homeserver.events.members import MemberChange, changes_between, member_rows
from homeserver.events.place import Place, events_of
from homeserver.events.relations import NO_RELATION, Relation
from homeserver.events.stored import Status, StoredEvent
from homeserver.events.write import Write
from protocol.auth_rules import NEVER_REDACTED, auth_keys_for, check_auth, may_ask_to_redact
from protocol.errors import Forbidden
from protocol.events import Event, EventDraft, Links, build_event
from protocol.identifiers import ServerName, StateKey, UserID
from protocol.limits import MAX_DEPTH, MAX_PREV_EVENTS
from protocol.power_levels import PowerLevels
from protocol.room_versions import RoomVersion
from protocol.signing import SigningKey
from storage import events
from storage.events import ClockRow, EventRow
from storage.feed import Flag, Kind, NewEntry
from storage.heads import HeadUpdate
from storage.rows import Rows, Statement
from storage.text import escape
from storage.transactions import Claim, TransactionKey
from storage.trie_format import NodeName
from storage.trie_nodes import INSERT_NODES, node_rows

CREATE: StateKey = ("m.room.create", "")
POWER_LEVELS: StateKey = ("m.room.power_levels", "")

PUT_NODES = Statement(INSERT_NODES)
ROW_OVERHEAD = 500
"""Bytes of an event's row and entry beside its canonical JSON, roughly."""


def no_class(_event: Event) -> int:
    """Put every event in the class on which no default push rule decides."""
    return 0


@frozen(eq=False)
class Author:
    """This server as the author of events."""

    server_name: ServerName
    key: SigningKey
    classify: Callable[[Event], int] = no_class
    """Tells which default push rule decides on an event (`protocol.unread`)."""


@define(eq=False)
class Sending:
    """One local event on its way, from the request to the commit."""

    draft: EventDraft
    nid: int
    sender_nid: int
    txn: TransactionKey | None = None
    member_nid: int | None = None
    """The nid of the user whose membership it changes."""
    relation: Relation = NO_RELATION
    thread: str | None = None
    redacted: StoredEvent | None = None
    """The event it redacts, if that is here."""
    done: Deferred[StoredEvent] = field(factory=Deferred)

    @property
    def state_key(self) -> StateKey | None:
        """Give the key of room state it sets, if it does."""
        return None if self.draft.state_key is None else (self.draft.type, self.draft.state_key)


@frozen(eq=False)
class StateChange:
    """What a state event changes: the new root with its nodes, and the event's auth clock."""

    root: bytes
    nodes: Mapping[NodeName, bytes]
    clock: AuthClock


def state_keys(version: RoomVersion, draft: EventDraft) -> frozenset[StateKey]:
    """Give the keys of room state by which an event is judged."""
    return auth_keys_for(version, draft.type, draft.sender, draft.state_key, draft.content)


def wanted_keys(keys: frozenset[StateKey], sending: Sending) -> frozenset[StateKey]:
    """Give all state that is looked at: `state_keys`, the create event, and what the event replaces."""
    own = sending.state_key
    return keys | {CREATE} if own is None else keys | {CREATE, own}


def auth_events_of(
    version: RoomVersion, keys: frozenset[StateKey], state: Mapping[StateKey, StoredEvent]
) -> list[StoredEvent]:
    """Give the events that an event names as its authority, by its `state_keys`."""
    return [state[key] for key in keys if key in state and (version.create_in_auth_events or key != CREATE)]


def build(
    place: Place,
    sending: Sending,
    state: Mapping[StateKey, StoredEvent],
    auth: Sequence[StoredEvent],
    now: int,
    author: Author,
) -> StoredEvent:
    """Build, authorize, hash and sign an event on `place`.

    `state` is the state under `wanted_keys`, `auth` the part of it that the event names. Raises
    `Forbidden` when the rules refuse it, `EventTooLarge` and `BadJson` when it cannot be an event at all.
    """
    if not place.prev_events and sending.state_key != CREATE:
        raise Forbidden("Only a create event has no parents")
    depth = min(place.mark.depth + 1, MAX_DEPTH)
    links = Links(
        place.prev_events[-MAX_PREV_EVENTS:], tuple([stored.event.event_id for stored in auth]), depth
    )
    event = build_event(
        sending.draft, place.version, links, now=now, server_name=author.server_name, key=author.key
    )
    judged = events_of(state)
    check_auth(event, judged)
    if sending.redacted is not None:
        check_redaction(event, sending.redacted.event, judged)
    return StoredEvent(
        event,
        sending.nid,
        place.room_nid,
        Status.ACCEPTED,
        place.root,
        depth,
        sending.sender_nid,
        author.classify(event),
        sending.thread,
    )


def check_redaction(event: Event, target: Event, state: Mapping[StateKey, Event]) -> None:
    """See that a user of this server may redact an event: their own, or any with the level for it.

    Raises `Forbidden` if not.
    """
    if target.type in NEVER_REDACTED:
        raise Forbidden(f"{target.type} events are not redacted")
    power = PowerLevels.of(event.version, state[CREATE], state.get(POWER_LEVELS))
    if event.room_id != target.room_id or not may_ask_to_redact(event.sender, target, power):
        raise Forbidden("You may not redact this event")


def write_of(
    place: Place,
    sending: Sending,
    stored: StoredEvent,
    change: StateChange | None,
    members: Iterable[MemberChange],
) -> tuple[Write, Place]:
    """Give the write of an event built on `place`, and the place after it."""
    root = place.root if change is None else change.root
    after = place.after(stored, root, min(len(place.prev_events), MAX_PREV_EVENTS))
    clock = None if change is None else change.clock
    rows: tuple[Rows, ...] = (events.event_rows(row_of(stored, sending.relation, clock)),)
    if change is not None:
        rows += (Rows(PUT_NODES, tuple(node_rows(place.room_nid, change.nodes))),)
        rows += member_rows(place.room_nid, members)
    if stored.event.redacts is not None:
        rows += redaction_rows(stored, sending.redacted)
    entry = NewEntry(
        Kind.EVENT,
        _flags(sending),
        place.room_nid,
        sending.member_nid,
        stored.nid,
        root,
        after.mark,
        stored,
    )
    update = HeadUpdate(place.room_nid, place.mark.seq, after.mark, root)
    claim = None if sending.txn is None else claim_of(sending.txn, stored)
    size = len(stored.event.raw) + ROW_OVERHEAD
    return Write(rows, (entry,), update, claim, size), after


def claim_of(key: TransactionKey, stored: StoredEvent) -> Claim:
    """Let a transaction ID stand for an event."""
    event = stored.event
    return Claim(key, event.origin_server_ts, stored.room_nid, stored.nid, event.event_id)


def redaction_rows(redaction: StoredEvent, target: StoredEvent | None) -> tuple[Rows, ...]:
    """Give the rows of a redaction: what it aims at, and, where it applies, that the target is redacted."""
    assert redaction.event.redacts is not None
    aim = events.redaction_rows(redaction.room_nid, redaction.event.redacts, redaction.nid)
    if target is None:
        return (aim,)
    return (aim, events.redacted_by_rows(redaction.room_nid, target.nid, redaction.nid))


def clock_of(
    nid: int,
    auth: Sequence[StoredEvent],
    before: StoredEvent | None,
    made: Mapping[int, AuthClock],
    rows: Sequence[ClockRow],
) -> AuthClock:
    """Place a new state event among the auth chains.

    `made` has the clocks of events that are not in the database yet, `rows` those of all others in `auth`;
    of their tails, that of `before` must be up to date.
    """
    clocks = {each.nid: made[each.nid] for each in auth if each.nid in made}
    tails: dict[int, int] = {}
    for row in rows:
        clocks[row.event_nid] = AuthClock.unpack(row.chain, row.number, row.clock)
        tails[row.chain] = max(tails.get(row.chain, 0), row.chain_tail)
    for clock in made.values():
        tails[clock.chain] = max(tails.get(clock.chain, 0), clock.number)
    replaced = None if before is None else clocks.get(before.nid)
    return assign(nid, clocks.values(), replaced, 0 if replaced is None else tails[replaced.chain])


def member_changes(
    sending: Sending, stored: StoredEvent, before: StoredEvent | None, server_name: ServerName
) -> list[MemberChange]:
    """Tell whose membership an event changes, when it is set on the resolved state and replaces `before`."""
    if sending.member_nid is None:
        return []
    user_id = UserID(stored.event.key[1])
    return changes_between({stored.event.key: (before, stored)}, {user_id: sending.member_nid}, server_name)


def row_of(stored: StoredEvent, relation: Relation, clock: AuthClock | None) -> EventRow:
    """Give the row of an event."""
    event = stored.event
    return EventRow(
        stored.room_nid,
        stored.nid,
        event.event_id,
        int(stored.status),
        0,
        stored.depth,
        escape(event.type),
        None if event.state_key is None else escape(event.state_key),
        stored.sender_nid,
        event.origin_server_ts,
        stored.root_before,
        None if clock is None else clock.chain,
        None if clock is None else clock.number,
        None if clock is None else clock.pack(),
        stored.event_class,
        None if stored.thread is None else escape(stored.thread),
        None if relation.rel_type is None else escape(relation.rel_type),
        None if relation.relates_to is None else escape(relation.relates_to),
        stored.redacted_by,
        event.raw,
    )


def _flags(sending: Sending) -> int:
    flags: int = Flag.FEDERATE
    if sending.member_nid is not None:
        flags |= Flag.MEMBERSHIP
    if sending.redacted is not None:
        flags |= Flag.REDACTION
    return int(flags)
