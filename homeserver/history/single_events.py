"""One event and its surroundings: by ID, with context, or by time.

An event that does not exist and one the asker may not see look alike.

Source: client-server-api/rooms.yaml, event_context.yaml, room_event_by_timestamp.yaml.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from homeserver.history.messages import Messages, PageRequest
from homeserver.history.places import token_after, token_before
from homeserver.history.presenting import Asker, Presenter
from homeserver.history.visibility import Verdict
from homeserver.sync.bodies import Bodies, redacted_versions
from homeserver.sync.filters import EventFilter
from homeserver.sync.render import ClientEvent
from homeserver.sync.state import MEMBER, key_of
from homeserver.sync.states import States
from homeserver.sync.timeline import passes
from protocol.errors import NotFound
from protocol.identifiers import EventID, StateKey, UserID
from storage import client_events
from storage.client_events import ClientEventRow
from storage.database import Database, Transaction
from storage.state_trie import EMPTY_ROOT, StateRoot
from storage.trie_lookup import Sought, Whole

NEAREST = 100
"""Events looked at for the one nearest to a time."""


@frozen(eq=False)
class Seen:
    """An event the asker may see."""

    event: ClientEvent
    verdict: Verdict


@frozen(eq=False)
class SingleEvents:
    """Reads single events."""

    _database: Database
    _bodies: Bodies
    _states: States
    _presenter: Presenter
    _messages: Messages

    async def see(self, asker: Asker, event_id: EventID) -> Seen:
        """Give an event the asker may see; raise NotFound."""
        rows, versions = await self._database.read(read_by_id, asker.access.room.nid, event_id)
        events = self._bodies.render(rows, versions)
        verdicts = await self._presenter.judge(events, asker)
        for event in events:
            if verdicts[event.nid].visible:
                return Seen(event, verdicts[event.nid])
        raise NotFound("There is no such event, or you may not see it")

    async def event(self, asker: Asker, event_id: EventID) -> bytes:
        """Give one event as JSON."""
        seen = await self.see(asker, event_id)
        return (await self._presenter.render([seen.event], {seen.event.nid: seen.verdict}, asker))[0]

    async def nearest(self, asker: Asker, ts: int, *, later: bool) -> ClientEvent:
        """Give the visible event nearest to a time in one direction; raise NotFound."""
        rows, versions = await self._database.read(read_nearest, asker.access.room.nid, ts, later=later)
        events = self._bodies.render(rows, versions)
        verdicts = await self._presenter.judge(events, asker)
        for event in events:
            if verdicts[event.nid].visible and not asker.ignores(event):
                return event
        raise NotFound("There is no event near this time that you may see")

    async def context(self, asker: Asker, event_id: EventID, limit: int, wanted: EventFilter) -> bytes:
        """Give an event with up to `limit` events around it and the state at the last of them, as JSON."""
        seen = await self.see(asker, event_id)
        event, half = seen.event, limit // 2
        place = (event.depth, event.nid)
        earlier = PageRequest(token_before(place), None, True, half, wanted)
        later = PageRequest(token_after(place), None, False, limit - half, wanted)
        before = await self._messages.page(asker, earlier)
        after = await self._messages.page(asker, later)
        around = [*reversed(before.events), event, *after.events]
        rendered = await self._presenter.render([event], {event.nid: seen.verdict}, asker)
        first, last = around[0], around[-1]
        state = await self._state_at(asker, last, wanted, {each.sender for each in around})
        return (
            b'{"event":%b,"events_before":[%b],"events_after":[%b],"start":"%b","end":"%b","state":[%b]}'
            % (
                rendered[0],
                b",".join(before.chunk),
                b",".join(after.chunk),
                str(token_before((first.depth, first.nid))).encode(),
                str(token_after((last.depth, last.nid))).encode(),
                b",".join(state),
            )
        )

    async def _state_at(
        self, asker: Asker, last: ClientEvent, wanted: EventFilter, speakers: set[UserID]
    ) -> Sequence[bytes]:
        """Give the state at an event, the event included; with lazy loading the speakers alone of members."""
        if not wanted.allows_room(asker.access.room.room_id):
            return ()
        room_nid, root = last.room_nid, StateRoot(last.root_before or EMPTY_ROOT)
        if wanted.lazy_load_members:
            keys: list[StateKey] = [(MEMBER, speaker) for speaker in sorted(speakers)]
            state = (await self._states.read([Whole(room_nid, root, without=MEMBER)]))[0]
            state |= (await self._states.find([Sought(room_nid, root, keys)]))[0]
        else:
            state = (await self._states.read([Whole(room_nid, root)]))[0]
        if last.state_key is not None:
            state[key_of(last)] = last.nid
        found = await self._bodies.get((room_nid, nid) for nid in state.values())
        return await self._presenter.plain([each for each in found.values() if passes(each, wanted)], asker)


Read = tuple[list[ClientEventRow], dict[int, str]]


def read_by_id(tx: Transaction, room_nid: int, event_id: EventID) -> Read:
    """Read one accepted event."""
    rows = client_events.by_ids(tx, room_nid, [event_id])
    return rows, redacted_versions(tx, rows)


def read_nearest(tx: Transaction, room_nid: int, ts: int, *, later: bool) -> Read:
    """Read the accepted events nearest to a time, in one direction."""
    rows = client_events.nearest(tx, room_nid, ts, later=later, limit=NEAREST)
    return rows, redacted_versions(tx, rows)
