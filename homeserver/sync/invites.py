"""Rooms the user is invited to or knocks at: stripped state, and nothing else of the room.

Where this server holds the room's state, stripped state is taken from just before the invite; else what
the inviting server sent is shown as far as it makes sense: nonsense in it is left out, whatever its shape
(security: F11).

Source: client-server-api/_index.md, "Stripped state".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import orjson
from attrs import frozen

from homeserver.sync.bodies import Bodies, Name
from homeserver.sync.render import ClientEvent
from homeserver.sync.rooms import Section, Shown
from homeserver.sync.session import Session
from homeserver.sync.states import States
from protocol.identifiers import StateKey, UserID
from storage import stripped_states
from storage.database import Database
from storage.state_trie import StateRoot
from storage.trie_lookup import Sought

STRIPPED: tuple[StateKey, ...] = tuple(
    (kind, "")
    for kind in (
        "m.room.create",
        "m.room.name",
        "m.room.avatar",
        "m.room.topic",
        "m.room.join_rules",
        "m.room.canonical_alias",
        "m.room.encryption",
    )
)
MAX_STRIPPED = 100
"""Events of another server's stripped state that are looked at."""


@frozen(eq=False)
class Invites:
    """Gives the stripped state of invites and knocks."""

    _database: Database
    _bodies: Bodies
    _states: States

    async def of(
        self, shown: Sequence[Shown], session: Session, ignored: frozenset[UserID]
    ) -> dict[int, bytes]:
        """Give the JSON of each room, by room nid; invites by ignored users are absent."""
        if not shown:
            return {}
        own = await self._bodies.get((each.room.room_nid, each.room.event_nid) for each in shown)
        given = await self._database.read(
            stripped_states.of_user, session.user_nid, [each.room.room_nid for each in shown]
        )
        held = await self._held_state(own)
        found: dict[int, bytes] = {}
        for each in shown:
            room = each.room.room_nid
            member = own.get((room, each.room.event_nid))
            if member is not None and member.sender in ignored and each.section is Section.INVITE:
                continue
            events = held.get(room) or read_stripped(given.get(room, b""))
            found[room] = _section_json(each.section, events, member)
        return found

    async def _held_state(self, own: Mapping[Name, ClientEvent]) -> dict[int, list[bytes]]:
        """Strip the state this server holds, as it was before the reader's own event."""
        placed = [event for event in own.values() if event.root_before is not None]
        roots = [StateRoot(event.root_before or b"") for event in placed]
        states = await self._states.find(
            [
                Sought(event.room_nid, root, [*STRIPPED, *_inviter(event)])
                for event, root in zip(placed, roots, strict=True)
            ]
        )
        bodies = await self._bodies.get(
            (event.room_nid, nid)
            for event, state in zip(placed, states, strict=True)
            for nid in state.values()
        )
        return {
            event.room_nid: [
                strip(bodies[event.room_nid, nid])
                for nid in state.values()
                if (event.room_nid, nid) in bodies
            ]
            for event, state in zip(placed, states, strict=True)
        }


def _inviter(event: ClientEvent) -> Sequence[StateKey]:
    """Name the membership of whoever invited; of one who knocks the knock itself is shown."""
    return () if event.sender == event.state_key else (("m.room.member", event.sender),)


def strip(event: ClientEvent) -> bytes:
    """Give the stripped form of an event."""
    return b'{"content":%b,"sender":%b,"state_key":%b,"type":%b}' % (
        event.content,
        orjson.dumps(event.sender),
        orjson.dumps(event.state_key or ""),
        orjson.dumps(event.type),
    )


def read_stripped(raw: bytes) -> list[bytes]:
    """Read stripped state as another server sent it; whatever is not a stripped event is left out."""
    try:
        events = msgspec.json.decode(raw) if raw else []
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return []
    if not isinstance(events, list):
        return []
    return [made for event in events[:MAX_STRIPPED] if (made := _strip_foreign(event)) is not None]


def _strip_foreign(event: Any) -> bytes | None:
    """Keep the four fields of a stripped event, None if they are not of the right types."""
    if not isinstance(event, dict):
        return None
    kept = {name: event.get(name) for name in ("content", "sender", "state_key", "type")}
    if not isinstance(kept["content"], dict):
        return None
    if not all(isinstance(kept[name], str) for name in ("sender", "state_key", "type")):
        return None
    try:
        return orjson.dumps(kept)
    except (TypeError, ValueError, RecursionError):
        return None


def _section_json(section: Section, events: list[bytes], member: ClientEvent | None) -> bytes:
    """Give the object of the room, the reader's own event in it once."""
    own = [] if member is None else [strip(member)]
    rest = [event for event in events if event not in own]
    return b'{"%b_state":{"events":[%b]}}' % (section.value.encode(), b",".join(rest + own))
