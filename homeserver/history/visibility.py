"""Who may see an event: the history visibility at the event and the reader's membership then.

The one place that decides, for sync and every history endpoint. State before an event is read from its
branch (`root_before`), never from the present; events of one state share one look-up.

Source: client-server-api/modules/history_visibility.md, "Server behaviour".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from attrs import frozen

from homeserver.sync.bodies import Bodies
from homeserver.sync.render import ClientEvent
from homeserver.sync.states import States
from protocol.identifiers import UserID
from protocol.visibility import VISIBILITY_KEY, parse_visibility, user_sees
from storage.client_events import Place
from storage.state_trie import StateRoot
from storage.trie_lookup import Sought

MEMBER = "m.room.member"


class _VisibilityContent(msgspec.Struct):
    """The content of `m.room.history_visibility`; anything may stand in it."""

    history_visibility: object = None


@frozen
class Reader:
    """Who reads a room, and how the reader stands to it."""

    user_id: UserID
    joined: bool = False
    """Whether the reader is joined now."""
    departure: Place | None = None
    """Where in history the reader ceased to be joined; None: joined now, or never joined."""

    def joined_after(self, event: ClientEvent) -> bool:
        """Tell whether the reader was joined at some time after the event."""
        return self.joined or (self.departure is not None and (event.depth, event.nid) < self.departure)


@frozen
class Verdict:
    """Whether the reader may see an event, and the reader's membership at it."""

    visible: bool
    membership: str


HIDDEN = Verdict(False, "leave")
SEEN_INSIDE = Verdict(True, "join")


def visibility_of(event: ClientEvent | None) -> str:
    """Read a visibility event; absent or not understood, it is `shared`."""
    if event is None:
        return parse_visibility(None)
    return parse_visibility(msgspec.json.decode(event.content, type=_VisibilityContent).history_visibility)


def judge(event: ClientEvent, visibility: str, membership: str, reader: Reader) -> Verdict:
    """Decide on one event, given the visibility and the reader's membership before it.

    For changes of the visibility, and for the reader's own membership, before or after is enough.
    """
    if membership == "join" and event.type != MEMBER:
        return SEEN_INSIDE
    visibilities, memberships = [visibility], [membership]
    at = membership
    if (event.type, event.state_key) == VISIBILITY_KEY:
        visibilities.append(visibility_of(event))
    if event.type == MEMBER and event.state_key == reader.user_id:
        at = event.membership or membership
        memberships.append(at)
    return Verdict(user_sees(visibilities, memberships, reader.joined_after(event)), at)


@frozen(eq=False)
class Visibility:
    """Judges events in bulk."""

    _states: States
    _bodies: Bodies

    async def judge(self, events: Sequence[ClientEvent], readers: Mapping[int, Reader]) -> dict[int, Verdict]:
        """Decide on events of any rooms, each room with its reader; by event nid.

        Events without a placement (outliers) and of rooms without a reader are hidden.
        """
        asked = [event for event in events if event.room_nid in readers and event.root_before is not None]
        found = await self._before(asked, readers)
        verdicts = {event.nid: HIDDEN for event in events}
        for event in asked:
            visibility, membership = found[event.room_nid, StateRoot(event.root_before or b"")]
            verdicts[event.nid] = judge(event, visibility, membership, readers[event.room_nid])
        return verdicts

    async def _before(
        self, events: Sequence[ClientEvent], readers: Mapping[int, Reader]
    ) -> dict[tuple[int, StateRoot], tuple[str, str]]:
        """Give visibility and membership in each state that comes before one of the events."""
        roots = list({(event.room_nid, StateRoot(event.root_before or b"")) for event in events})
        keys = {room: (VISIBILITY_KEY, (MEMBER, reader.user_id)) for room, reader in readers.items()}
        entries = await self._states.find([Sought(room, root, keys[room]) for room, root in roots])
        names = {
            (room, nid) for (room, _), state in zip(roots, entries, strict=True) for nid in state.values()
        }
        bodies = await self._bodies.get(names)
        found: dict[tuple[int, StateRoot], tuple[str, str]] = {}
        for (room, root), state in zip(roots, entries, strict=True):
            visibility, member = (bodies.get((room, state.get(key, -1))) for key in keys[room])
            membership = (member.membership if member is not None else None) or "leave"
            found[room, root] = (visibility_of(visibility), membership)
        return found
