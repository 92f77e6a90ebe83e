"""The JSON of one room of a delta, joined from parts that are shared and parts of the reader's own.

Source: client-server-api/_index.md, "Syncing" (JoinedRoom, LeftRoom).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import orjson
from attrs import frozen

from homeserver.sync.filters import Filter
from homeserver.sync.joined import RoomContent
from homeserver.sync.render import JOINED, PLAIN, ClientEvent, Unsigned, event_list, finish, keep_fields
from homeserver.sync.suppliers import NONE_UNREAD, UnreadCount
from homeserver.sync.tokens import FeedToken

EMPTY_EVENTS = b'{"events":[]}'


@frozen(eq=False)
class Extras:
    """What the timeline's tails say to one reader alone, by event nid."""

    transaction_ids: Mapping[int, str] = {}
    relations: Mapping[int, bytes] = {}
    pdus: Mapping[tuple[int, int], ClientEvent] = {}
    """By (room nid, event nid): events in the format of federation, where the filter asks for it."""


NO_EXTRAS = Extras()


def timeline_bytes(
    content: RoomContent, wanted: Filter, now: int, epoch: int, extras: Extras = NO_EXTRAS
) -> bytes:
    """Give the `timeline` object."""
    timeline = content.timeline
    shape = shaper(wanted)
    events = [
        shape(finish(_formed(event, extras), now, _unsigned(content, event, extras)))
        for event in timeline.events
    ]
    limited = b"true" if timeline.limited else b"false"
    prev = str(FeedToken(epoch, max(0, timeline.prev_pos))).encode()
    return b'{"events":[%b],"limited":%b,"prev_batch":"%b"}' % (b",".join(events), limited, prev)


def _unsigned(content: RoomContent, event: ClientEvent, extras: Extras) -> Unsigned:
    """Say in the tail of a timeline event what this reader may know."""
    nid = event.nid
    membership = content.memberships.get(nid, "join")
    because = _because(content, event)
    replaced, related = content.replaced.get(nid), extras.relations.get(nid)
    txn_id = extras.transaction_ids.get(nid)
    if membership == "join" and not (because or replaced or related or txn_id):
        return JOINED
    return Unsigned(because, replaced, related, membership == "join", membership, txn_id)


def _because(content: RoomContent, event: ClientEvent) -> ClientEvent | None:
    """Give the redaction of an event."""
    return None if event.redacted_by is None else content.because.get((event.room_nid, event.nid))


def _formed(event: ClientEvent, extras: Extras) -> ClientEvent:
    """Give the event in the format that was asked for."""
    return extras.pdus.get((event.room_nid, event.nid), event) if extras.pdus else event


def state_bytes(
    content: RoomContent,
    members: Sequence[ClientEvent],
    wanted: Filter,
    now: int,
    extras: Extras = NO_EXTRAS,
) -> bytes:
    """Give the `state` or `state_after` object: the state, and the members lazy loading adds."""
    if not content.state and not members:
        return EMPTY_EVENTS
    shape = shaper(wanted)
    return event_list(
        [
            shape(
                finish(
                    _formed(event, extras),
                    now,
                    PLAIN if event.redacted_by is None else Unsigned(_because(content, event)),
                )
            )
            for event in (*content.state, *members)
        ]
    )


def shaper(wanted: Filter) -> Callable[[bytes], bytes]:
    """Give what a filter's `event_fields` makes of an event."""
    paths = wanted.event_fields
    if paths is None:
        return lambda event: event
    return lambda event: keep_fields(event, paths)


@frozen(eq=False)
class JoinedParts:
    """The pieces of a joined room's JSON."""

    timeline: bytes
    state: bytes
    state_name: bytes
    summary: bytes = b"{}"
    ephemeral: bytes = EMPTY_EVENTS
    account_data: bytes = EMPTY_EVENTS
    unread: UnreadCount = NONE_UNREAD
    by_thread: bool = False


def joined_json(parts: JoinedParts) -> bytes:
    """Join the pieces."""
    return b"".join(
        (
            b'{"timeline":',
            parts.timeline,
            b',"%b":' % parts.state_name,
            parts.state,
            b',"summary":',
            parts.summary,
            b',"ephemeral":',
            parts.ephemeral,
            b',"account_data":',
            parts.account_data,
            unread_bytes(parts.unread, by_thread=parts.by_thread),
            b"}",
        )
    )


def unread_bytes(unread: UnreadCount, *, by_thread: bool) -> bytes:
    """Give the counts as members of the room's object, each after a comma."""
    notify, highlight = unread.notifications, unread.highlights
    if not by_thread:
        notify += sum(counts[0] for counts in unread.threads.values())
        highlight += sum(counts[1] for counts in unread.threads.values())
    whole = b',"unread_notifications":{"highlight_count":%d,"notification_count":%d}' % (highlight, notify)
    if not by_thread or not unread.threads:
        return whole
    threads = {
        thread: {"highlight_count": counts[1], "notification_count": counts[0]}
        for thread, counts in sorted(unread.threads.items())
    }
    return whole + b',"unread_thread_notifications":' + orjson.dumps(threads)


def left_json(timeline: bytes, state: bytes, state_name: bytes, account_data: bytes) -> bytes:
    """Give the object of a room that was left."""
    return b'{"timeline":%b,"%b":%b,"account_data":%b}' % (timeline, state_name, state, account_data)
